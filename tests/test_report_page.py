"""The page is self-contained and shows every text as it is."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import write_image

from ptlreid.reports import page
from ptlreid.reports.elements import Section, Table, format_number, format_percent, shorten
from ptlreid.reports.page import Page
from ptlreid.reports.rank_lists import QueryResult, RankedImage
from ptlreid.reports.retrieval_plots import plot_cmc

HOSTILE = "<script>alert(1)<script> & \"'><img src=x onerror=alert(2)> {{ 7 * 7 }}"


class Outline(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def attributes(self, tag, name):
        return [found.get(name) for one, found in self.tags if one == tag]


def rank_list(folder: Path, name: str) -> QueryResult:
    paths = [folder / f"{number}{name}.jpg" for number in range(3)]
    for seed, path in enumerate(paths):
        write_image(path, seed)
    images = [RankedImage(rank, path, 1, 2, 0.5 * rank, rank == 2) for rank, path in enumerate(paths[1:], start=1)]
    return QueryResult(paths[0], 1, 1, 0.5, 2, [*images, RankedImage(9, paths[1], 1, 2, 3.0, True)])


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The outline of a page on which every text that a user may choose is hostile."""
    name = "<script>alert(1)<b> & \"'><img src=x onerror=alert(2)>"  # as a file may be called
    table = Table((HOSTILE, "number"), [[HOSTILE, "1"]], {HOSTILE: "a.html"})
    section = Section(
        "part",
        HOSTILE,
        [HOSTILE],
        tables=[table],
        plots=[plot_cmc({HOSTILE: np.array([0.5, 1.0]), "other": np.array([0.25, 0.5])})],
        folded={HOSTILE: table},
        rank_lists={HOSTILE: [rank_list(tmp_path_factory.mktemp("crops"), name)]},
    )
    return Outline(page.render_html(Page(HOSTILE, HOSTILE, [section], {HOSTILE: HOSTILE}, [HOSTILE])))


def test_no_text_of_a_user_becomes_a_tag(hostile):
    tags = {tag for tag, _ in hostile.tags}
    assert "script" not in tags
    assert "img" not in tags
    assert not [name for _, attributes in hostile.tags for name in attributes if name.startswith("on")]


def test_every_text_of_a_user_is_shown_as_it_is(hostile):
    # Title, h1, subtitle, note, tile and its value, link to the section, its heading and text, two tables of two cells
    # each, titles of the folded table and of the rank lists, row in the table of the CMC; its legend cuts the name.
    assert hostile.text.count(HOSTILE) == 1 + 5 + 1 + 2 + 4 + 2 + 1
    assert "<script>alert(1)<sc…" in hostile.text


def test_nothing_is_fetched(hostile):
    for name in ("src", "href", "xlink:href", "action", "data", "srcset"):
        for tag, attributes in hostile.tags:
            value = attributes.get(name)
            if value is not None and tag != "a":
                assert value.startswith(("data:", "#")), (tag, name, value)
    policy = dict(zip(hostile.attributes("meta", "http-equiv"), hostile.attributes("meta", "content"), strict=True))
    assert policy["Content-Security-Policy"].startswith("default-src 'none'")


def test_every_plot_has_a_description_and_its_values(hostile):
    plots = [found for _, found in hostile.tags if found.get("role") == "img"]
    assert len(plots) == 1 + 4
    assert all(found["aria-label"] for found in plots)
    assert sum(tag == "details" for tag, _ in hostile.tags) == 1 + 1 + 1  # the plot, the rank list, the folded table


def test_each_crop_is_on_the_page_once(hostile):
    uris = [uri for uri in hostile.attributes("image", "href") if uri]
    assert len(uris) == len(set(uris)) == 3
    shown = [use for use in hostile.attributes("use", "href") if use and use.startswith("#crop")]
    assert len(shown) == 4
    assert set(shown) == {f"#{name}" for name in hostile.attributes("image", "id")}


def test_a_page_is_the_same_every_time(tmp_path):
    parts = [Section("part", "Part", plots=[plot_cmc({"run": np.array([0.5, 1.0])})])]
    assert page.render_html(Page("run", "", parts)) == page.render_html(Page("run", "", parts))


def test_the_page_has_the_colours_of_the_plots():
    from ptlreid.reports import render

    css = (Path(page.__file__).parent / "templates" / "style.css").read_text()
    light, dark = css.split("prefers-color-scheme: dark", 1)
    assert re.findall(r"--c\d: (#\w+)", light) == list(render.COLOURS)
    assert len(re.findall(r"--c\d: (#\w+)", dark)) == len(render.COLOURS)


def test_a_table_knows_its_numeric_columns():
    table = Table(("a", "b", "c", "d"), [["run", "12.5", "–", "-3"], ["other", "1,000", "7", "1e-05"]])
    assert table.numeric == [False, True, True, True]


def test_a_row_of_another_length_is_an_error():
    with pytest.raises(ValueError, match="2 columns, but a row of 1 cells"):
        Table(("a", "b"), [["1"]])


def test_a_long_text_is_cut_in_the_middle():
    assert [shorten(text, 7) for text in ("1234567", "12345678", "")] == ["1234567", "123…678", ""]


def test_numbers_are_short():
    assert [format_percent(0.527), format_percent(1)] == ["52.7", "100.0"]
    assert [format_number(value) for value in (0.01, 4.43149, 5e-5, 1234567)] == ["0.01", "4.431", "5e-05", "1.235e+06"]
