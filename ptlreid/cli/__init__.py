"""The command line: one file a command. Light to import: torch is loaded inside the commands that compute."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from collections.abc import Callable
from functools import wraps
from types import FrameType
from typing import Annotated, Any

import typer

import ptlreid
from ptlreid.cli import console
from ptlreid.cli.compare import compare
from ptlreid.cli.demo import demo
from ptlreid.cli.distill import distill
from ptlreid.cli.evaluate import evaluate
from ptlreid.cli.finetune import finetune
from ptlreid.cli.models import models
from ptlreid.cli.prepare import prepare
from ptlreid.cli.recipes import recipes
from ptlreid.cli.report import report
from ptlreid.cli.reproduce import reproduce
from ptlreid.cli.transfer_chain import transfer_chain
from ptlreid.errors import PtlreidError, Stopped

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
        except Stopped as stop:
            console.fail(f"{stop} To go on: {_typed()}")
            raise typer.Exit(stop.code) from None
        except PtlreidError as error:
            console.fail(str(error))
            raise typer.Exit(1) from None
        except BrokenPipeError:
            raise  # whoever reads our output has seen enough: Typer ends quietly
        except OSError as error:
            reason = f"{error.filename or 'a file'}: {error.strerror or error}"
            console.fail(f"{reason}. Check that it may be read and written and that the disk has room, then try again.")
            raise typer.Exit(1) from None
        except KeyboardInterrupt as stop:
            code = 128 + (stop.args[0] if stop.args else signal.SIGINT)
            console.fail(f"stopped. What was finished is kept; to go on: {_typed()}")
            raise typer.Exit(code) from None

    return run


def _terminate(number: int, frame: FrameType | None) -> None:
    """SIGTERM, treated as Ctrl-C is: what is open is put in order on the way out."""
    raise KeyboardInterrupt(number)


def _typed() -> str:
    """The command as it was typed."""
    return shlex.join(["ptlreid", *sys.argv[1:]])


for command in (
    demo,
    prepare,
    finetune,
    distill,
    transfer_chain,
    evaluate,
    compare,
    report,
    models,
    recipes,
    reproduce,
):
    app.command()(_told(command))


def main() -> None:
    """Run the command line.

    Exit code 0: done; 1: a message for the user; 2: wrong usage; 130, 143: stopped by Ctrl-C, by SIGTERM.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    app()
