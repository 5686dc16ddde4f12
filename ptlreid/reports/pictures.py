"""What a report is made of: pictures with their words and numbers, tables, and the sections that hold them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ptlreid.reports.ranklists import Shown


@dataclass(frozen=True)
class Table:
    """Cells of text, a row each, as long as `columns`. `links`: where the first cell of a row leads, by its text."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    links: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wrong = [row for row in self.rows if len(row) != len(self.columns)]
        if wrong:
            raise ValueError(f"{len(self.columns)} columns, but a row of {len(wrong[0])} cells: {wrong[0]}")

    @property
    def numeric(self) -> list[bool]:
        """For each column whether it holds numbers only, or nothing in their place."""
        return [all(_NUMBER.fullmatch(row[column]) for row in self.rows) for column in range(len(self.columns))]


@dataclass(frozen=True)
class Picture:
    """A drawing in one pair of axes. `alt` says in words what it shows, `table` holds its numbers.

    `name`: short, of lower-case letters and hyphens, different for every picture of a page. `draw` fills empty axes.
    `size`: width and height in inches. `note`: what a reader must know to understand it.
    """

    name: str
    title: str
    alt: str
    table: Table
    draw: Callable[[Axes], None]
    size: tuple[float, float] = (4.3, 2.7)
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page. `name`: its anchor. `texts`: paragraphs; `facts`: a table that is always open.

    `more`: tables that open on demand, by title. `lists`: rank lists, by the heading of their group.
    """

    name: str
    title: str
    texts: Sequence[str] = ()
    facts: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    more: Mapping[str, Table] = field(default_factory=dict)
    lists: Mapping[str, Sequence[Shown]] = field(default_factory=dict)


_NUMBER = re.compile(r"[+-]?[\d.,]+(e[+-]\d+)?|–|")


def percent(share: float) -> str:
    """A share between 0 and 1 in percent with one decimal: 0.527 gives `52.7`."""
    return f"{100 * share:.1f}"


def short(text: str, length: int) -> str:
    """At most `length` characters of a text: what is too much is left out in the middle."""
    half = (length - 1) // 2
    return text if len(text) <= length else f"{text[:half]}…{text[-half:]}"


def number(value: float) -> str:
    """Four significant digits, and no more zeros than needed: 0.01 gives `0.01`, 4.43149 gives `4.431`."""
    return f"{value:.4g}"
