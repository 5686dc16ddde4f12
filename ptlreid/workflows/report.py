"""`ptlreid report`: a page, a figure or a table on runs, from their folders and an evaluation with cached features."""

from __future__ import annotations

import os.path
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from ptlreid import datasets, distributed
from ptlreid.errors import CheckpointError, DataError, OptionError
from ptlreid.evaluation import evaluate, load_retrieval
from ptlreid.plugins import unknown_name
from ptlreid.progress import Progress
from ptlreid.records import Splits
from ptlreid.reports import render, tables
from ptlreid.reports.chain_page import make_chain_page, read_chain
from ptlreid.reports.elements import Plot
from ptlreid.reports.page import write_page
from ptlreid.reports.rank_lists import plot_rank_lists
from ptlreid.reports.retrieval_plots import plot_cameras, plot_cmc, plot_distances
from ptlreid.reports.run_page import describe_runs, make_run_page, show_rank_lists, tabulate_scores
from ptlreid.reports.run_summary import EvaluatedRun, RunSummary
from ptlreid.reports.training_plots import plot_cells, plot_training
from ptlreid.retrieval.thresholds import count_pairs
from ptlreid.runs import RunFolder, find_run
from ptlreid.settings.base import DataSettings
from ptlreid.settings.report import ReportSettings
from ptlreid.workflows.report_clusters import write_clusters_page
from ptlreid.workflows.report_thresholds import describe_thresholds, plot_thresholds

FIGURES = ("cmc", "ranklist", "cameras", "curves", "distances", "roc", "cells")
_TRAINING_FIGURES = ("curves", "cells")  # need no evaluation
_FIGURES_OF_MANY = ("cmc", "curves")


def report(
    names: Sequence[str],
    runs: Path,
    settings: ReportSettings,
    progress: Progress,
    *,
    out: Path | None = None,
    figure: str | None = None,
    table: Path | None = None,
) -> list[Path]:
    """The files written: a `figure` in `out` and a `table`, or else the page of the runs or of the chain.

    `names`: runs or one transfer chain, in the folder `runs` or by path.
    """
    _check_outputs(out, figure, table)
    chain = _find_chain(names, runs)
    if chain:
        _check_chain_options(chain, names, settings, figure, table)
        return [write_chain_report(chain, out=out)]
    folders = _find_runs(names, runs)
    if not figure and not table:
        return write_pages(folders, settings, progress, out=out)
    written = []
    if figure and out:
        write_figure(figure, folders, settings, out, progress)
        written.append(out)
    if table:
        write_table(folders, settings, table, progress)
        written.append(table)
    return written


def write_report(
    runs: Sequence[RunFolder],
    settings: ReportSettings,
    progress: Progress,
    *,
    out: Path | None = None,
    splits: Splits | None = None,
) -> Path:
    """As `write_pages`; returns the page of the run."""
    return write_pages(runs, settings, progress, out=out, splits=splits)[0]


def write_pages(
    runs: Sequence[RunFolder],
    settings: ReportSettings,
    progress: Progress,
    *,
    out: Path | None = None,
    splits: Splits | None = None,
) -> list[Path]:
    """Write the page of the first run, compared with the others; to `report.html` in its folder if `out` is None.

    If that run was trained on clusters, their page is written next to it, and also returned. `splits`: the dataset, if
    already loaded. If a run cannot be evaluated, the page says why; but a dataset named in `settings` must exist. All
    processes call this; the main one writes.
    """
    out = out or runs[0].path / "report.html"
    first, evaluation = _try_to_evaluate(runs[0], settings, progress, splits)
    summaries = [first, *(_try_to_evaluate(run, settings, progress, splits)[0] for run in runs[1:])]
    if not distributed.is_main():
        return [out]
    clusters, notes = write_clusters_page(runs[0], out, settings, progress, splits)
    url = quote(clusters[0].name) if clusters else ""
    with progress.task(f"report {first.name}", 3) as advance:
        rates = settings.false_accept_rates
        sections = describe_runs(summaries, evaluation, false_accept_rates=rates, clusters_url=url)
        thresholds, doubts = describe_thresholds(runs[0], settings, progress)
        sections += thresholds
        advance(1, status="rank lists")
        if evaluation:
            size, seed = settings.ranklist_size, settings.seed
            sections.append(show_rank_lists(evaluation, queries=settings.queries, ranklist_size=size, seed=seed))
        advance(2, status="page")
        page = make_run_page(summaries, evaluation, sections)
        write_page(replace(page, notes=[*page.notes, *notes, *doubts]), out)
        advance(3)
    return [out, *clusters]


def write_chain_report(folder: Path, *, out: Path | None = None) -> Path:
    """Write the page of the transfer chain in `folder`: its scores, and the runs of its stages next to each other."""
    out, folder = out or folder / "report.html", folder.resolve()
    chain = read_chain(folder / "chain.json")
    runs = [RunFolder(folder.parent / name) for name in dict.fromkeys(stage["run"] for stage in chain["stages"])]
    summaries, notes = [], []
    for run in runs:
        try:
            if run.config.is_file():
                summaries.append(RunSummary.read(run))
        except (CheckpointError, DataError, OptionError) as error:
            notes.append(f"No training curves for {run.path.name}. {error}")
    pages = {run.path.name: run.path / "report.html" for run in runs}
    links = {name: quote(os.path.relpath(page, out.parent)) for name, page in pages.items() if page.is_file()}
    write_page(make_chain_page(folder.name, chain, summaries, links=links, notes=notes), out)
    return out


def write_figure(kind: str, runs: Sequence[RunFolder], settings: ReportSettings, out: Path, progress: Progress) -> None:
    """Write one of `FIGURES` to a PNG, SVG or PDF file; cmc and curves may show several runs."""
    _check_figure(kind, runs, settings)
    render.get_format(out)  # fail before the work, not after
    if kind in _TRAINING_FIGURES:
        plots = _plot_history(kind, runs)
    elif kind == "roc":
        plots = plot_thresholds(runs[0], settings)
    elif kind == "cmc":
        summaries = [_evaluate(run, settings, progress)[0] for run in runs]
        plots = [plot_cmc({summary.name: summary.scores.cmc for summary in summaries if summary.scores})]
    else:
        plots = _plot_evaluation(kind, runs[0], settings, progress)
    render.save_figure(plots, out)


def write_table(runs: Sequence[RunFolder], settings: ReportSettings, out: Path, progress: Progress) -> None:
    """Write the scores of the runs, a row each, to a Markdown, LaTeX or CSV file."""
    tables.get_format(out)  # fail before the work, not after
    tables.write_table(tabulate_scores([_evaluate(run, settings, progress)[0] for run in runs]), out)


def _plot_history(kind: str, runs: Sequence[RunFolder]) -> list[Plot]:
    summaries = [RunSummary.read(run) for run in runs]
    if kind == "cells":
        plots, missing = plot_cells(summaries[0].history), "has no BConv-Cells: expected a PTL run. Choose another run."
    else:
        plots, missing = plot_training(summaries), "has no training steps. Train the run first."
    if not plots:
        raise DataError(f"{runs[0].path}: its history {missing}")
    return plots


def _plot_evaluation(kind: str, run: RunFolder, settings: ReportSettings, progress: Progress) -> list[Plot]:
    _, evaluation = _evaluate(run, settings, progress)
    if kind == "cameras":
        return plot_cameras(evaluation)
    if kind == "distances":
        rates = settings.false_accept_rates
        return [plot_distances(count_pairs(evaluation.pairs, rates), rates)]
    size, seed = settings.ranklist_size, settings.seed
    section = show_rank_lists(evaluation, queries=settings.queries, ranklist_size=size, seed=seed)
    return [plot_rank_lists([one for group in section.rank_lists.values() for one in group])]


def _try_to_evaluate(
    run: RunFolder, settings: ReportSettings, progress: Progress, splits: Splits | None
) -> tuple[RunSummary, EvaluatedRun | None]:
    """The summary of the run and its evaluation; if that is None, the summary says why."""
    try:
        return _evaluate(run, settings, progress, splits)
    except (CheckpointError, DataError, OptionError) as error:
        if settings.data:
            raise
        summary = RunSummary.read(run)
        if summary.unmeasured:  # which its page states
            return summary, None
        progress.note(f"{run.path.name} could not be evaluated: {error}")
        return replace(summary, evaluation_error=str(error)), None


def _evaluate(
    run: RunFolder, settings: ReportSettings, progress: Progress, splits: Splits | None = None
) -> tuple[RunSummary, EvaluatedRun]:
    """The summary of the run and its evaluation."""
    summary = RunSummary.read(run)
    splits = splits or datasets.load(settings.data or summary.evaluated_on, Path(settings.root))
    evaluation = settings.evaluation()
    retrieval = load_retrieval(run, splits, evaluation, progress)
    scores = evaluate(retrieval, evaluation)
    return replace(summary, evaluated_on=splits.name, scores=scores), EvaluatedRun(retrieval, scores, evaluation)


def _find_chain(names: Sequence[str], runs: Path) -> Path | None:
    """The folder of the transfer chain that the first name refers to; None if it refers to a run."""
    folders = (runs / names[0], Path(names[0]))
    return next((folder for folder in folders if (folder / "chain.json").is_file()), None)


def _find_runs(names: Sequence[str], runs: Path) -> list[RunFolder]:
    """The run folders, each once. Raises `OptionError` if two have the same name: a page needs distinct names."""
    folders = list({run.path.resolve(): run for run in (find_run(runs, name) for name in names)}.values())
    if len({run.path.name for run in folders}) < len(folders):
        raise OptionError(f"Two of {', '.join(names)} have the same name: expected distinct names. Rename one run.")
    return folders


def _check_outputs(out: Path | None, figure: str | None, table: Path | None) -> None:
    if figure and not out:
        raise OptionError(f"--figure {figure}: expected a file to write. Add --out FILE.png, .svg or .pdf.")
    if table and out and not figure:
        raise OptionError(f"--table {table} with --out {out}: expected one of them. Write page and table separately.")
    if out and not figure and out.suffix.lower() not in (".html", ".htm"):
        raise OptionError(f"--out {out}: expected a page that ends in .html. Add --figure to write a figure instead.")


def _check_chain_options(
    chain: Path, names: Sequence[str], settings: ReportSettings, figure: str | None, table: Path | None
) -> None:
    if len(names) > 1 or figure or table:
        raise OptionError(
            f"{chain} is a transfer chain: expected no other name, --figure or --table. Name its runs instead."
        )
    ignored = sorted(settings.model_fields_set - set(DataSettings.model_fields))
    if ignored:
        raise OptionError(f"{chain} is a transfer chain; its report needs no evaluation. Remove {', '.join(ignored)}.")


def _check_figure(kind: str, runs: Sequence[RunFolder], settings: ReportSettings) -> None:
    if kind not in FIGURES:
        raise unknown_name("figure", kind, FIGURES)
    ignored = sorted(settings.model_fields_set & {"data", "weights", "metric"})
    if kind in _TRAINING_FIGURES and ignored:
        raise OptionError(f"--figure {kind} shows training and needs no evaluation. Remove {', '.join(ignored)}.")
    if kind == "roc" and (evaluated := set(ignored) - {"weights"}):
        raise OptionError(
            f"--figure roc shows the thresholds in thresholds.json, expected no {', '.join(sorted(evaluated))}. Choose "
            "them in `ptlreid calibrate`."
        )
    if kind not in _FIGURES_OF_MANY and len(runs) > 1:
        raise OptionError(f"--figure {kind} with {len(runs)} runs: expected one. Name one run, or use cmc or curves.")
    if kind == "ranklist" and not settings.queries:
        raise OptionError("--figure ranklist with --queries 0: expected 1 query or more. Raise --queries.")
