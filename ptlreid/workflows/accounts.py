"""A run and its evaluation, as far as there is one: what a report is made from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ptlreid import datasets, distributed
from ptlreid.errors import CheckpointError, DataError, OptionError
from ptlreid.progress import Progress
from ptlreid.records import Splits
from ptlreid.reports.run_summary import EvaluatedRun, RunSummary
from ptlreid.runs import RunFolder
from ptlreid.settings.report import ReportSettings
from ptlreid.workflows.evaluate import features_of, score


def evaluated(
    run: RunFolder, config: ReportSettings, progress: Progress, splits: Splits | None = None
) -> tuple[RunSummary, EvaluatedRun | None]:
    """The account of the run and its evaluation; without one, the account says why."""
    if config.data:
        return required(run, config, progress, splits)
    try:
        return required(run, config, progress, splits)
    except (CheckpointError, DataError, OptionError) as error:
        progress.note(f"{run.path.name} could not be evaluated: {error}")
        return replace(RunSummary.read(run), evaluation_error=str(error)), None


def required(
    run: RunFolder, config: ReportSettings, progress: Progress, splits: Splits | None = None
) -> tuple[RunSummary, EvaluatedRun]:
    """The account of the run and its evaluation."""
    account = RunSummary.read(run)
    splits = splits or datasets.load(config.data or account.evaluated_on, Path(config.root))
    evaluation = config.evaluation()
    sides = features_of(run, splits, evaluation, progress)
    scores = distributed.run_on_main(lambda: score(sides, evaluation))
    found = EvaluatedRun(sides.query, sides.gallery, sides.protocol, scores, evaluation)
    return replace(account, evaluated_on=splits.name, scores=scores), found
