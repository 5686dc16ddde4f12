"""The command line: one file a command. Light to import: torch is loaded inside the commands that compute."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

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


def _told(command: Callable[..., None]) -> Callable[..., None]:
    """The command, which tells of what went wrong, or of being stopped, in one message and an exit code."""

    @wraps(command)
    def run(**options: Any) -> None:
        try:
            command(**options)
        except PtlreidError as error:
            console.fail(str(error))
            raise typer.Exit(1) from None
        except BrokenPipeError:
            raise  # whoever reads our output has seen enough: Typer ends quietly
        except OSError as error:
            reason = f"{error.filename or 'a file'}: {error.strerror or error}"
            console.fail(f"{reason}. Check that it may be read and written and that the disk has room, then try again.")
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            console.fail("stopped. What was finished is kept: the same command again goes on from there.")
            raise typer.Exit(130) from None

    return run


for command in (demo, prepare, finetune, evaluate, models):
    app.command()(_told(command))


def main() -> None:
    """Run the command line: exit code 0 done, 1 a message for the user, 2 wrong usage, 130 stopped by Ctrl-C."""
    app()
