"""Output of the command line: results on standard output, progress and notes on standard error."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal, TextIO, cast

from rich.console import Console
from rich.text import Text

from ptlreid import distributed
from ptlreid.errors import PtlreidError
from ptlreid.progress import Advance, Silent

_LINE_EVERY_SECONDS = 10.0
_NO_LIMIT = 100_000  # columns, for a file or a pipe
_LONGEST_UNWRAPPED = 20  # characters: cells of longer columns wrap


class _StandardError(io.TextIOBase):
    """Standard error as it currently is. Once it cannot be written, because its reader or terminal is gone, what is
    written is discarded: the work of the command does not depend on it."""

    def write(self, text: str) -> int:
        with _guard():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with _guard():
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    @property
    def _stream(self) -> TextIO:
        return getattr(sys.stderr, "rich_proxied_file", sys.stderr)  # rich replaces it while it shows a progress bar


@contextmanager
def _guard() -> Iterator[None]:
    try:
        yield
    except OSError:
        discard(sys.stderr)


# With several processes, only the main one prints results and progress; each prints its own errors.
err = Console(file=cast("IO[str]", _StandardError()))


def discard(stream: TextIO) -> None:
    """Send to the null device what is still buffered in `stream`, and what is written to it later."""
    with suppress(io.UnsupportedOperation):  # a stream without a file, in tests and notebooks
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def printable(text: str) -> str:
    """The text on one line, with control characters and undecodable bytes of file names escaped as in Python."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def show_error(message: str) -> None:
    """Print an error message, of one line or a list of faults, on standard error."""
    lines = "\n".join(printable(line) for line in message.split("\n"))
    err.print(Text.assemble(("error:", "bold red"), " ", lines), soft_wrap=True)


def show_json(value: Any) -> None:
    """Print one JSON document on standard output; characters that cannot be printed there are escaped."""
    if not distributed.is_main():
        return
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    if not _fits(text):
        text = json.dumps(value, indent=2, allow_nan=False)
    with _output():
        print(text)


def say(text: str) -> None:
    """Print a line of the result on standard output."""
    _print(Text(printable(text)), soft_wrap=True)


def show_folders(paths: Iterable[Path]) -> None:
    """Print the folder of each run."""
    for path in paths:
        say(f"Run folder: {path}")


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


def show_scores(
    title: str,
    rows: Mapping[str, Mapping[str, Any]],
    means: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] | None = None,
) -> None:
    """Print a table of scores in percent, one row each; a run without a test set has no mAP.

    Scores that have those of averaged weights (`averaged`) get a second row for them. `means`: further rows, each the
    mean and the standard deviation of scores over seeds.
    """
    cells = []
    for name, scores in rows.items():
        if "mAP" not in scores:
            cells.append([name, "no test set", *[""] * 4])
            continue
        both = {name: scores} | ({f"{name}, averaged": scores["averaged"]} if "averaged" in scores else {})
        cells += [[label, *(f"{100 * value:.1f}" for value in _shown(one))] for label, one in both.items()]
    for name, (mean, sd) in (means or {}).items():
        cells.append([name, *(mean_text(*pair) for pair in zip(_shown(mean), _shown(sd), strict=True))])
    show_rows(title, ("", "mAP", "CMC-1", "CMC-5", "CMC-10", "mINP"), cells, right=True)


def mean_text(mean: float, sd: float | None, *, sign: str = "") -> str:
    """A mean of fractions in percent, with its standard deviation unless that is None: `21.6 ± 0.9`.

    `sign`: "+" to show that of a positive mean.
    """
    return f"{100 * mean:{sign}.1f}" + ("" if sd is None else f" ± {100 * sd:.1f}")


def _shown(scores: Mapping[str, Any]) -> tuple[Any, ...]:
    """The columns of `show_scores`."""
    cmc = scores["cmc"]
    return scores["mAP"], cmc["1"], cmc["5"], cmc["10"], scores["mINP"]


def show_rows(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: bool = False) -> None:
    """Print a table below its title. In a file or pipe, each row is one line.

    On a terminal, long texts wrap; one too narrow for the table gets a line for each cell. Numbers are never cut.
    `right`: columns after the first are numbers.
    """
    from rich.measure import Measurement
    from rich.table import Column, Table

    def wraps(column: int) -> bool:
        longest = max((len(row[column]) for row in rows), default=0)
        return longest > _LONGEST_UNWRAPPED and not (right and column)

    justify: Literal["left", "right"] = "right" if right else "left"
    table = Table(
        *(
            Column(printable(name), overflow="fold", justify=justify if at else "left", no_wrap=not wraps(at))
            for at, name in enumerate(columns)
        )
    )
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    say(title)
    unlimited = Console(width=_NO_LIMIT)
    if Measurement.get(unlimited, unlimited.options, table).minimum <= _make_console().width:
        _print(table)
        return
    for first, *others in rows:
        say(first)
        for name, cell in zip(columns[1:], others, strict=True):
            say(f"  {name}: {cell}")


def _print(content: Any, *, soft_wrap: bool = False) -> None:
    with _output():
        _make_console().print(content, soft_wrap=soft_wrap)


def _make_console() -> Console:
    """A console on the current standard output; wider than any row unless that is a terminal."""
    width = None if sys.stdout.isatty() else _NO_LIMIT
    return Console(file=sys.stdout, quiet=not distributed.is_main(), width=width)


@contextmanager
def _output() -> Iterator[None]:
    """Standard output in the block: if it cannot be written, an error; if its reader closed it, a quiet exit."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        discard(sys.stdout)
        raise SystemExit(1) from None
    except OSError as error:
        discard(sys.stdout)
        raise output_error(error) from None


def output_error(error: OSError) -> PtlreidError:
    """The error for standard output that cannot be written."""
    return PtlreidError(
        f"standard output: cannot be written ({error.strerror or error}). Check where it is redirected to and whether "
        "the disk has room, then run the command again."
    )


def _fits(text: str) -> bool:
    """Whether the encoding of standard output has all characters of `text`."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


class Reporter:
    """A `Progress` on standard error: live bars on a terminal, otherwise a line every ten seconds."""

    def note(self, text: str) -> None:
        if distributed.is_main():
            err.print(Text(printable(text), "dim"), soft_wrap=True)

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
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}", style="dim", markup=False),
    )
    with Progress(*columns, console=err, expand=True) as bars:
        task = bars.add_task(printable(title), total=total, status="")

        def advance(done: int, *, status: str = "", total: int | None = None) -> None:
            bars.update(task, completed=done, status=printable(status), total=total)

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
            text = f"{title}: {count}, {now - began:.0f} s {status}".rstrip()
            err.print(Text(printable(text)), soft_wrap=True)

    yield advance
    err.print(Text(printable(f"{title}: done in {time.monotonic() - began:.1f} s")), soft_wrap=True)
