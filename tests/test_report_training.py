"""Plots of training, from the lines of a history."""

from __future__ import annotations

import numpy as np
import pytest

from ptlreid.reports import render, training_plots
from ptlreid.reports.run_summary import RunSummary, Steps
from ptlreid.reports.training_plots import bin_curve


def step(epoch, number, loss, **more):
    return {"kind": "step", "epoch": epoch, "step": number, "loss": loss, "lr": 0.01, "images": 8, **more}


def evaluations(history, metrics):
    return RunSummary("run", "ptl", {}, {}, history, metrics, "market").evaluations


def evaluation(epoch, share):
    return {"kind": "epoch", "epoch": epoch, "mAP": share, "mINP": share / 2, "cmc": {"1": share + 0.1}}


def test_binning_keeps_every_extreme():
    x = np.arange(100_000, dtype=float)
    y = np.ones_like(x)
    y[[0, 31_415, 99_999]] = 50, 70, -20
    binned = bin_curve(x, y, bins=100)
    assert len(binned.x) == 100
    assert (binned.high.max(), binned.low.min(), binned.high[0]) == (70, -20, 50)
    # Bins of 1,000 steps: the one with the 70 has a mean of (999 + 70) / 1000.
    assert binned.mean.max() == pytest.approx(1.069)
    assert binned.x[0] == pytest.approx(499.5)


def test_a_short_curve_stays_as_it_is():
    binned = bin_curve(np.array([1.0, 2, 3]), np.array([5.0, 4, 6]))
    assert binned.mean.tolist() == binned.low.tolist() == binned.high.tolist() == [5, 4, 6]


def test_values_that_are_not_finite_are_left_out():
    binned = bin_curve(np.array([1.0, 2, 3]), np.array([5.0, np.nan, np.inf]))
    assert (binned.x.tolist(), binned.mean.tolist()) == ([1], [5])


def test_steps_lie_between_whole_epochs():
    steps = Steps.select([step(0, 0, 4), step(0, 1, 3), evaluation(1, 0.2), step(1, 0, 2)])
    assert steps.epochs.tolist() == [0.5, 1, 1.5]
    assert steps.loss.tolist() == [4, 3, 2]


def test_a_history_of_an_older_version_lacks_terms_and_speed():
    steps = Steps.select([step(0, 0, 4), step(0, 1, 3)])
    assert steps.terms == {}
    assert np.isnan(steps.images_per_second).all()


def test_a_loss_of_two_terms_is_drawn_with_them():
    lines = [step(0, number, 3, terms={"ce": 2, "triplet": 1}) for number in range(2)]
    assert list(Steps.select(lines).terms) == ["ce", "triplet"]
    plot = training_plots.plot_loss({"run": Steps.select(lines)})
    assert "loss 3, ce 2, triplet 1" in plot.alt
    single = training_plots.plot_loss({"run": Steps.select([step(0, 0, 3, terms={"ce": 3})])})
    assert "loss 3." in single.alt
    assert "ce" not in single.alt.partition(":")[2]


def test_the_table_of_a_loss_has_a_row_an_epoch():
    steps = Steps.select([step(0, 0, 4), step(0, 1, 2), step(1, 0, 1), step(1, 1, 1)])
    assert training_plots.plot_loss({"run": steps}).table.rows == [
        ["run", "1", "3", "2", "4"],
        ["run", "2", "1", "1", "1"],
    ]


def test_a_loss_explains_its_band_where_it_has_one():
    short, long = (Steps.select([step(0, number, 1) for number in range(count)]) for count in (2, 500))
    assert training_plots.plot_loss({"run": short}).note == ""
    assert "Band" in training_plots.plot_loss({"run": short, "other": long}).note


def test_a_learning_rate_that_falls_far_has_a_logarithmic_axis():
    from matplotlib.figure import Figure

    lines = [step(epoch, 0, 1, lr=rate) for epoch, rate in enumerate((0.01, 0.001, 0.0001))]
    for history, scale in ((lines, "log"), (lines[:2], "linear")):
        axes = Figure().add_subplot()
        training_plots.plot_learning_rate({"run": Steps.select(history)}).draw(axes)
        assert axes.get_yscale() == scale
        ticks = [label.get_text() for label in axes.get_yticklabels(which="both")]
        assert any(ticks)
        assert not any("$" in tick for tick in ticks)  # TeX would be shown as it is


def test_no_score_lies_on_the_edge_of_the_plot():
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    training_plots.plot_scores({"one": [evaluation(5, 0.21)], "two": [evaluation(5, 0.25)]}).draw(axes)
    assert axes.get_ylim() == pytest.approx((0, 27))


def test_final_scores_complete_a_history_that_lacks_them():
    history = [step(0, 0, 1), evaluation(2, 0.3)]
    metrics = {"epochs": 4, "mAP": 0.5, "mINP": 0.2, "cmc": {"1": 0.6}}
    found = evaluations(history, metrics)
    assert [(line["epoch"], line["mAP"]) for line in found] == [(2, 0.3), (4, 0.5)]
    assert len(evaluations([*history, evaluation(4, 0.5)], metrics)) == 2
    assert evaluations(history, None) == history[1:]
    assert evaluations(history, {"epochs": 4}) == history[1:]


def test_scores_over_epochs_are_in_percent():
    plot = training_plots.plot_scores({"run": [evaluation(1, 0.25), evaluation(2, 0.5)]})
    assert plot.table.rows == [["run", "1", "25.0", "35.0", "12.5"], ["run", "2", "50.0", "60.0", "25.0"]]
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    plot.draw(axes)
    assert [line.get_ydata().tolist() for line in axes.lines] == [[25, 50], [35, 60]]
    several = Figure().add_subplot()
    training_plots.plot_scores({"a": [evaluation(1, 0.25)], "b": [evaluation(1, 0.5)]}).draw(several)
    assert [line.get_ydata().tolist() for line in several.lines] == [[25], [50]]


def test_cells_have_a_plot_for_the_state_and_each_gate():
    def epoch(number, norm):
        cell = {"state_norm": norm, "input": 0.5, "forget": 0.25, "output": 0.75}
        return {"kind": "epoch", "epoch": number, "cells": {"cells.0": cell, "cells.1": cell}}

    plots = training_plots.plot_cells([epoch(1, 2.0), step(1, 0, 3), epoch(2, 4.0)])
    assert [plot.name for plot in plots] == ["cell-state-norm", "cell-input", "cell-forget", "cell-output"]
    assert plots[0].table.rows == [["1", "2", "2"], ["2", "4", "4"]]
    assert "cells.0 0.25" in plots[2].alt
    assert all("<svg" in render.render_svg(plot) for plot in plots)


def test_without_cells_there_are_no_plots():
    assert training_plots.plot_cells([step(0, 0, 1), evaluation(1, 0.2)]) == []


def test_a_missing_score_of_an_older_version_is_a_dash():
    lines = [{"kind": "epoch", "epoch": 1, "mAP": 0.25}, evaluation(2, 0.5)]
    plot = training_plots.plot_scores({"run": lines})
    assert plot.table.rows == [["run", "1", "25.0", "–", "–"], ["run", "2", "50.0", "60.0", "25.0"]]
    assert "<svg" in render.render_svg(plot)
    found = evaluations([], {"epochs": 4, "mAP": 0.5, "cmc": {"1": 0.6}})
    assert training_plots.plot_scores({"run": found}).table.rows == [["run", "4", "50.0", "60.0", "–"]]
