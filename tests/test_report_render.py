"""Plots as part of a page and as figure files."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from io import BytesIO

import matplotlib
import numpy as np
import pytest
from PIL import Image

from ptlreid.errors import OptionError
from ptlreid.reports import render
from ptlreid.reports.heat_map import plot_heat_map
from ptlreid.reports.retrieval_plots import plot_cmc
from ptlreid.reports.training_plots import plot_cells

CURVES = {"one": np.linspace(0.5, 1, 50), "two": np.linspace(0.2, 0.9, 50)}


def test_an_inline_plot_is_svg_with_its_text_as_text():
    svg = render.render_svg(plot_cmc(CURVES))
    root = ET.fromstring(svg)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"rank", "one", "two", "50"} <= set(texts)
    assert set(root.attrib) == {"viewBox", "version"}
    assert len(svg) < 20_000


def test_an_inline_plot_has_the_colours_of_the_page_and_no_background():
    svg = render.render_svg(plot_cmc(CURVES))
    assert "var(--c0)" in svg
    assert "var(--c1)" in svg
    assert "currentColor" in svg
    assert not re.search(r"#[0-9a-f]{6}\b", svg)


def test_ids_are_unique_to_a_plot():
    from dataclasses import replace

    first, second = (render.render_svg(replace(plot_cmc(CURVES), name=name)) for name in ("first", "second"))
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (first, second)]
    assert ids[0]
    assert ids[0].isdisjoint(ids[1])
    for svg, known in zip((first, second), ids, strict=True):
        assert set(re.findall(r"#([\w-]+)[\")]", svg)) == known


def test_small_numbers_on_an_axis_are_not_cut():
    plot = plot_cmc({"run": np.array([0.99991, 0.99992, 0.99993])})
    texts = re.findall(r">([\d.]+)</text>", render.render_svg(plot))
    assert any(len(text.partition(".")[2]) >= 3 for text in texts)


@pytest.mark.parametrize("kind", render.FORMATS)
def test_a_file_is_the_same_every_time(tmp_path, kind):
    for name in ("first", "second"):
        render.save_figure([plot_cmc(CURVES)], tmp_path / f"{name}.{kind}")
    assert (tmp_path / f"first.{kind}").read_bytes() == (tmp_path / f"second.{kind}").read_bytes()


def test_a_plot_neither_depends_on_the_matplotlibrc_nor_changes_it(tmp_path):
    expected = render.render_svg(plot_cmc(CURVES))
    with matplotlib.rc_context({"font.size": 30, "axes.labelpad": 40, "axes.spines.left": False}):
        assert render.render_svg(plot_cmc(CURVES)) == expected
        assert matplotlib.rcParams["font.size"] == 30


def test_several_plots_share_a_file(tmp_path):
    render.save_figure([plot_cmc(CURVES)], tmp_path / "one.png")
    render.save_figure([plot_cmc(CURVES)] * 3, tmp_path / "three.png")
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "three.png") as three:
        assert (three.width, three.height) == (2 * one.width, 2 * one.height)


def test_no_title_lies_on_a_legend():
    plots = plot_cells([{"kind": "epoch", "epoch": 1, "cells": {f"cells.{n}": {"input": 0.5} for n in range(5)}}])
    figure = render._make_figure([*plots, *plots])
    figure.savefig(BytesIO(), format="svg")  # lays it out
    for part in figure.subfigs:
        legend = part.axes[0].get_legend()
        assert not part._suptitle.get_window_extent().overlaps(legend.get_window_extent())


def test_another_suffix_is_an_error(tmp_path):
    with pytest.raises(OptionError, match=r"--out .*cmc\.gif: expected a file name that ends in \.png, \.svg or \.pdf"):
        render.save_figure([plot_cmc(CURVES)], tmp_path / "cmc.gif")


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "_hidden", "$x^{$", "名前", "a&b\"c'"])
def test_any_run_name_can_be_drawn(name):
    svg = render.render_svg(plot_cmc({name: CURVES["one"], "other": CURVES["two"]}))
    texts = [element.text for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert name in [text.strip() for text in texts]
    assert "<script" not in svg


def test_the_cmc_states_its_values():
    plot = plot_cmc({"run": np.array([0.5, 0.625, 0.75, 0.75, 1.0])})
    assert plot.table.columns == ("run", "rank 1", "rank 2", "rank 3", "rank 5")
    assert plot.table.rows == [["run", "50.0", "62.5", "75.0", "100.0"]]
    assert "run: 50.0% at rank 1, 100.0% at rank 5" in plot.alt


def test_a_cmc_of_one_rank_can_be_drawn():
    assert "<svg" in render.render_svg(plot_cmc({"run": np.array([0.5])}))


def test_a_heat_map_colours_higher_cells_more_and_leaves_empty_ones():
    from matplotlib.figure import Figure

    values = np.array([[0.1, 0.9], [np.nan, 0.5]])
    plot = plot_heat_map("map", "mAP", values, rows=["1", "2"], columns=["1", "3"], axis_names=("query", "gallery"))
    axes = Figure().add_subplot()
    plot.draw(axes)
    strengths = [patch.get_alpha() for patch in axes.patches]
    assert len(strengths) == 3
    assert strengths[0] < strengths[2] < strengths[1]
    assert plot.table.rows == [["1", "10.0", "90.0"], ["2", "–", "50.0"]]
    assert "Highest: 90.0% (query 1, gallery 3). Lowest: 10.0% (query 1, gallery 1)." in plot.alt
