"""`ptlreid compare`: whether runs differ by more than the choice of test identities explains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptlreid import datasets
from ptlreid.errors import OptionError
from ptlreid.evaluation import evaluate, load_retrieval
from ptlreid.files import file_digest
from ptlreid.progress import Progress
from ptlreid.retrieval.bootstrap import Difference, score_differences
from ptlreid.runs import RunFolder
from ptlreid.settings.evaluate import CompareSettings


def compare(runs: Sequence[RunFolder], settings: CompareSettings, progress: Progress) -> dict[str, Any]:
    """The scores of each run on one dataset, and the difference of each from the first.

    Differences are paired by query, with an interval from a bootstrap over identities: see `score_differences`.
    """
    if len(runs) < 2:
        raise OptionError("One run was given: expected two or more. Name the others after it.")
    splits = datasets.load(_choose_dataset(runs, settings), Path(settings.root))
    pids, resamples, seed = splits.query.pids, settings.bootstrap, settings.seed
    # One run after the other, so that only the features of one run are in memory.
    first, *others = all_scores = [evaluate(load_retrieval(run, splits, settings, progress), settings) for run in runs]
    differences = [score_differences(first, scores, pids, resamples=resamples, seed=seed) for scores in others]
    return {
        "data": splits.name,
        "protocol": first.protocol,
        "settings": settings.model_copy(update={"data": splits.name, "protocol": first.protocol}).model_dump(),
        "runs": [
            {"run": str(run.path), "weights_digest": file_digest(run.weights(settings.weights)), **scores.summary()}
            for run, scores in zip(runs, all_scores, strict=True)
        ],
        "differences": [
            {
                "run": str(run.path),
                "against": str(runs[0].path),
                "mAP": _describe(mean_ap),
                "cmc": {"1": _describe(cmc1)},
            }
            for run, (mean_ap, cmc1) in zip(runs[1:], differences, strict=True)
        ],
    }


def _choose_dataset(runs: Sequence[RunFolder], settings: CompareSettings) -> str:
    """The dataset to compare on: `--data`, or the one that all of `runs` were trained on."""
    if settings.data:
        return settings.data
    names = dict.fromkeys(run.settings().data for run in runs)
    if len(names) > 1:
        raise OptionError(f"The runs were trained on different datasets: {', '.join(names)}. Choose one with --data.")
    return next(iter(names))


def _describe(difference: Difference) -> dict[str, Any]:
    low, high = difference.interval.low, difference.interval.high
    verdict = "significant" if difference.significant else "not significant"
    return {"difference": difference.value, "interval": [low, high], "verdict": verdict}
