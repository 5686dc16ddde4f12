"""A self-contained HTML page: no network access, no script, no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import ptlreid
from ptlreid.files import atomic_write
from ptlreid.reports import render
from ptlreid.reports.crops import embed_crops
from ptlreid.reports.elements import Section


@dataclass(frozen=True)
class Page:
    """A page. `tiles`: the headline scores in percent, by name; `notes`: warnings shown at the top.

    `incomplete`: an image that cannot be read is a grey box, and not an error.
    """

    title: str
    subtitle: str
    sections: Sequence[Section]
    tiles: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    incomplete: bool = False


def render_html(page: Page) -> str:
    """The page as HTML. All text is escaped; each image crop is embedded once, however often it is shown."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    results = [one for section in page.sections for group in section.rank_lists.values() for one in group]
    paths = [path for one in results for path in (one.path, *(image.path for image in one.images))]
    paths += [image.path for section in page.sections for row in section.crop_rows for image in row.images]
    return environment.get_template("page.html").render(
        page=page,
        crops=embed_crops(paths, incomplete=page.incomplete),
        render_svg=lambda plot: Markup(render.render_svg(plot)),  # text is escaped by matplotlib
        version=ptlreid.__version__,
    )


def write_page(page: Page, path: Path) -> None:
    """Write the page to `path`, atomically. Bytes of file names that are not UTF-8 are shown as `\\udcff`."""
    text = render_html(page)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
