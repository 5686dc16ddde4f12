"""`ptlreid evaluate --dry-run`: what an evaluation would read, extract and take. Nothing is extracted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ptlreid import cache
from ptlreid.records import Splits
from ptlreid.runs import RunFolder
from ptlreid.settings import EvaluateSettings
from ptlreid.workflows.assess import beyond_budget, needed, used_on
from ptlreid.workflows.evaluate import cache_file, features_in, source_of


def preview_run(run: RunFolder, splits: Splits, config: EvaluateSettings) -> dict[str, Any]:
    """The settings as they would be used, sizes, what is in the cache, and the memory."""
    splits.require_test()
    source = source_of(run, config)
    features = {
        part: cache.status(cache_file(run, splits, part, config), source, records)
        for part, records in (("query", splits.query), ("gallery", splits.gallery))
    }
    width = source.saved.build().feature_width
    return {
        "run": str(run.path),
        "settings": used_on(run, splits, config).model_dump(),
        "query": splits.query.count(),
        "gallery": splits.gallery.count(),
        "features": features | {"width": width},
        "memory": _memory(len(splits.query), len(splits.gallery), width, config),
    }


def preview_files(query: Path, gallery: Path, config: EvaluateSettings) -> dict[str, Any]:
    """The same for two files of features, which are read and checked."""
    sides = features_in(query, gallery, config)
    return {
        "files": {"query": str(query), "gallery": str(gallery)},
        "settings": config.model_copy(update={"protocol": sides.protocol.name}).model_dump(),
        "query": {"images": len(sides.query)},
        "gallery": {"images": len(sides.gallery)},
        "features": {"width": sides.query.width},
        "memory": _memory(len(sides.query), len(sides.gallery), sides.query.width, config),
    }


def _memory(num_queries: int, num_gallery: int, width: int, config: EvaluateSettings) -> dict[str, Any]:
    found = needed(num_queries, num_gallery, width, config)
    parts = {"features": found.features, "ranking": found.ranking, "reranking": found.reranking, "total": found.total}
    told = beyond_budget(found, config)
    return {f"{name}_mb": round(size / 1e6) for name, size in parts.items()} | ({"note": told} if told else {})
