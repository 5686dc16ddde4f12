"""Rendering of plots: inline SVG in the colours of the page, and figure files for papers, both byte-reproducible."""

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
from ptlreid.reports.elements import Plot, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Distinguishable with colour vision deficiency, and by dashes in black and white. templates/style.css has a lighter
# shade of each for the dark theme.
COLOURS = ("#256fca", "#c4501f", "#12805a", "#966300", "#c2418f", "#5f7d14", "#4a3aa7", "#c93636")
DASHES = ("-", "--", "-.", ":")
INK, LINE = "#1b1c1e", "#8a8c90"
FORMATS = ("png", "svg", "pdf")

_STYLE: dict[Any, Any] = {  # matplotlib types the keys as its own literals
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same text widths on every machine
    "font.size": 9,
    "figure.titlesize": 9,
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


def get_line_style(index: int) -> dict[str, str]:
    """Colour and dashes of line `index`, counted from 0."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)]}


def add_legend(axes: Axes, labels: Sequence[str]) -> None:
    """Label the lines of `axes`, if there are several: many short labels above the axes, others in a corner.

    Labels are shown literally; long ones are shortened in the middle.
    """
    if len(labels) < 2:
        return
    shown = [shorten(label, 40) for label in labels]
    # Matplotlib skips labels that begin with an underscore.
    shown = [f" {label}" if label.startswith("_") else label for label in shown]
    if len(shown) > 3 and max(map(len, shown)) <= 16:
        axes.legend(axes.lines, shown, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
    else:
        axes.legend(axes.lines, shown).set_in_layout(False)  # it may overlap the curves but takes no space from them


def use_whole_numbers(axes: Axes) -> None:
    """Put the ticks of the x axis at integers only, for epochs."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def render_svg(plot: Plot) -> str:
    """The plot as SVG for embedding in a page: text stays text, and all colours are the page's."""
    with _use_style({"svg.fonttype": "none"}):
        figure = _make_figure([plot])
        stream = BytesIO()
        figure.savefig(stream, format="svg", transparent=True, metadata=_NO_DATES["svg"])
    return _adapt_to_page(stream.getvalue().decode(), plot.name)


def get_format(path: Path) -> str:
    """The format of a figure file, from its suffix. Raises `OptionError` for one not in `FORMATS`."""
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise OptionError(f"--out {path}: expected a file name that ends in .png, .svg or .pdf. Rename the file.")
    return kind


def save_figure(plots: Sequence[Plot], path: Path) -> None:
    """Write the plots next to each other, on white, to a PNG, SVG or PDF file, by the suffix of `path`."""
    kind = get_format(path)
    with _use_style({}), atomic_write(path) as temporary:
        _make_figure(plots).savefig(temporary, format=kind, dpi=300, metadata=_NO_DATES[kind])


@contextmanager
def _use_style(more: dict[Any, Any]) -> Iterator[None]:
    """Use our matplotlib style within the block, whatever the user's matplotlibrc says."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE | more)
        # Names in scripts that the font lacks: browsers fall back to another font, figure files show boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _make_figure(plots: Sequence[Plot]) -> Figure:
    """A figure of the plots in two columns; with titles if there are several."""
    from matplotlib.figure import Figure

    columns = min(2, len(plots))
    rows = ceil(len(plots) / columns)
    width = max(plot.size[0] for plot in plots)
    height = max(plot.size[1] for plot in plots)
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    if len(plots) == 1:
        plots[0].draw(figure.add_subplot())
        return figure
    # One subfigure each: its title is above a legend that is above the axes, while an axes title would overlap it.
    for part, plot in zip(figure.subfigures(rows, columns, squeeze=False).flat, plots, strict=False):
        part.suptitle(plot.title)
        plot.draw(part.add_subplot())
    return figure


def _adapt_to_page(svg: str, name: str) -> str:
    """Matplotlib's SVG, smaller and adapted to a page: unique ids, no fixed size, colours as CSS variables."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', "", svg, count=1)
    svg = re.sub(r' transform="rotate\(-0 [\d. ]+\)"', "", svg)
    svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag[0]), svg)  # coordinates, not text
    used = set(re.findall(r"#([\w.-]+)[\")]", svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{name}-", svg)
    svg = svg.replace("font-family: 'DejaVu Sans'", "font-family: inherit")
    for number, colour in enumerate(COLOURS):
        svg = svg.replace(f": {colour}", f": var(--c{number})")
    svg = svg.replace(f": {INK}", ": currentColor").replace(f": {LINE}", ": var(--line)")
    return re.sub(r"\s*\n\s*", "\n", svg)
