"""The command line, one file per command. Modules are imported when their command is called, none for `--help`."""

from __future__ import annotations

import os
import re
import sys
from importlib import import_module
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import ptlreid
from ptlreid.signals import interruptible

# The commands by heading, each with its summary, which is the first sentence of its help.
COMMANDS = {
    "Datasets": {
        "datasets": "List the supported datasets, or describe one.",
        "prepare": "Prepare a dataset: from its archive or folder, from your own images, or synthetic.",
        "check": "Check a dataset: decode every image, compare every count, find leaks and duplicates.",
        "pack": "Resize all images of a dataset once, into one file that loads faster.",
    },
    "Training": {
        "finetune": "Fine-tune a network on a dataset, with BConv-Cells (PTL) unless --no-ptl.",
        "adapt": "Adapt a finished run to the images of other cameras, without identities.",
        "distill": "Distil a finished run into a plain backbone (student-teacher distillation).",
        "transfer-chain": "Fine-tune one network on several datasets in order, and evaluate it on all after each.",
    },
    "Evaluation": {
        "evaluate": "Evaluate a run or an ONNX model on a dataset, or features of any program: mAP, CMC and mINP.",
        "compare": "Compare runs on one test set: differences of mAP and CMC-1 with 95% CIs.",
        "calibrate": "Measure thresholds on the distance: same identity or not, in the gallery or not.",
        "report": "Write an HTML report on runs, or one figure or table for a paper.",
    },
    "Use": {
        "search": "Find people in a gallery of images: the nearest images of each query, and whether they are matches.",
        "embed": "Extract the features of any images, for `ptlreid search` or other programs.",
        "index": "Build an index over shards, for searches in galleries that are too large to be read each time.",
        "export": "Write the network of a run as a graph for other programs, if it agrees with the run.",
    },
    "More": {
        "demo": "Take a small network from one camera site to another, without labels and with them.",
        "models": "List every network, with and without PTL: parameters and multiply-adds.",
        "recipes": "List the recipes that --recipe takes, or show one.",
        "reproduce": "Train the runs behind a table of the paper, and compare with the published figures.",
    },
}


def load_command(name: str) -> TyperCommand:
    """The command called `name`, its module imported."""
    from ptlreid.cli.command import build_command

    module = name.replace("-", "_")
    return build_command(name, getattr(import_module(f"ptlreid.cli.{module}"), module))


class Commands(TyperGroup):
    """The commands: names and summaries only, until one is called and loaded."""

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        for heading, commands in COMMANDS.items():
            for name, summary in commands.items():
                self.add_command(TyperCommand(name, help=summary, rich_markup_mode=None, rich_help_panel=heading))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The commands by heading, with summaries that wrap and are never truncated."""
        width = max(map(len, self.commands))
        for heading, commands in COMMANDS.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), summary) for name, summary in commands.items()])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is called, loaded."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name else command, rest


app = typer.Typer(
    cls=Commands,
    name="ptlreid",
    help="Person re-identification: fine-tune, distil, transfer and evaluate, with progressive transfer learning.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help pages fit narrow terminals, and paragraphs wrap
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"ptlreid {ptlreid.__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line.

    Exit code 0: done; 1: an error, reported in a message; 2: wrong usage; 128 + n: stopped by signal n, such as 130 for
    Ctrl-C.
    """
    _adapt_to_terminal()
    with interruptible():
        try:
            app()
        except OSError as error:  # of a command's own there is a message already: this is help that is not written
            from ptlreid.cli import console

            console.discard(sys.stdout)
            console.show_error(str(console.output_error(error)))
            sys.exit(1)


def _adapt_to_terminal() -> None:
    """Replace what the encoding of standard output lacks, and ignore a size of the terminal that is not one."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed before the start
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - until the process ends
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    for name in ("COLUMNS", "LINES"):
        if not re.fullmatch("[1-9][0-9]{0,3}", os.environ.get(name, "1")):
            del os.environ[name]
