"""The command line: one file a command. Light to import: torch is loaded inside the commands that compute."""

from __future__ import annotations

import sys

import typer

from ptlreid.cli import console
from ptlreid.cli.demo import demo
from ptlreid.cli.evaluate import evaluate
from ptlreid.cli.finetune import finetune
from ptlreid.cli.prepare import prepare
from ptlreid.errors import PtlreidError

app = typer.Typer(
    name="ptlreid",
    help="Adapt a person re-identification model to a new camera network.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _program(
    version: bool = typer.Option(False, "--version", help="Show the version and exit.", is_eager=True),
) -> None:
    pass


for command in (demo, prepare, finetune, evaluate):
    app.command()(command)


def main() -> None:
    """Run the command line: exit code 0 done, 1 a message for the user, 2 wrong usage."""
    try:
        app()
    except PtlreidError as error:
        console.fail(str(error))
        sys.exit(1)
