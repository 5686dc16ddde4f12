"""The elements of a report: plots with their text and numbers, tables, and sections."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ptlreid.reports.rank_lists import QueryResult


@dataclass(frozen=True)
class Table:
    """Rows of text cells, each as long as `columns`. `links`: a URL for a row, by the text of its first cell."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    links: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wrong = [row for row in self.rows if len(row) != len(self.columns)]
        if wrong:
            raise ValueError(f"{len(self.columns)} columns, but a row of {len(wrong[0])} cells: {wrong[0]}")

    @property
    def numeric(self) -> list[bool]:
        """For each column, whether all its cells are numbers, empty or –."""
        return [all(_NUMBER.fullmatch(row[column]) for row in self.rows) for column in range(len(self.columns))]


@dataclass(frozen=True)
class Plot:
    """A plot in one set of axes. `alt` describes it in words, `table` has its numbers.

    `name`: lower-case letters and hyphens, unique on a page. `draw` fills empty axes. `size`: width and height in
    inches. `note`: a line below the plot that explains it.
    """

    name: str
    title: str
    alt: str
    table: Table
    draw: Callable[[Axes], None]
    size: tuple[float, float] = (4.3, 2.7)
    note: str = ""


Frame = Literal["", "query", "match", "mismatch"]


@dataclass(frozen=True)
class ShownImage:
    """An image in a row of crops. `lines`: the text below it; `alt` describes it. `marked`: in a dashed frame.

    `frame`: that of a rank list: of the query, of a match or of a mismatch. `overlay`: the data URI of an image that is
    stretched over it, "" for none.
    """

    path: Path
    lines: Sequence[str]
    alt: str
    marked: bool = False
    frame: Frame = ""
    overlay: str = ""


@dataclass(frozen=True)
class CropRow:
    """Images under the heading `title`, which `description` explains. `table` has the values of the images.

    `pairs`: the first belongs to the second, and so on.
    """

    title: str
    description: str
    images: Sequence[ShownImage]
    table: Table
    pairs: bool = False


@dataclass(frozen=True)
class Section:
    """A part of a page. `name`: its anchor. `texts`: paragraphs. `tables` are always visible; `folded`: by title.

    `rank_lists`: by the heading of each group.
    """

    name: str
    title: str
    texts: Sequence[str] = ()
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()
    folded: Mapping[str, Table] = field(default_factory=dict)
    rank_lists: Mapping[str, Sequence[QueryResult]] = field(default_factory=dict)
    crop_rows: Sequence[CropRow] = ()


_NUMBER = re.compile(r"[+-]?[\d.,]+(e[+-]\d+)?|–|")


def format_percent(share: float) -> str:
    """A share between 0 and 1 in percent with one decimal: 0.527 gives `52.7`."""
    return f"{100 * share:.1f}"


def format_points(difference: float) -> str:
    """A difference of two shares in percentage points, with its sign: 0.042 gives `+4.2`."""
    return f"{'+' if difference > 0 else ''}{format_percent(difference)}"


def format_number(value: float) -> str:
    """At most four significant digits: 0.01 gives `0.01`, 4.43149 gives `4.431`."""
    return f"{value:.4g}"


def name_cameras(cameras: Sequence[tuple[str, int]]) -> list[str]:
    """A name for each camera, a dataset with a number: the number, and of which dataset if there are several."""
    several = len({data for data, _ in cameras}) > 1
    return [f"{number} of {data}" if several else str(number) for data, number in cameras]


def shorten(text: str, length: int) -> str:
    """The text, cut in the middle where it has more than `length` characters."""
    half = (length - 1) // 2
    return text if len(text) <= length else f"{text[:half]}…{text[-half:]}"
