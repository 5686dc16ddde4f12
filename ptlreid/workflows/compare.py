"""`ptlreid compare`: whether one run is better than another by more than other people in the test set would change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptlreid import datasets, distributed
from ptlreid.errors import OptionError
from ptlreid.progress import Progress
from ptlreid.retrieval.bootstrap import Difference, score_differences
from ptlreid.retrieval.types import Features, Scores
from ptlreid.runs import RunFolder
from ptlreid.settings.evaluate import CompareSettings
from ptlreid.workflows.evaluate import features_of, score


def compare(runs: Sequence[RunFolder], config: CompareSettings, progress: Progress) -> dict[str, Any]:
    """The scores of each run on one dataset, and by how much each of the others differs from the first.

    The difference is taken query by query, and its interval from draws of people: see `differences`.
    """
    if len(runs) < 2:
        raise OptionError("One run was given, expected two or more. Name the others after it.")
    splits = datasets.load(_data(runs, config), Path(config.root))
    all_scores: list[Scores] = []
    for run in runs:
        sides = features_of(run, splits, config, progress)
        all_scores.append(distributed.run_on_main(lambda sides=sides: score(sides, config)))  # type: ignore[misc]
    first = all_scores[0]
    return {
        "data": splits.name,
        "protocol": first.protocol,
        "settings": config.model_copy(update={"data": splits.name, "protocol": first.protocol}).model_dump(),
        "runs": [{"run": str(run.path), **scores.summary()} for run, scores in zip(runs, all_scores, strict=True)],
        "differences": [
            {"run": str(run.path), "against": str(runs[0].path), **_told(first, scores, sides.query, config)}
            for run, scores in zip(runs[1:], all_scores[1:], strict=True)
        ],
    }


def _data(runs: Sequence[RunFolder], config: CompareSettings) -> str:
    """The dataset to compare on: the one asked for, or the one that all of `runs` were trained on."""
    if config.data:
        return config.data
    names = dict.fromkeys(run.settings().data for run in runs)
    if len(names) > 1:
        raise OptionError(f"The runs were trained on different datasets: {', '.join(names)}. Choose one with --data.")
    return next(iter(names))


def _told(first: Scores, second: Scores, query: Features, config: CompareSettings) -> dict[str, Any]:
    mean_ap, cmc1 = score_differences(first, second, query, repeats=config.bootstrap, seed=config.seed)
    return {"mAP": _of(mean_ap), "cmc": {"1": _of(cmc1)}}


def _of(difference: Difference) -> dict[str, Any]:
    low, high = difference.interval.low, difference.interval.high
    verdict = "outside the noise" if difference.outside_noise else "inside the noise"
    return {"difference": difference.value, "interval": [low, high], "verdict": verdict}
