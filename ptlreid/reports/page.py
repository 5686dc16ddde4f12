"""One HTML page that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import ptlreid
from ptlreid.files import atomic_write
from ptlreid.reports import render
from ptlreid.reports.crops import embed
from ptlreid.reports.pictures import Section


@dataclass(frozen=True)
class Page:
    """`tiles`: the numbers on top, in percent, by name; `notes`: what a reader must know before all else."""

    title: str
    subtitle: str
    sections: Sequence[Section]
    tiles: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def render_html(page: Page) -> str:
    """The page as HTML. All text is escaped; each image crop is in it once, however often it is shown."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    lists = [one for section in page.sections for group in section.lists.values() for one in group]
    crops = embed(path for one in lists for path in (one.path, *(place.path for place in one.places)))
    return environment.get_template("page.html").render(
        page=page,
        crops=crops,
        drawn=lambda picture: Markup(render.inline(picture)),  # matplotlib has escaped the texts in it
        version=ptlreid.__version__,
    )


def write(page: Page, path: Path) -> None:
    """Write the page to `path`, aside and renamed."""
    text = render_html(page)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
