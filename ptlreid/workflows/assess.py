"""All that `ptlreid evaluate` tells of a run or of two feature files: scores, intervals, cameras, tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptlreid import distributed
from ptlreid.progress import Progress
from ptlreid.records import Splits
from ptlreid.retrieval.bootstrap import score_intervals
from ptlreid.retrieval.cameras import camera_scores
from ptlreid.retrieval.distance import Block, Stream
from ptlreid.retrieval.memory_plan import Estimate, estimate
from ptlreid.retrieval.ranklist import RankList, ranklist, ranklist_blocks
from ptlreid.runs import RunFolder
from ptlreid.settings import EvaluateSettings
from ptlreid.workflows.evaluate import (
    Sides,
    distances,
    expanded,
    features_in,
    features_of,
    score_blocks,
    source_of,
)
from ptlreid.workflows.tables import write_queries, write_ranklist


@dataclass(frozen=True)
class Tables:
    """Where to write a table of the queries, and their rank lists; None: nowhere."""

    queries: Path | None = None
    ranks: Path | None = None


def assess_run(
    run: RunFolder, splits: Splits, config: EvaluateSettings, progress: Progress, tables: Tables | None = None
) -> dict[str, Any]:
    """The scores of the run on the test set of `splits`, with the settings as they were used: docs/evaluation.md."""
    used = used_on(run, splits, config)
    sides = features_of(run, splits, config, progress)
    about = {"run": str(run.path), "data": splits.name, "settings": used.model_dump()}
    return about | distributed.run_on_main(lambda: _assess(sides, config, progress, tables or Tables()))


def assess_files(
    query: Path, gallery: Path, config: EvaluateSettings, progress: Progress, tables: Tables | None = None
) -> dict[str, Any]:
    """The same of two files of features, of any program."""
    sides = features_in(query, gallery, config)
    used = _used(config, protocol=sides.protocol.name)
    about = {"files": {"query": str(query), "gallery": str(gallery)}, "settings": used.model_dump()}
    return about | _assess(sides, config, progress, tables or Tables())


def used_on(run: RunFolder, splits: Splits, config: EvaluateSettings) -> EvaluateSettings:
    """The settings with what was left open filled in: the dataset, its protocol, how the network is read."""
    readout = source_of(run, config).readout
    protocol = config.protocol or splits.protocol
    return _used(config, data=splits.name, protocol=protocol, flip=readout.flip, normalize=readout.normalize)


def needed(num_queries: int, num_gallery: int, width: int, config: EvaluateSettings) -> Estimate:
    """The memory that ranking takes, as `config` asks for it."""
    return estimate(num_queries, num_gallery, width, rerank=config.rerank, memory_budget=config.budget_bytes)


def beyond_budget(found: Estimate, config: EvaluateSettings) -> str | None:
    """What there is to say where the least that works is more than the memory budget."""
    if config.budget_bytes is None or found.ranking <= config.budget_bytes:
        return None
    return (
        f"--memory-budget {config.memory_budget} is less than ranking these features takes at least: "
        f"{found.ranking / 1e6:.0f}MB are used"
    )


def _assess(sides: Sides, config: EvaluateSettings, progress: Progress, tables: Tables) -> dict[str, Any]:
    told = beyond_budget(needed(len(sides.query), len(sides.gallery), sides.query.width, config), config)
    if told:
        progress.note(told)
    sides = expanded(sides, config)
    found = _prepared(sides, config, progress)
    scores = score_blocks(_telling("rank", found, sides, progress), sides, config)
    summary = scores.summary()
    if config.bootstrap:
        summary["intervals"] = score_intervals(scores, sides.query, repeats=config.bootstrap, seed=config.seed)
    if config.per_camera:
        source = _telling("rank by camera", found, sides, progress)
        summary["cameras"] = camera_scores(source, sides.query, sides.gallery, sides.protocol, ap=config.ap).cells()
    if tables.queries:
        write_queries(tables.queries, sides.query, scores)
    if tables.ranks:
        write_ranklist(tables.ranks, sides.query, sides.gallery, _ranklist(found, sides, config))
    return summary


def _prepared(sides: Sides, config: EvaluateSettings, progress: Progress) -> Stream:
    if not config.rerank:
        return distances(sides, config)
    with progress.task("find reciprocal neighbours", None):
        return distances(sides, config)


def _telling(title: str, source: Stream, sides: Sides, progress: Progress) -> Iterator[Block]:
    """The blocks of `source`, each told of when it is done."""
    with progress.task(title, len(sides.query)) as advance:
        for block in source:
            yield block
            advance(block.start + block.shape[0])


def _ranklist(found: Stream, sides: Sides, config: EvaluateSettings) -> RankList:
    """The distances in it are exact where they can be: re-ranked ones are as they were ranked."""
    query, gallery, protocol, size = sides.query, sides.gallery, sides.protocol, config.ranklist_size
    if config.rerank:
        return ranklist_blocks(found, query, gallery, protocol, size)
    return ranklist(query, gallery, protocol, size, metric=config.metric, memory_budget=config.budget_bytes)


def _used(config: EvaluateSettings, **chosen: object) -> EvaluateSettings:
    # Re-ranking compares features of length 1, whatever the metric.
    return config.model_copy(update=chosen | ({"metric": "cosine"} if config.rerank else {}))
