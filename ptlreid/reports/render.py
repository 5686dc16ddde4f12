"""How pictures are drawn: inline SVG in the page's colours, and files for papers; the same bytes every time."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptlreid.errors import OptionError
from ptlreid.files import atomic_write
from ptlreid.reports.pictures import Picture, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart by people who see few colours, too, and by their dashes where there are none. templates/style.css has a
# lighter step of each for a dark page.
COLOURS = ("#256fca", "#c4501f", "#12805a", "#966300", "#c2418f", "#5f7d14", "#4a3aa7", "#c93636")
DASHES = ("-", "--", "-.", ":")
INK, LINE = "#1b1c1e", "#8a8c90"
FORMATS = ("png", "svg", "pdf")

_STYLE: dict[Any, Any] = {  # matplotlib has a type of its own for the keys
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same widths on every machine
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "axes.formatter.useoffset": False,
    "text.parse_math": False,  # a run may be called "$"
    "path.simplify_threshold": 0.2,
    "svg.hashsalt": "ptlreid",
    "pdf.fonttype": 42,
}
_NO_DATES: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def line_style(index: int) -> dict[str, str]:
    """Colour and dashes of the line with this number, from 0."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)]}


def legend(axes: Axes, labels: Sequence[str]) -> None:
    """Name the lines of `axes` where there are several: above them many short names, else in a corner.

    Any text is shown as it is, as far as there is room.
    """
    if len(labels) < 2:
        return
    shown = [short(label, 40) for label in labels]
    # Matplotlib takes labels that begin with an underscore for its own.
    shown = [f" {label}" if label.startswith("_") else label for label in shown]
    if len(shown) > 3 and max(map(len, shown)) <= 16:
        axes.legend(axes.lines, shown, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
    else:
        axes.legend(axes.lines, shown).set_in_layout(False)  # it lies on the curves, and takes no room from them


def whole_numbers(axes: Axes) -> None:
    """Ticks at whole numbers only, as epochs are."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def inline(picture: Picture) -> str:
    """The picture as SVG for the page: text stays text, ink and colours are the page's own."""
    with _style({"svg.fonttype": "none"}):
        figure = _figure([picture])
        stream = BytesIO()
        figure.savefig(stream, format="svg", transparent=True, metadata=_NO_DATES["svg"])
    return _for_page(stream.getvalue().decode(), picture.name)


def format_of(path: Path) -> str:
    """The format of a picture in a file called so; `OptionError` for one that we do not write."""
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise OptionError(
            f"{path}: pictures are written as {', '.join(FORMATS)}. Give --out a name that ends in one of them."
        )
    return kind


def save(pictures: Sequence[Picture], path: Path) -> None:
    """The pictures side by side, on white, in a PNG, SVG or PDF file as `path` ends."""
    kind = format_of(path)
    with _style({}), atomic_write(path) as temporary:
        _figure(pictures).savefig(temporary, format=kind, dpi=300, metadata=_NO_DATES[kind])


@contextmanager
def _style(more: dict[Any, Any]) -> Iterator[None]:
    """Our settings of matplotlib and no one else's, until the block ends."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE | more)
        # Names in scripts that the font lacks: a browser has other fonts, a file shows boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _figure(pictures: Sequence[Picture]) -> Figure:
    from matplotlib.figure import Figure

    columns = min(2, len(pictures))
    rows = ceil(len(pictures) / columns)
    width = max(picture.size[0] for picture in pictures)
    height = max(picture.size[1] for picture in pictures)
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    for place, picture in enumerate(pictures, start=1):
        axes = figure.add_subplot(rows, columns, place)
        picture.draw(axes)
        if len(pictures) > 1:
            axes.set_title(picture.title)
    return figure


def _for_page(svg: str, name: str) -> str:
    """SVG as matplotlib writes it, made small and part of a page: its own ids, no sizes, colours by CSS variable."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', "", svg, count=1)
    svg = re.sub(r' transform="rotate\(-0 [\d. ]+\)"', "", svg)
    svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag[0]), svg)  # coordinates, not texts
    used = set(re.findall(r"#([\w.-]+)[\")]", svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{name}-", svg)
    svg = svg.replace("font-family: 'DejaVu Sans'", "font-family: inherit")
    for number, colour in enumerate(COLOURS):
        svg = svg.replace(f": {colour}", f": var(--c{number})")
    svg = svg.replace(f": {INK}", ": currentColor").replace(f": {LINE}", ": var(--line)")
    return re.sub(r"\s*\n\s*", "\n", svg)
