"""The page in a real browser: headless Chromium."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from test_report_page import rank_list

from ptlreid.reports import page
from ptlreid.reports.crops import embed_spotlight
from ptlreid.reports.elements import CropRow, Section, ShownImage, Table
from ptlreid.reports.heat_map import plot_heat_map
from ptlreid.reports.page import Page
from ptlreid.reports.retrieval_plots import plot_cmc
from ptlreid.reports.run_summary import Steps
from ptlreid.reports.training_plots import plot_cells, plot_loss

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Debian's chromium and chromium-driver (apt-get install)"
)
LONG = "a-name-without-any-end-" * 6


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A Chromium that records its console and its requests."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium, in the extra `test`")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    off = ("gpu", "quic", "background-networking", "component-update", "sync", "extensions")
    profile = f"user-data-dir={tmp_path_factory.mktemp('profile')}"
    for argument in ("headless=new", "no-sandbox", "no-first-run", profile, *(f"disable-{one}" for one in off)):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A page with one of everything, and names that are long."""
    folder = tmp_path_factory.mktemp("page")
    steps = Steps.select([{"kind": "step", "epoch": 0, "step": s, "loss": 1 / (s + 1), "lr": 0.1} for s in range(500)])
    cell = {"state_norm": 1.0, "input": 0.5, "forget": 0.5, "output": 0.5}
    cameras = [str(camera) for camera in range(15)]
    wide = plot_heat_map("cameras", "mAP", np.eye(15), rows=cameras, columns=cameras, axis_names=("query", "gallery"))
    plots = [plot_cmc({LONG: np.array([0.5, 1.0]), "b": np.array([0.1, 0.2])}), plot_loss({"run": steps}), wide]
    plots += plot_cells([{"kind": "epoch", "epoch": 1, "cells": {"cells.0": cell}}])
    table = Table(tuple(f"column {n}" for n in range(12)), [[LONG, *map(str, range(11))]])
    ranked = rank_list(folder, LONG[:100])
    shown = [ShownImage(ranked.path, [LONG, LONG], LONG, marked) for marked in (False, True)]
    shown += [ShownImage(ranked.path, [LONG], LONG, frame=frame) for frame in ("query", "match", "mismatch")]
    row = CropRow(LONG, LONG, shown, table)
    frames = ("query", "match") * 3
    pairs = [ShownImage(ranked.path, [LONG], LONG, frame=one, overlay=embed_spotlight(np.eye(4))) for one in frames]
    section = Section(
        "all",
        "Everything",
        [LONG],
        tables=[table],
        plots=plots,
        folded={"More": table},
        rank_lists={"Worst queries": [ranked]},
        crop_rows=[row, CropRow(LONG, LONG, pairs, table, pairs=True)],
    )
    page.write_page(Page(LONG, LONG, [section], {"mAP": "50.0", "CMC-1": "60.0"}, [LONG]), folder / "page.html")
    return folder / "page.html"


def show(browser, file, *, width=1200, dark=False):
    """Open the page in a window of this width, with everything unfolded."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get(file.as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")


def test_it_opens_without_console_messages(browser, file):
    browser.get_log("browser")
    show(browser, file)
    assert browser.get_log("browser") == []
    assert browser.title == f"{LONG} · ptlreid"


def test_no_request_leaves_the_file(browser, file):
    browser.get_log("performance")
    show(browser, file)
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    assert file.as_uri() in asked
    assert [url for url in asked if url != file.as_uri() and not url.startswith("data:")] == []


def test_every_plot_has_a_size_and_every_crop_is_an_image(browser, file):
    show(browser, file)
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('[role=img], .plot svg, .crops use')]"
        ".map(one => one.getBoundingClientRect()).map(box => Math.min(box.width, box.height))"
    )
    assert len(sizes) == (7 + 4 + 5 + 6) + 7 + (4 + 5 + 6)
    assert min(sizes) > 30
    decoded = browser.execute_async_script(
        "const done = arguments[0], image = new Image();"
        "image.src = document.querySelector('defs image').getAttribute('href');"
        "image.decode().then(() => done(image.naturalWidth), () => done(0))"
    )
    assert decoded == 32


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 768, 1200])
def test_nothing_is_wider_than_the_window(browser, file, width, dark):
    show(browser, file, width=width, dark=dark)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [360, 768, 1200])
def test_both_images_of_a_pair_are_in_one_line_and_an_overlay_covers_its_crop(browser, file, width):
    show(browser, file, width=width)
    tops = browser.execute_script(
        "return [...document.querySelectorAll('.by-two .crops')]"
        ".map(pair => [...pair.children].map(one => one.getBoundingClientRect().top))"
    )
    assert [first == second for first, second in tops] == [True] * 3
    boxes = browser.execute_script(
        "const box = one => (({x, y, width, height}) => [x, y, width, height])(one.getBoundingClientRect());"
        "return [...document.querySelectorAll('.by-two svg')]"
        ".map(svg => [...svg.querySelectorAll('use, image')].map(box))"
    )
    for below, overlay in boxes:
        np.testing.assert_allclose(below, overlay, atol=0.5)


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_the_page(browser, file, dark):
    show(browser, file, dark=dark)
    page_colour, *colours = browser.execute_script(
        "const colour = (one, key) => getComputedStyle(one)[key];"
        "return [colour(document.body, 'backgroundColor'), colour(document.querySelector('.plot text'), 'fill'),"
        "...['body', '.soft', 'summary', 'a', '.match b', '.mismatch b', 'th', 'td']"
        ".map(name => colour(document.querySelector(name), 'color'))]"
    )
    assert (luminance(page_colour) < 0.1) == dark
    for colour in colours:
        light, low = sorted((luminance(colour), luminance(page_colour)), reverse=True)
        assert (light + 0.05) / (low + 0.05) >= 4.5  # WCAG 2.2, level AA


def luminance(colour):
    """The relative luminance of `rgb(r, g, b)`, as WCAG 2.2 defines it."""
    parts = np.array([float(part) for part in colour.partition("(")[2].rstrip(")").split(",")[:3]]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
