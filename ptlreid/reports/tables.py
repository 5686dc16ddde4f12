"""Table files for papers: Markdown, LaTeX or CSV, by the suffix of the file."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path

from ptlreid.errors import OptionError
from ptlreid.files import atomic_write
from ptlreid.reports.elements import Table

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def write_table(table: Table, path: Path) -> None:
    """Write `table` to `path`, which ends in .md, .tex or .csv."""
    text = _FORMATTERS[get_format(path)](table)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def get_format(path: Path) -> str:
    """The format of a table file: `.md`, `.tex` or `.csv`. Raises `OptionError` for any other suffix."""
    suffix = path.suffix.lower()
    if suffix not in _FORMATTERS:
        raise OptionError(f"--table {path}: expected a file name that ends in .md, .tex or .csv. Rename the file.")
    return suffix


def _format_markdown(table: Table) -> str:
    def join(cells: list[str]) -> str:
        return f"| {' | '.join(cells)} |\n"

    def escape(text: str) -> str:
        return re.sub(r"([\\|`*_<>\[\]])", r"\\\1", _unwrap(text))

    rule = ["---:" if numeric else "---" for numeric in table.numeric]
    return join([*table.columns]) + join(rule) + "".join(join([escape(cell) for cell in row]) for row in table.rows)


def _format_latex(table: Table) -> str:
    def join(cells: list[str]) -> str:
        return f"{' & '.join(cells)} \\\\\n"

    def escape(text: str) -> str:
        return "".join(_LATEX.get(sign, sign) for sign in _unwrap(text))

    head = join([escape(column) for column in table.columns])
    body = "".join(join([escape(cell) for cell in row]) for row in table.rows)
    layout = "".join("r" if numeric else "l" for numeric in table.numeric)
    return f"\\begin{{tabular}}{{{layout}}}\n\\hline\n{head}\\hline\n{body}\\hline\n\\end{{tabular}}\n"


def _format_csv(table: Table) -> str:
    stream = StringIO()
    csv.writer(stream, lineterminator="\n").writerows([table.columns, *table.rows])
    return stream.getvalue()


def _unwrap(text: str) -> str:
    return " ".join(text.split())


_FORMATTERS: dict[str, Callable[[Table], str]] = {".md": _format_markdown, ".tex": _format_latex, ".csv": _format_csv}
