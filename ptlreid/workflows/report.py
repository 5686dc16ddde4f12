"""`ptlreid report`: what runs left in their folders, with an evaluation from the cache, to a page, picture or table."""

from __future__ import annotations

import os.path
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from ptlreid import distributed
from ptlreid.errors import CheckpointError, DataError, OptionError
from ptlreid.progress import Progress
from ptlreid.records import Splits
from ptlreid.reports import chains, page, sections
from ptlreid.reports.page import Page
from ptlreid.reports.pictures import Section
from ptlreid.reports.run_summary import Account
from ptlreid.runs import RunFolder, find_run
from ptlreid.settings.base import DataSettings
from ptlreid.settings.report import ReportSettings
from ptlreid.workflows.accounts import evaluated
from ptlreid.workflows.figures import rank_lists, write_figure, write_table


def report(
    names: Sequence[str],
    runs: Path,
    config: ReportSettings,
    progress: Progress,
    *,
    out: Path | None = None,
    figure: str | None = None,
    table: Path | None = None,
) -> list[Path]:
    """The files written: the page of a chain or of runs below `runs`; or a `figure` in `out` and the `table` alone."""
    if figure and not out:
        raise OptionError(f"--figure {figure} was given without a file. Add --out FILE.png, .svg or .pdf.")
    if table and out and not figure:
        raise OptionError(f"--table {table} and --out {out}: one or the other. Give two commands for table and page.")
    if out and not figure and out.suffix.lower() not in (".html", ".htm"):
        raise OptionError(f"{out}: a page is written as .html. Give --out such a name, or add --figure for a picture.")
    chain = next((folder for folder in (runs / names[0], Path(names[0])) if _is_chain(folder)), None)
    if chain:
        if len(names) > 1 or figure or table:
            raise OptionError(f"{chain} is a chain, which has a page of its own. Give it alone, or give its runs.")
        ignored = sorted(config.model_fields_set - set(DataSettings.model_fields))
        if ignored:
            raise OptionError(f"{chain} is a chain, whose page evaluates nothing. Leave out {', '.join(ignored)}.")
        return [write_chain_report(chain, out=out)]
    folders = list({run.path.resolve(): run for run in (find_run(runs, name) for name in names)}.values())
    if len({run.path.name for run in folders}) < len(folders):
        raise OptionError(f"Two of {', '.join(names)} have the same name, and could not be told apart. Rename one.")
    if not figure and not table:
        return [write_report(folders, config, progress, out=out)]
    if figure and out:
        write_figure(figure, folders, config, out, progress)
    if table:
        write_table(folders, config, table, progress)
    return [path for path in (out if figure else None, table) if path]


def write_report(
    runs: Sequence[RunFolder],
    config: ReportSettings,
    progress: Progress,
    *,
    out: Path | None = None,
    splits: Splits | None = None,
) -> Path:
    """The page of the first of `runs`, compared with the others; in its `report.html` unless there is an `out`.

    `splits`: the dataset, where it is at hand. A run that cannot be evaluated is told of on the page, but a dataset
    that `config` names is an error when it is not there. Called by every process, and the main one writes.
    """
    out = out or runs[0].path / "report.html"
    first, found = evaluated(runs[0], config, progress, splits)
    accounts = [first, *(evaluated(run, config, progress, splits)[0] for run in runs[1:])]
    if not distributed.is_main():
        return out
    with progress.task(f"report {first.name}", 3) as advance:
        summary = sections.summary(first, found)
        parts = [sections.comparison(accounts), replace(summary, title=first.name)] if len(accounts) > 1 else [summary]
        if found:
            parts.append(sections.retrieval(first, found, rates=config.false_accept_rates, metric=config.metric))
        advance(1, status="rank lists")
        if len(accounts) == 1:
            parts.append(Section("training", "Training", pictures=sections.training([first])))
        parts.append(sections.memory(first))
        parts += [rank_lists(found, config)] if found else []
        advance(2, status="page")
        title = " · ".join(account.name for account in accounts)
        if len(accounts) > 1:
            told = f"{len(accounts)} runs compared; what follows the comparison is of {first.name}"
        else:
            ended = "scores of the last weights, at the end of training" if first.summary else "not evaluated"
            where = f"evaluated on {first.evaluated_on}" if found else ended
            told = f"{first.method} · {first.settings['backbone']} · {where}"
        numbers = sections.tiles(first.summary) if len(accounts) == 1 else {}
        notes = [_note(account) for account in accounts if account.missing]
        filled = [part for part in parts if part.facts or part.pictures or part.lists]
        page.write(Page(title, told, filled, tiles=numbers, notes=notes), out)
        advance(3)
    return out


def write_chain_report(folder: Path, *, out: Path | None = None) -> Path:
    """The page of the transfer chain in `folder`: its matrix, and the runs of its stages side by side."""
    out = out or folder / "report.html"
    chain = chains.read(folder / "chain.json")
    runs = [RunFolder(folder.parent / name) for name in dict.fromkeys(stage["run"] for stage in chain["stages"])]
    accounts, notes = _stages([run for run in runs if run.config.is_file()])
    pages = {run.path.name: run.path / "report.html" for run in runs}
    links = {name: quote(os.path.relpath(page, out.parent)) for name, page in pages.items() if page.is_file()}
    parts = [
        Section("matrix", "After each stage", [_MATRIX], pictures=chains.matrices(chain)),
        Section("transfer", "Transfer and forgetting", [_TRANSFER], facts=[chains.transfer(chain)]),
        Section("stages", "Stages", facts=[chains.stages(chain, links)], pictures=sections.training(accounts)),
    ]
    page.write(Page(folder.resolve().name, f"Transfer chain: {' → '.join(chain['chain'])}", parts, notes=notes), out)
    return out


def _stages(runs: Sequence[RunFolder]) -> tuple[list[Account], list[str]]:
    """The accounts of the runs that can be read, and for the others why not."""
    accounts, notes = [], []
    for run in runs:
        try:
            accounts.append(Account.read(run))
        except (CheckpointError, DataError, OptionError) as error:
            notes.append(f"{run.path.name} is without curves. {error}")
    return accounts, notes


def _note(account: Account) -> str:
    """Why the run could not be evaluated, and what its scores are where there are some."""
    shown = " Its scores are those of the last weights, at the end of training." if account.summary else ""
    return f"{account.name} could not be evaluated. {account.missing}{shown}"


def _is_chain(folder: Path) -> bool:
    return (folder / "chain.json").is_file()


_MATRIX = "Scores in percent: a row for the start and after each stage, a column for each dataset that has a test set."
_TRANSFER = (
    "Forward transfer: the score just before training on the dataset, less that of the start. Forgetting: the best "
    "earlier score, less that at the end. Both in points of mAP; – where it has no meaning."
)
