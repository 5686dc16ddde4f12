"""The command line: one file a command. Light to import: torch is loaded inside the commands that compute."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import ptlreid
from ptlreid.cli import console
from ptlreid.cli.demo import demo
from ptlreid.cli.evaluate import evaluate
from ptlreid.cli.finetune import finetune
from ptlreid.cli.models import models
from ptlreid.cli.prepare import prepare
from ptlreid.errors import PtlreidError

app = typer.Typer(
    name="ptlreid",
    help="Adapt a person re-identification model to a new camera network.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        console.say(f"ptlreid {ptlreid.__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    pass


for command in (demo, prepare, finetune, evaluate, models):
    app.command()(command)


def main() -> None:
    """Run the command line: exit code 0 done, 1 a message for the user, 2 wrong usage."""
    try:
        app()
    except PtlreidError as error:
        console.fail(str(error))
        sys.exit(1)
