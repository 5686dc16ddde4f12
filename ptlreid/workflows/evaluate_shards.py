"""`ptlreid evaluate` of a query file in a folder of shards, which is read block by block within the memory budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ptlreid import distributed
from ptlreid.evaluation import PROTOCOL_OF_FILES, check_widths
from ptlreid.progress import Progress
from ptlreid.retrieval import feature_files
from ptlreid.retrieval.protocols import Protocol, find_protocol
from ptlreid.retrieval.shard_scores import ShardRetrieval, score_shards
from ptlreid.retrieval.shards import Shards, is_shard_folder, read_manifest
from ptlreid.retrieval.streamed_search import count_block_bytes, plan_rows
from ptlreid.settings import EvaluateSettings
from ptlreid.workflows.evaluate import Tables, settings_in_effect, summarize


def reads_blocks(gallery: Path, settings: EvaluateSettings, tables: Tables) -> bool:
    """Whether the gallery is a folder of shards, and the settings ask for no more than ranks of true matches."""
    protocol = find_protocol(settings.protocol or PROTOCOL_OF_FILES)
    needs_all = settings.rerank or settings.expand or settings.per_camera or tables.ranks or protocol.single_shot
    return is_shard_folder(gallery) and not needs_all


def evaluate_shards(
    query: Path, gallery: Path, settings: EvaluateSettings, progress: Progress, tables: Tables
) -> dict[str, Any]:
    """What `evaluate_files` gives for the same features; several processes each read their part of the gallery."""
    protocol = find_protocol(settings.protocol or PROTOCOL_OF_FILES)
    distributed.run_on_main(lambda: Shards.open(gallery, progress).folder)  # one process computes the digests
    retrieval = distributed.run_together(lambda: _open(query, gallery, protocol))
    scores = score_shards(
        retrieval, metric=settings.metric, ap=settings.ap, memory_budget=settings.budget_bytes, progress=progress
    )
    summary = distributed.run_on_main(lambda: summarize(scores, retrieval.query, settings, tables))
    files = {"query": str(query), "gallery": str(gallery)}
    return {"files": files, "settings": settings_in_effect(settings, protocol.name)} | summary


def preview_shards(query: Path, gallery: Path, settings: EvaluateSettings) -> dict[str, Any]:
    """For `--dry-run`: the settings in effect, sizes, and the memory of each process. No features are read."""
    manifest, num_queries, width = read_manifest(gallery), *feature_files.read(query).matrix.shape
    check_widths(query, gallery, (width, manifest["width"]))
    rows = plan_rows(num_queries, width, settings.budget_bytes)
    sizes = {"features": 4 * num_queries * width, "ranking": count_block_bytes(rows, num_queries, width)}
    return {
        "files": {"query": str(query), "gallery": str(gallery)},
        "settings": settings_in_effect(settings, settings.protocol or PROTOCOL_OF_FILES),
        "query": {"images": num_queries},
        "gallery": {"images": manifest["rows"], "shards": len(manifest["shards"])},
        "features": {"width": width},
        "memory_bytes": sizes | {"reranking": 0, "total": sum(sizes.values())},
    }


def _open(query: Path, gallery: Path, protocol: Protocol) -> ShardRetrieval:
    features, shards = feature_files.read(query), Shards.open(gallery)
    check_widths(query, gallery, (features.width, shards.width))
    return ShardRetrieval(features, shards, protocol)
