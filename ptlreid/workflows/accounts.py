"""A run and its evaluation, as far as there is one: what a report is made from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ptlreid import datasets
from ptlreid.errors import CheckpointError, DataError, OptionError
from ptlreid.evaluation import evaluate, load_retrieval
from ptlreid.progress import Progress
from ptlreid.records import Splits
from ptlreid.reports.run_summary import Account, Retrieval
from ptlreid.runs import RunFolder
from ptlreid.settings.report import ReportSettings


def evaluated(
    run: RunFolder, config: ReportSettings, progress: Progress, splits: Splits | None = None
) -> tuple[Account, Retrieval | None]:
    """The account of the run and its evaluation; without one, the account says why."""
    if config.data:
        return required(run, config, progress, splits)
    try:
        return required(run, config, progress, splits)
    except (CheckpointError, DataError, OptionError) as error:
        progress.note(f"{run.path.name} could not be evaluated: {error}")
        return replace(Account.read(run), missing=str(error)), None


def required(
    run: RunFolder, config: ReportSettings, progress: Progress, splits: Splits | None = None
) -> tuple[Account, Retrieval]:
    """The account of the run and its evaluation."""
    account = Account.read(run)
    splits = splits or datasets.load(config.data or account.evaluated_on, Path(config.root))
    evaluation = config.evaluation()
    retrieval = load_retrieval(run, splits, evaluation, progress)
    scores = evaluate(retrieval, evaluation)
    how = f"{config.weights} weights, {config.metric} distance"
    found = Retrieval(retrieval.query, retrieval.gallery, retrieval.protocol, scores, how)
    return replace(account, evaluated_on=splits.name, scores=scores), found
