"""The page of one run or of several compared: its sections, from run summaries and an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ptlreid.environment import describe_environment
from ptlreid.errors import DataError
from ptlreid.reports.adaptation import describe_adaptation, note_doubts
from ptlreid.reports.elements import Section, Table, format_number, format_percent
from ptlreid.reports.page import Page
from ptlreid.reports.rank_lists import find_worst, rank_queries, sample_queries
from ptlreid.reports.retrieval_plots import plot_cameras, plot_cmc, plot_distances, tabulate_thresholds
from ptlreid.reports.run_summary import SCORES, EvaluatedRun, RunSummary, read_scores
from ptlreid.reports.training_plots import plot_cells, plot_training
from ptlreid.retrieval.thresholds import count_pairs

_VERIFICATION = (
    "Verification: a query and a gallery image are accepted as the same identity if their distance is below a "
    "threshold. FAR: share of different-identity pairs accepted. TAR: share of same-identity pairs accepted. EER: "
    "equal error rate, where FAR = 100% − TAR. All pairs that the protocol allows are counted."
)
_LAST_SCORES = "scores of the last weights at the end of training"


def make_run_page(runs: Sequence[RunSummary], evaluated: EvaluatedRun | None, sections: Sequence[Section]) -> Page:
    """The page of `runs`, of which the first may be `evaluated`; empty sections are left out."""
    first = runs[0]
    if len(runs) > 1:
        subtitle = f"Comparison of {len(runs)} runs; all other sections are about {first.name}"
    else:
        last = _LAST_SCORES if first.headline_scores else "not evaluated"
        state = f"evaluated on {first.evaluated_on}" if evaluated else last
        subtitle = f"{first.method} · {first.settings['backbone']} · {state}"
    return Page(
        " · ".join(run.name for run in runs),
        subtitle,
        [section for section in sections if section.tables or section.plots or section.rank_lists],
        tiles=_format_scores(first.headline_scores) if len(runs) == 1 else {},
        notes=[
            *(_explain_error(run) for run in runs if run.evaluation_error),
            *(note_doubts(first) if first.adapted_from else []),
        ],
    )


def describe_runs(
    runs: Sequence[RunSummary],
    evaluated: EvaluatedRun | None,
    *,
    false_accept_rates: Sequence[float],
    clusters_url: str = "",
) -> list[Section]:
    """All sections of a page but the rank lists: a comparison if there are several runs, then the first run.

    `clusters_url`: of the page of the first run's clusters, if there is one.
    """
    first = runs[0]
    summary = _describe_run(first, evaluated)
    sections = [_compare_runs(runs), replace(summary, title=first.name)] if len(runs) > 1 else [summary]
    if first.adapted_from:
        sections += describe_adaptation(first, clusters_url=clusters_url)
    if evaluated:
        sections.append(_describe_retrieval(first.name, evaluated, false_accept_rates))
    if len(runs) == 1:
        sections.append(Section("training", "Training", plots=plot_training([first])))
    text = "The BConv-Cells at the end of each epoch. A gate is closed at 0 and open at 1."
    return [*sections, Section("cells", "Latent state and gates", [text], plots=plot_cells(first.history))]


def show_rank_lists(run: EvaluatedRun, *, queries: int, ranklist_size: int, seed: int) -> Section:
    """Rank lists of the worst queries, and of the same number of random ones."""
    worst = find_worst(run.scores, queries)
    random = sample_queries(run.scores, queries, seed=seed, without=worst)
    groups = {
        title: rank_queries(run, chosen, size=ranklist_size)
        for title, chosen in (("Worst queries", worst), ("Random queries", random))
        if len(chosen)
    }
    text = (
        f"The {ranklist_size} nearest gallery images of each query, with their distances. Solid frame and ✓: true "
        "match. Dashed frame and ✗: false match. If the first true match ranks lower, it is shown at the end."
    )
    return Section("rank-lists", "Rank lists", [text], rank_lists=groups)


def tabulate_scores(runs: Sequence[RunSummary]) -> Table:
    """One row per run: its description, and its scores in percent."""
    rows = []
    for run in runs:
        scores = _format_scores(run.headline_scores)
        epochs = str((run.metrics or {}).get("epochs", "–"))
        description = [run.name, run.evaluated_on, str(run.settings["backbone"]), run.method, epochs]
        rows.append([*description, *(scores.get(name, "–") for name in SCORES)])
    return Table(("run", "dataset", "backbone", "method", "epochs", *(f"{name} (%)" for name in SCORES)), rows)


def _describe_run(run: RunSummary, evaluated: EvaluatedRun | None) -> Section:
    """Network, training set, training and evaluation of a run; all settings in a folded table."""
    settings, data = run.settings, run.data
    rows = [["Network", f"{settings['backbone']}, method {run.method}, init {settings['init']}"]]
    if {"name", "images", "identities"} <= set(data):
        identities = f"{data['identities']:,}" if data["identities"] else "without"
        rows.append(["Training set", f"{data['name']}: {data['images']:,} images, {identities} identities"])
    rows.append(["Training", _describe_training(run)])
    if run.metrics:
        rows.append(["Trained with", describe_environment(run.metrics)])
    if evaluated:
        rows += _describe_evaluation(run.evaluated_on, evaluated)
    every = Table(("setting", "value"), [[key, str(value)] for key, value in settings.items()])
    tables = [Table(("", ""), rows), *_tabulate_averaged(run.metrics or {})]
    return Section("summary", "Summary", tables=tables, folded={"All settings": every})


def _tabulate_averaged(metrics: Mapping[str, Any]) -> list[Table]:
    """The scores of the last and of the averaged weights at the end of training; no table without the latter."""
    if "averaged" not in metrics:
        return []
    both = {"last": _format_scores(metrics), "averaged (EMA)": _format_scores(metrics["averaged"])}
    rows = [[name, *(scores.get(score, "–") for score in SCORES)] for name, scores in both.items()]
    return [Table(("weights at the end of training", *(f"{name} (%)" for name in SCORES)), rows)]


def _describe_training(run: RunSummary) -> str:
    """Progress and speed of training, as far as the history has them."""
    steps = run.steps
    if not len(steps):
        if not run.metrics:
            return "not started"
        adapted = f"none: these are the weights of {run.adapted_from}, with statistics of the cameras of the site"
        return adapted if run.adapted_from else "none: these are the initial weights"
    total = run.settings["epochs"]
    # The number of steps in an epoch is known once one is complete.
    epochs = f"{total} epoch{'s' if total > 1 else ''}"
    text = f"in epoch 1 of {total}" if run.in_first_epoch else f"{format_number(steps.epochs[-1])} of {epochs}"
    text += f", {len(steps):,} step{'s' if len(steps) > 1 else ''}"
    speed, wait = (values[np.isfinite(values)] for values in (steps.images_per_second, steps.wait))
    text += f", {format_number(float(np.median(speed)))} images/s" if len(speed) else ""
    return text + (f", {format_percent(float(wait.mean()))}% of the time waiting for images" if len(wait) else "")


def _describe_evaluation(dataset: str, run: EvaluatedRun) -> list[list[str]]:
    scores, settings = run.scores, run.settings
    junk = f" ({scores.num_junk:,} junk)" if scores.num_junk else ""
    setup = f"protocol {scores.protocol}, metric {settings.metric}, {settings.weights} weights"
    return [
        ["Evaluation", f"{dataset}, {setup}"],
        ["Queries", f"{scores.num_queries:,} ({scores.num_valid:,} with a true match)"],
        ["Gallery", f"{scores.num_gallery:,} images{junk}"],
        ["Features", f"{run.retrieval.query.width:,}-dimensional"],
    ]


def _compare_runs(runs: Sequence[RunSummary]) -> Section:
    """Several runs next to each other: scores, CMC, losses, and scores over epochs."""
    curves = {run.name: run.scores.cmc for run in runs if run.scores}
    plots = [*([plot_cmc(curves)] if curves else []), *plot_training(runs)]
    return Section(
        "comparison",
        "Comparison",
        _explain_environments(runs),
        tables=[tabulate_scores(runs)],
        plots=[replace(plot, name=f"all-{plot.name}") for plot in plots],
    )


def _explain_environments(runs: Sequence[RunSummary]) -> list[str]:
    """What each of the finished runs was trained with, if that differs between them."""
    found = {run.name: describe_environment(run.metrics) for run in runs if run.metrics}
    if len(set(found.values())) < 2:
        return []
    return [f"{name} was trained with {text}." for name, text in found.items()]


def _describe_retrieval(name: str, run: EvaluatedRun, rates: Sequence[float]) -> Section:
    """CMC, distances with thresholds, and scores by camera."""
    cmc, cameras = plot_cmc({name: run.scores.cmc}), plot_cameras(run)
    try:
        counts = count_pairs(run.pairs, rates)
    except DataError as error:  # for example, all images are of one identity
        return Section("retrieval", "Retrieval", [f"No verification thresholds. {error}"], plots=[cmc, *cameras])
    plots = [cmc, plot_distances(counts, rates), *cameras]
    return Section("retrieval", "Retrieval", [_VERIFICATION], tables=[tabulate_thresholds(counts, rates)], plots=plots)


def _format_scores(scores: Mapping[str, Any] | None) -> dict[str, str]:
    """The scores in percent, by name; missing ones, as in files of older versions, are left out."""
    return {name: format_percent(share) for name, share in read_scores(scores or {}).items()}


def _explain_error(run: RunSummary) -> str:
    """Why the run could not be evaluated, and which scores are shown instead."""
    instead = f" Shown instead: {_LAST_SCORES}." if run.headline_scores else ""
    return f"{run.name} could not be evaluated. {run.evaluation_error}{instead}"
