"""Tables for papers: Markdown, LaTeX or CSV, as the file's name ends."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path

from ptlreid.errors import OptionError
from ptlreid.files import atomic_write
from ptlreid.reports.pictures import Table

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def write_table(table: Table, path: Path) -> None:
    """Write `table` to `path`, which ends in .md, .tex or .csv."""
    text = _WRITERS[format_of(path)](table)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def format_of(path: Path) -> str:
    """The format of a table in a file called so; `OptionError` for one that we do not write."""
    kind = path.suffix.lower()
    if kind not in _WRITERS:
        raise OptionError(
            f"{path}: tables are written as {', '.join(_WRITERS)}. Give --table a name that ends in one of them."
        )
    return kind


def _markdown(table: Table) -> str:
    def line(cells: list[str]) -> str:
        return f"| {' | '.join(cells)} |\n"

    def safe(text: str) -> str:
        return re.sub(r"([\\|`*_<>\[\]])", r"\\\1", _one_line(text))

    rule = ["---:" if numeric else "---" for numeric in table.numeric]
    return line([*table.columns]) + line(rule) + "".join(line([safe(cell) for cell in row]) for row in table.rows)


def _latex(table: Table) -> str:
    def line(cells: list[str]) -> str:
        return f"{' & '.join(cells)} \\\\\n"

    def safe(text: str) -> str:
        return "".join(_LATEX.get(sign, sign) for sign in _one_line(text))

    head = line([safe(column) for column in table.columns])
    body = "".join(line([safe(cell) for cell in row]) for row in table.rows)
    layout = "".join("r" if numeric else "l" for numeric in table.numeric)
    return f"\\begin{{tabular}}{{{layout}}}\n\\hline\n{head}\\hline\n{body}\\hline\n\\end{{tabular}}\n"


def _csv(table: Table) -> str:
    stream = StringIO()
    csv.writer(stream, lineterminator="\n").writerows([table.columns, *table.rows])
    return stream.getvalue()


def _one_line(text: str) -> str:
    return " ".join(text.split())


_WRITERS: dict[str, Callable[[Table], str]] = {".md": _markdown, ".tex": _latex, ".csv": _csv}
