"""What a person sees: results on standard output, progress and notes on standard error."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column, Table

from ptlreid import distributed
from ptlreid.progress import Advance, Silent

# Of several processes, the main one alone tells of results and progress; each tells of its own faults.
out = Console(soft_wrap=False, quiet=not distributed.is_main())
err = Console(stderr=True)

_LINE_EVERY_SECONDS = 10.0


def fail(message: str) -> None:
    """One message about what went wrong, on standard error."""
    err.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)


def show_json(value: Any) -> None:
    """Exactly one JSON document on standard output."""
    if distributed.is_main():
        print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def say(text: str) -> None:
    """A line of the result, on standard output."""
    out.print(escape(text), highlight=False, soft_wrap=True)


def show_plan(plan: Mapping[str, Any], *, as_json: bool) -> None:
    """What a dry run found: one JSON document, or `key = value` lines with nested keys dotted."""
    if as_json:
        show_json(plan)
        return
    for key, value in plan.items():
        if isinstance(value, Mapping):
            for inner, item in value.items():
                say(f"{key}.{inner} = {item}")
        else:
            say(f"{key} = {value}")


def show_scores(title: str, rows: Mapping[str, Mapping[str, Any] | None]) -> None:
    """A table of scores in percent, a row each; None where a run has no test set."""
    table = Table(
        "",
        *(Column(name, justify="right") for name in ("mAP", "CMC-1", "CMC-5", "CMC-10", "mINP")),
        title=escape(title),
    )
    for name, scores in rows.items():
        if scores is None:
            table.add_row(escape(name), "no test set")
            continue
        cmc = scores["cmc"]
        values = (scores["mAP"], cmc["1"], cmc["5"], cmc["10"], scores["mINP"])
        table.add_row(escape(name), *(f"{100 * value:.1f}" for value in values))
    out.print(table)


def show_rows(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A plain table, whose first column is never cut."""
    table = Table(
        Column(columns[0], no_wrap=True, min_width=max(len(row[0]) for row in rows)), *columns[1:], title=title
    )
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    out.print(table)


class Reporter:
    """A `Progress` for people: live bars on a terminal, a line now and then elsewhere."""

    def note(self, text: str) -> None:
        if distributed.is_main():
            err.print(f"[dim]{escape(text)}[/]", highlight=False, soft_wrap=True)

    @contextmanager
    def task(self, title: str, total: int | None) -> Iterator[Advance]:
        if not distributed.is_main():
            how = Silent().task(title, total)
        else:
            how = _bar(title, total) if err.is_terminal else _lines(title, total)
        with how as advance:
            yield advance


@contextmanager
def _bar(title: str, total: int | None) -> Iterator[Advance]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[status]}"),
    )
    with Bars(*columns, console=err, expand=True) as bars:
        task = bars.add_task(escape(title), total=total, status="")

        def advance(done: int, *, status: str = "", total: int | None = None) -> None:
            bars.update(task, completed=done, status=escape(status), total=total)

        yield advance


@contextmanager
def _lines(title: str, total: int | None) -> Iterator[Advance]:
    began = shown = time.monotonic()
    all_steps = total

    def advance(done: int, *, status: str = "", total: int | None = None) -> None:
        nonlocal shown, all_steps
        all_steps = total or all_steps
        now = time.monotonic()
        if now - shown >= _LINE_EVERY_SECONDS:
            shown = now
            of = f" of {all_steps}" if all_steps else ""
            err.print(escape(f"{title}: {done}{of}, {now - began:.0f} s {status}".rstrip()), highlight=False)

    yield advance
    err.print(escape(f"{title}: done in {time.monotonic() - began:.1f} s"), highlight=False)
