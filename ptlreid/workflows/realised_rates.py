"""What thresholds give on a dataset: FAR and TAR of pairs, FAR and DIR of searches, for JSON.

`calibrate` describes the thresholds that it has found, `evaluate --thresholds` those that were found elsewhere.
"""

from __future__ import annotations

import math
from typing import Any

from ptlreid.errors import DataError
from ptlreid.evaluation import Ranking, rank, report_blocks
from ptlreid.progress import Progress
from ptlreid.retrieval.accepted import Rates, count_accepted
from ptlreid.retrieval.bootstrap import Interval
from ptlreid.retrieval.open_set import OpenSet, answer_queries
from ptlreid.retrieval.pairs import Pairs
from ptlreid.retrieval.types import Retrieval
from ptlreid.settings import EvaluateSettings
from ptlreid.thresholds_schema import Calibration


def make_pairs(retrieval: Retrieval, settings: EvaluateSettings, progress: Progress, title: str) -> Pairs:
    """The pairs of a retrieval by plain distances; `title`: what `progress` calls an iteration."""
    ranking = Ranking(retrieval, rank(retrieval, settings).blocks)
    return Pairs(retrieval, report_blocks(ranking, title, progress), settings.metric)


def apply_calibration(
    calibration: Calibration, retrieval: Retrieval, settings: EvaluateSettings, progress: Progress
) -> dict[str, Any]:
    """The calibrated points with what their thresholds give here; `calibrated`: the rates where they were measured.

    Points that were not measurable are left out, and searches where their identities are too few.
    """
    points = [point for point in calibration["operating_points"] if point["threshold"] is not None]
    thresholds = [point["threshold"] or 0.0 for point in points]
    accepted = count_accepted(make_pairs(retrieval, settings, progress, "count accepted pairs"), thresholds)
    rates = accepted.rates(resamples=settings.bootstrap, seed=settings.seed)
    return {
        "data": calibration["data"],
        "operating_points": [
            {"name": point["name"], "calibrated": {"far": point["far"], "tar": point["tar"]}, **describe_rates(one)}
            for point, one in zip(points, rates, strict=True)
        ],
        "open_set": _apply_to_searches(calibration, retrieval, settings, progress),
    }


def _apply_to_searches(
    calibration: Calibration, retrieval: Retrieval, settings: EvaluateSettings, progress: Progress
) -> list[dict[str, Any]]:
    points = [point for point in calibration["open_set"] if point["threshold"] is not None]
    answers = find_answers(retrieval, settings, progress) if points else None
    return [
        {
            "name": point["name"],
            "calibrated": {"far": point["far"], "dir": point["dir"]},
            **describe_search(answers, point["threshold"] or 0.0, settings),
        }
        for point in points
        if answers
    ]


def find_answers(retrieval: Retrieval, settings: EvaluateSettings, progress: Progress) -> OpenSet | None:
    """The answers to searches; None, with a note, where the identities are too few."""
    try:
        return answer_queries(make_pairs(retrieval, settings, progress, "search"), seed=settings.seed)
    except DataError as error:
        progress.note(f"no open-set rates: {error}")
        return None


def describe_rates(rates: Rates) -> dict[str, Any]:
    """FAR and TAR; None without pairs."""
    return {
        "threshold": rates.threshold,
        "far": None if math.isnan(rates.far) else rates.far,
        "far_interval": _ends(rates.far_interval),
        "tar": None if math.isnan(rates.tar) else rates.tar,
        "tar_interval": _ends(rates.tar_interval),
    }


def describe_search(answers: OpenSet, threshold: float, settings: EvaluateSettings) -> dict[str, Any]:
    """FAR and DIR."""
    point = answers.at(threshold, resamples=settings.bootstrap, seed=settings.seed)
    return {
        "threshold": point.threshold,
        "far": point.far,
        "far_interval": _ends(point.far_interval),
        "dir": point.dir,
        "dir_interval": _ends(point.dir_interval),
    }


def _ends(interval: Interval | None) -> list[float] | None:
    return [interval.low, interval.high] if interval else None
