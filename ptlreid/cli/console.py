"""Output of the command line: results on standard output, progress and notes on standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape

from ptlreid import distributed
from ptlreid.progress import Advance, Silent

# With several processes, only the main one prints results and progress; each prints its own errors.
err = Console(stderr=True)

_LINE_EVERY_SECONDS = 10.0
_NO_LIMIT = 100_000  # columns, for a file or a pipe


def show_error(message: str) -> None:
    """Print an error message on standard error."""
    err.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)


def show_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    if distributed.is_main():
        print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def say(text: str) -> None:
    """Print a line of the result on standard output."""
    _make_console().print(escape(text), highlight=False, soft_wrap=True)


def show_plan(plan: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the plan of a dry run: one JSON document, or `key = value` lines with dotted nested keys.

    Sizes, below a key that ends in `_bytes`, are shown in MiB.
    """
    if as_json:
        show_json(plan)
        return
    for key, value in plan.items():
        if isinstance(value, Mapping):
            for inner, item in value.items():
                shown = f"{item / 2**20:,.0f} MiB" if key.endswith("_bytes") else item
                say(f"{key.removesuffix('_bytes')}.{inner} = {shown}")
        else:
            say(f"{key} = {value}")


def show_scores(title: str, rows: Mapping[str, Mapping[str, Any] | None]) -> None:
    """Print a table of scores in percent, one row each; None for a run without a test set."""
    cells = []
    for name, scores in rows.items():
        if scores is None:
            cells.append([name, "no test set", *[""] * 4])
            continue
        cmc = scores["cmc"]
        values = (scores["mAP"], cmc["1"], cmc["5"], cmc["10"], scores["mINP"])
        cells.append([name, *(f"{100 * value:.1f}" for value in values)])
    show_rows(title, ("", "mAP", "CMC-1", "CMC-5", "CMC-10", "mINP"), cells, right=True)


def show_rows(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: bool = False) -> None:
    """Print a table below its title. Cells wrap on a narrow terminal; in a file or pipe, each row is one line.

    `right`: columns after the first are numbers.
    """
    from rich.table import Column, Table

    justify: Literal["left", "right"] = "right" if right else "left"
    first, *others = columns
    table = Table(
        Column(first, overflow="fold"),
        *(Column(name, overflow="fold", justify=justify, no_wrap=right) for name in others),
    )
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    say(title)
    _make_console().print(table)


def _make_console() -> Console:
    """A console on the current standard output; wider than any row unless that is a terminal."""
    return Console(quiet=not distributed.is_main(), width=None if sys.stdout.isatty() else _NO_LIMIT)


class Reporter:
    """A `Progress` on standard error: live bars on a terminal, otherwise a line every ten seconds."""

    def note(self, text: str) -> None:
        if distributed.is_main():
            err.print(f"[dim]{escape(text)}[/]", highlight=False, soft_wrap=True)

    @contextmanager
    def task(self, title: str, total: int | None) -> Iterator[Advance]:
        if not distributed.is_main():
            shown = Silent().task(title, total)
        else:
            shown = _bar(title, total) if err.is_terminal else _lines(title, total)
        with shown as advance:
            yield advance


@contextmanager
def _bar(title: str, total: int | None) -> Iterator[Advance]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[status]}"),
    )
    with Progress(*columns, console=err, expand=True) as bars:
        task = bars.add_task(escape(title), total=total, status="")

        def advance(done: int, *, status: str = "", total: int | None = None) -> None:
            bars.update(task, completed=done, status=escape(status), total=total)

        yield advance


@contextmanager
def _lines(title: str, total: int | None) -> Iterator[Advance]:
    began = shown = time.monotonic()
    steps = total

    def advance(done: int, *, status: str = "", total: int | None = None) -> None:
        nonlocal shown, steps
        steps = total or steps
        now = time.monotonic()
        if now - shown >= _LINE_EVERY_SECONDS:
            shown = now
            count = f"{done}/{steps}" if steps else f"{done}"
            err.print(
                escape(f"{title}: {count}, {now - began:.0f} s {status}".rstrip()), highlight=False, soft_wrap=True
            )

    yield advance
    err.print(escape(f"{title}: done in {time.monotonic() - began:.1f} s"), highlight=False, soft_wrap=True)
