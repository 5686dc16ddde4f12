"""Pictures and tables alone, for papers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ptlreid.errors import DataError, OptionError
from ptlreid.plugins import unknown_name
from ptlreid.progress import Progress
from ptlreid.reports import cells, cmc, distances, ranklists, render, sections, tables
from ptlreid.reports.pictures import Picture, Section
from ptlreid.reports.run_summary import Account, Retrieval
from ptlreid.reports.thresholds import count_pairs
from ptlreid.runs import RunFolder
from ptlreid.settings.report import ReportSettings
from ptlreid.workflows.accounts import required

FIGURES = ("cmc", "ranklist", "cameras", "curves", "distances", "cells")


def write_figure(kind: str, runs: Sequence[RunFolder], config: ReportSettings, out: Path, progress: Progress) -> None:
    """One of `FIGURES` in a PNG, SVG or PDF file; cmc and curves may be of several runs."""
    if kind not in FIGURES:
        raise unknown_name("figure", kind, FIGURES)
    render.format_of(out)  # said before the work, not after
    render.save(figure(kind, runs, config, progress), out)


def write_table(runs: Sequence[RunFolder], config: ReportSettings, out: Path, progress: Progress) -> None:
    """The scores of the runs, a row each, as Markdown, LaTeX or CSV."""
    tables.format_of(out)
    tables.write_table(sections.scores([required(run, config, progress)[0] for run in runs]), out)


def figure(kind: str, runs: Sequence[RunFolder], config: ReportSettings, progress: Progress) -> list[Picture]:
    """The pictures of the figure `kind`, of `FIGURES`, for the runs; `DataError` where there is nothing to draw."""
    ignored = sorted(config.model_fields_set & {"data", "weights", "metric"}) if kind in ("curves", "cells") else []
    if ignored:
        raise OptionError(
            f"The figure {kind} is of the training and evaluates nothing. Leave out {', '.join(ignored)}."
        )
    if kind == "curves":
        pictures = sections.training([Account.read(run) for run in runs])
        return _some(pictures, f"{runs[0].path}: its history has no steps. Train the run first.")
    if kind == "cmc":
        accounts = [required(run, config, progress)[0] for run in runs]
        return [cmc.cmc({account.name: account.scores.cmc for account in accounts if account.scores})]
    if len(runs) > 1:
        raise OptionError(
            f"The figure {kind} is of one run, {len(runs)} were given. Give one, or choose cmc or curves."
        )
    if kind == "cells":
        pictures = cells.cells(Account.read(runs[0]).history)
        return _some(pictures, f"{runs[0].path}: its history tells of no BConv-Cells. Choose a PTL run.")
    if kind == "ranklist" and not config.queries:
        raise OptionError("--queries 0 leaves no rank list to draw. Ask for one query or more.")
    found = required(runs[0], config, progress)[1]
    if kind == "cameras":
        return sections.cameras(found, metric=config.metric)
    if kind == "distances":
        counts = count_pairs(found.query, found.gallery, found.protocol, metric=config.metric)
        return [distances.distances(counts, config.false_accept_rates)]
    lists = [one for group in rank_lists(found, config).lists.values() for one in group]
    return [ranklists.ranklists(lists)]


def rank_lists(found: Retrieval, config: ReportSettings) -> Section:
    """The rank lists of a report: the worst queries, then some drawn by lot."""
    return sections.lists(
        found, count=config.queries, places=config.ranklist_size, seed=config.seed, metric=config.metric
    )


def _some(pictures: list[Picture], otherwise: str) -> list[Picture]:
    if not pictures:
        raise DataError(otherwise)
    return pictures
