"""The only evaluation, from features to `Scores`. `evaluate`, `compare`, `report`, chains and training call it.

`load_retrieval` (a run on a dataset), `read_retrieval` (feature files) and `extract_retrieval` (a network in training)
make a `Retrieval`; `evaluate` scores it. Where the features are cached, no image is decoded and torch is not imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptlreid import cache, distributed
from ptlreid.errors import DataError
from ptlreid.features import Extractor
from ptlreid.progress import Progress, Silent
from ptlreid.records import Splits
from ptlreid.retrieval import feature_files
from ptlreid.retrieval.distance import Block, Blocks, distance_blocks
from ptlreid.retrieval.expansion import expand_queries
from ptlreid.retrieval.feature_checks import describe_doubts
from ptlreid.retrieval.memory_plan import MemoryEstimate, estimate_memory
from ptlreid.retrieval.metrics import score
from ptlreid.retrieval.protocols import Judge, find_protocol
from ptlreid.retrieval.types import Retrieval, Scores
from ptlreid.runs import RunFolder
from ptlreid.settings import EvaluateSettings, ExtractionSettings

PROTOCOL_OF_FILES = "market"  # for feature files, which belong to no dataset, unless another is chosen


def evaluate_run(run: RunFolder, splits: Splits, settings: EvaluateSettings, progress: Progress) -> Scores:
    """The scores of the run's weights on the test set of `splits`."""
    return evaluate(load_retrieval(run, splits, settings, progress), settings)


def summarize_run(run: RunFolder, splits: Splits, settings: EvaluateSettings, progress: Progress) -> dict[str, Any]:
    """The scores of the run's last weights, for JSON, and under `averaged` those of its averaged weights if it has any.

    `settings`: of both.
    """
    found = {}
    for weights in ("last", *(["averaged"] if run.has_average else [])):
        chosen = settings.model_copy(update={"weights": weights})
        found[weights] = evaluate_run(run, splits, chosen, progress).summary()
    return {**found.pop("last"), **found}


def evaluate(retrieval: Retrieval, settings: EvaluateSettings) -> Scores:
    """The scores of ranking the gallery for every query. With several processes, the main one ranks and shares them."""
    return distributed.run_on_main(lambda: score_ranking(rank(retrieval, settings), settings))


@dataclass(frozen=True)
class Ranking:
    """A retrieval with its distances, after query expansion and re-ranking if these are on."""

    retrieval: Retrieval
    blocks: Blocks


def rank(retrieval: Retrieval, settings: EvaluateSettings, progress: Progress | None = None) -> Ranking:
    """The ranking under `settings`. Only re-ranking computes distances before `blocks` are iterated."""
    budget, progress = settings.budget_bytes, progress or Silent()
    if settings.expand:
        retrieval = expand_queries(retrieval, size=settings.expand, alpha=settings.expand_alpha, memory_budget=budget)
    if not settings.rerank:
        return Ranking(retrieval, distance_blocks(retrieval, metric=settings.metric, memory_budget=budget))
    from ptlreid.retrieval.rerank import rerank_blocks  # SciPy

    k1, k2, weight = settings.rerank_k1, settings.rerank_k2, settings.rerank_lambda
    with progress.task("find k-reciprocal neighbours", None):
        return Ranking(retrieval, rerank_blocks(retrieval, k1=k1, k2=k2, weight=weight, memory_budget=budget))


def score_ranking(ranking: Ranking, settings: EvaluateSettings, progress: Progress | None = None) -> Scores:
    """The scores of a ranking."""
    blocks = report_blocks(ranking, "rank", progress) if progress else ranking.blocks
    samples, seed = settings.single_shot_samples, settings.seed
    return score(ranking.retrieval, blocks, ap=settings.ap, single_shot_samples=samples, seed=seed)


def report_blocks(ranking: Ranking, title: str, progress: Progress) -> Blocks:
    """The ranking's blocks, each reported to `progress` once it is processed."""

    def make() -> Iterator[Block]:
        with progress.task(title, len(ranking.retrieval.query)) as advance:
            for block in ranking.blocks:
                yield block
                advance(block.rows.stop)

    return Blocks(make)


def load_retrieval(
    run: RunFolder,
    splits: Splits,
    settings: EvaluateSettings,
    progress: Progress,
    *,
    extractor: Extractor | None = None,
) -> Retrieval:
    """The features of the test set of `splits` from the run's weights: cached, or extracted by all processes together.

    `extractor`: the run's, if the caller has it already. Raises `DataError` for a dataset without a test set or without
    labels that the protocol needs, `CheckpointError` for a run without weights.
    """
    splits.require_test()
    protocol = find_protocol(settings.protocol or splits.protocol)
    Judge(protocol, splits.query, splits.gallery)  # raises an error for missing labels before anything is extracted
    extractor = extractor or Extractor.from_run(run, settings)
    _note_cameras(extractor, splits, progress)
    query, gallery = (
        cache.load_or_extract(
            cache_file(run, splits, part, settings), extractor, records, dtype=settings.dtype, progress=progress
        )
        for part, records in (("query", splits.query), ("gallery", splits.gallery))
    )
    return _note_doubts(Retrieval(query, gallery, protocol), progress)


def extract_retrieval(extractor: Extractor, splits: Splits) -> Retrieval:
    """The features of the test set of `splits` from an extractor, without a cache."""
    splits.require_test()
    query = extractor.extract(splits.query)
    gallery = query if splits.gallery is splits.query else extractor.extract(splits.gallery)
    return Retrieval(query, gallery, find_protocol(splits.protocol))


def read_retrieval(
    query_file: Path, gallery_file: Path, settings: EvaluateSettings, progress: Progress | None = None
) -> Retrieval:
    """The features in two files, of any program; `DataError` names the file and the row at fault."""
    protocol = find_protocol(settings.protocol or PROTOCOL_OF_FILES)
    query, gallery = feature_files.read(query_file), feature_files.read(gallery_file)
    check_widths(query_file, gallery_file, (query.width, gallery.width))
    return _note_doubts(Retrieval(query, gallery, protocol), progress or Silent())


def check_widths(query_file: Path, gallery_file: Path, widths: tuple[int, int]) -> None:
    """Raise `DataError` unless the features of both have the same width."""
    if widths[0] != widths[1]:
        raise DataError(
            f"{query_file} has features of width {widths[0]}, {gallery_file} of width {widths[1]}: expected the same "
            "width. Extract both with the same weights."
        )


def _note_doubts(retrieval: Retrieval, progress: Progress) -> Retrieval:
    for doubt in describe_doubts(retrieval):
        progress.note(doubt)
    return retrieval


def _note_cameras(extractor: Extractor, splits: Splits, progress: Progress) -> None:
    if extractor.cameras:
        sources, camids = (
            np.concatenate([getattr(part, name) for part in (splits.query, splits.gallery)])
            for name in ("sources", "camids")
        )
        if note := extractor.cameras.describe_unknown(sources, camids):
            progress.note(note)


def cache_file(run: RunFolder, splits: Splits, part: str, settings: ExtractionSettings) -> Path:
    """The path of the cached features of a part of `splits`; the same for `query` and `gallery` if they are one."""
    part = "query" if part == "gallery" and splits.gallery is splits.query else part
    return run.features / f"{splits.name.replace(':', '-')}.{part}.{settings.weights}.h5"


def estimate_ranking_memory(
    num_queries: int, num_gallery: int, width: int, settings: EvaluateSettings
) -> MemoryEstimate:
    """The memory that ranking takes with these settings."""
    budget = settings.budget_bytes
    return estimate_memory(num_queries, num_gallery, width, rerank=settings.rerank, memory_budget=budget)


def describe_excess(estimate: MemoryEstimate, settings: EvaluateSettings) -> str | None:
    """A note where the memory budget is below the smallest that works, otherwise None."""
    if settings.budget_bytes is None or estimate.ranking_bytes <= settings.budget_bytes:
        return None
    return (
        f"--memory-budget {settings.memory_budget} is less than ranking these features needs: using "
        f"{estimate.ranking_bytes / 1e6:.0f}MB"
    )
