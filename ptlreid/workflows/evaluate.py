"""`ptlreid evaluate`: scores, intervals, camera pairs and tables of a run on a dataset, or of two feature files."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptlreid import cache, distributed
from ptlreid.calibrations import FeatureOrigin, find_calibration
from ptlreid.errors import OptionError
from ptlreid.evaluation import (
    Ranking,
    cache_file,
    describe_excess,
    estimate_ranking_memory,
    load_retrieval,
    rank,
    read_retrieval,
    report_blocks,
    score_ranking,
)
from ptlreid.features import Extractor
from ptlreid.files import atomic_write
from ptlreid.models.graph_file import GraphFile
from ptlreid.models.weights import WeightsFile
from ptlreid.network_types import Readout
from ptlreid.progress import Progress
from ptlreid.records import Splits
from ptlreid.retrieval.bootstrap import score_intervals
from ptlreid.retrieval.cameras import camera_scores
from ptlreid.retrieval.protocols import Judge, find_protocol
from ptlreid.retrieval.ranklist import rank_list
from ptlreid.retrieval.types import Features, Retrieval, Scores
from ptlreid.runs import RunFolder
from ptlreid.settings import EvaluateSettings
from ptlreid.thresholds_schema import Calibration
from ptlreid.workflows.realised_rates import apply_calibration


@dataclass(frozen=True)
class Tables:
    """The CSV files to write the scores of each query and the rank lists to; None: not written."""

    queries: Path | None = None
    ranks: Path | None = None


def evaluate_run(
    run: RunFolder,
    splits: Splits,
    settings: EvaluateSettings,
    progress: Progress,
    tables: Tables,
    *,
    thresholds: RunFolder | None = None,
) -> dict[str, Any]:
    """The scores of the run on the test set of `splits`, with the settings in effect: docs/evaluation.md.

    `thresholds`: a run whose thresholds are applied, which must be of the same weights, readout and metric.
    """
    extractor = Extractor.from_run(run, settings)
    model = extractor.model
    assert isinstance(model, WeightsFile | GraphFile), "a run has weights, and a model a graph"
    calibration = _find_calibration(thresholds, extractor, settings) if thresholds else None
    retrieval = load_retrieval(run, splits, settings, progress, extractor=extractor)
    in_effect = settings_in_effect(settings, splits.protocol, data=splits.name, readout=extractor.readout)
    about = {"run": str(run.path), "data": splits.name, "weights_digest": model.digest, "settings": in_effect}
    scores = distributed.run_on_main(lambda: _evaluate(retrieval, settings, progress, tables, calibration))
    own = model.readout  # unless the settings say otherwise
    return about | {"readout": {"flip": own.flip, "normalize": own.normalize}} | scores


def evaluate_files(
    query: Path, gallery: Path, settings: EvaluateSettings, progress: Progress, tables: Tables
) -> dict[str, Any]:
    """The same scores for two feature files, from any program."""

    def score() -> dict[str, Any]:
        retrieval = read_retrieval(query, gallery, settings, progress)
        in_effect = settings_in_effect(settings, retrieval.protocol.name)
        about = {"files": {"query": str(query), "gallery": str(gallery)}, "settings": in_effect}
        return about | _evaluate(retrieval, settings, progress, tables)

    return distributed.run_on_main(score)


def preview_run(run: RunFolder, splits: Splits, settings: EvaluateSettings) -> dict[str, Any]:
    """For `--dry-run`: the settings in effect, sizes, state of the cache, and memory needed. Nothing is extracted."""
    splits.require_test()
    Judge(find_protocol(settings.protocol or splits.protocol), splits.query, splits.gallery)  # raises errors
    extractor = Extractor.from_run(run, settings)
    features = {
        part: cache.describe_status(cache_file(run, splits, part, settings), extractor, records, settings.dtype)
        for part, records in (("query", splits.query), ("gallery", splits.gallery))
    }
    width = extractor.network.feature_width
    return {
        "run": str(run.path),
        "settings": settings_in_effect(settings, splits.protocol, data=splits.name, readout=extractor.readout),
        "query": splits.query.count(),
        "gallery": splits.gallery.count(),
        "features": features | {"width": width},
        **_estimate_memory(len(splits.query), len(splits.gallery), width, settings),
    }


def preview_files(query: Path, gallery: Path, settings: EvaluateSettings) -> dict[str, Any]:
    """The same preview for two feature files, which are read and validated."""
    retrieval = read_retrieval(query, gallery, settings)
    num_queries, num_gallery, width = len(retrieval.query), len(retrieval.gallery), retrieval.query.width
    return {
        "files": {"query": str(query), "gallery": str(gallery)},
        "settings": settings_in_effect(settings, retrieval.protocol.name),
        "query": {"images": num_queries},
        "gallery": {"images": num_gallery},
        "features": {"width": width},
        **_estimate_memory(num_queries, num_gallery, width, settings),
    }


def _find_calibration(thresholds: RunFolder, extractor: Extractor, settings: EvaluateSettings) -> Calibration:
    if settings.rerank or settings.expand:
        raise OptionError(
            f"--thresholds {thresholds.path} with {'rerank' if settings.rerank else 'expand'}: expected plain "
            "distances, as thresholds are of these. Leave out one of them."
        )
    return find_calibration(thresholds, FeatureOrigin.of(extractor, settings.metric))


def _evaluate(
    retrieval: Retrieval,
    settings: EvaluateSettings,
    progress: Progress,
    tables: Tables,
    calibration: Calibration | None = None,
) -> dict[str, Any]:
    query, gallery = retrieval.query, retrieval.gallery
    estimate = estimate_ranking_memory(len(query), len(gallery), query.width, settings)
    if excess := describe_excess(estimate, settings):
        progress.note(excess)
    ranking = rank(retrieval, settings, progress)
    scores = score_ranking(ranking, settings, progress)
    summary = summarize(scores, query, settings, tables)
    if settings.per_camera:
        blocks = report_blocks(ranking, "rank by camera", progress)
        summary["cameras"] = camera_scores(ranking.retrieval, blocks, ap=settings.ap).cells()
    if calibration:
        summary["thresholds"] = apply_calibration(calibration, retrieval, settings, progress)
    if tables.ranks:
        _write_rank_lists(tables.ranks, ranking, settings)
    return summary


def summarize(scores: Scores, query: Features, settings: EvaluateSettings, tables: Tables) -> dict[str, Any]:
    """The scores for JSON, with intervals if wanted; the table of queries is written."""
    summary = scores.summary()
    if settings.bootstrap:
        summary["intervals"] = score_intervals(scores, query.pids, resamples=settings.bootstrap, seed=settings.seed)
    if tables.queries:
        _write_queries(tables.queries, query, scores)
    return summary


def settings_in_effect(
    settings: EvaluateSettings, protocol: str, *, data: str | None = None, readout: Readout | None = None
) -> dict[str, Any]:
    """The settings with defaults filled in: the protocol, and for a run its dataset and its network's readout."""
    updates: dict[str, Any] = {"protocol": settings.protocol or protocol, "data": data}
    if readout:
        updates |= {"flip": readout.flip, "normalize": readout.normalize}
    if settings.rerank:
        updates["metric"] = "cosine"  # re-ranking compares L2-normalised features, whatever the metric
    return settings.model_copy(update=updates).model_dump()


def _estimate_memory(num_queries: int, num_gallery: int, width: int, settings: EvaluateSettings) -> dict[str, Any]:
    estimate = estimate_ranking_memory(num_queries, num_gallery, width, settings)
    sizes = {
        "features": estimate.features_bytes,
        "ranking": estimate.ranking_bytes,
        "reranking": estimate.reranking_bytes,
        "total": estimate.total_bytes,
    }
    excess = describe_excess(estimate, settings)
    return {"memory_bytes": sizes} | ({"note": excess} if excess else {})


def _write_queries(file: Path, query: Features, scores: Scores) -> None:
    """Write one line per query, in order; without a true match, the last three columns are empty."""
    columns = (scores.average_precision, scores.first_match_rank, scores.inp)
    scores_by_row = dict(
        zip(scores.rows.tolist(), zip(*(column.tolist() for column in columns), strict=True), strict=True)
    )
    _write_csv(
        file,
        ("row", "path", "pid", "camid", "AP", "first_match_rank", "INP"),
        ((row, *_image(query, row), *scores_by_row.get(row, ("", "", ""))) for row in range(len(query))),
    )


def _write_rank_lists(file: Path, ranking: Ranking, settings: EvaluateSettings) -> None:
    """Write one line per query and rank, nearest first; fewer lines for a query with a smaller gallery."""
    query, gallery = ranking.retrieval.query, ranking.retrieval.gallery
    # Distances are recomputed in float64, except re-ranked ones, which are listed as ranked.
    metric = None if settings.rerank else settings.metric
    ranks = rank_list(ranking.retrieval, ranking.blocks, settings.ranklist_size, metric=metric)

    def lines() -> Iterable[Sequence[Any]]:
        for row, columns in enumerate(ranks.columns):
            for index, column in enumerate(columns.tolist()):
                if column >= 0:
                    verdict = "match" if ranks.matches[row, index] else "other"
                    distance = float(ranks.distances[row, index])
                    yield (row, *_image(query, row), index + 1, column, *_image(gallery, column), distance, verdict)

    names = ("row", "path", "pid", "camid")
    sides = ([f"{side}_{name}" for name in names] for side in ("query", "gallery"))
    _write_csv(file, (*next(sides), "rank", *next(sides), "distance", "verdict"), lines())


def _image(features: Features, row: int) -> tuple[str, int, int]:
    return str(features.paths[row]), int(features.pids[row]), int(features.camids[row])


def _write_csv(file: Path, names: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    with (
        atomic_write(file) as temporary,
        # Names of files that are not UTF-8 are written byte for byte.
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(names)
        writer.writerows(lines)
