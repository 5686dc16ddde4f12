"""Folders of shards with made-up features, for tests and the benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ptlreid.json_files import write_json
from ptlreid.retrieval.shard_files import Columns, write_shard
from ptlreid.retrieval.shards import manifest_file
from ptlreid.retrieval.types import Features


def random_features(seed: int, size: int, *, width: int = 5, whole: bool = True) -> Features:
    """Every sixth row equals the first; some are junk or zero. `whole`: of whole numbers: many distances are equal."""
    rng = np.random.default_rng(seed)
    matrix = (rng.integers(-2, 3, (size, width)) if whole else rng.normal(size=(size, width))).astype(np.float32)
    matrix[::6] = matrix[0]
    matrix[5::30] = 0
    paths = np.array([f"{seed}/{row}.jpg" for row in range(size)], dtype=object)
    return Features(matrix, rng.integers(-2, 4, size), rng.integers(0, 3, size), paths)


def make_shards(folder: Path, features: Features, *, rows: int, dtype: str = "float32", **changes: Any) -> Path:
    """The features in shards of so many rows. `changes`: of the manifest."""
    folder.mkdir(parents=True)
    entries = []
    for number, first in enumerate(range(0, len(features), rows)):
        part = features.select(np.arange(first, min(first + rows, len(features))))
        columns = Columns(part.pids, part.camids, part.paths, part.clothes, {})
        matrix, other = write_shard(folder, number, part.matrix.astype(dtype), columns)
        entries.append(entry(number, len(part), matrix, other))
    write_manifest(folder, entries, rows=rows, width=features.width, dtype=dtype, **changes)
    return folder


def entry(number: int, rows: int, matrix: str, columns: str) -> dict[str, Any]:
    """A shard in a manifest."""
    digests = {"matrix": matrix, "columns": columns, "images": "0" * 32}
    return {"number": number, "rows": rows, **digests, "skipped": []}


def write_manifest(
    folder: Path, entries: list[dict[str, Any]], *, rows: int, width: int, dtype: str, **changes: Any
) -> None:
    """The manifest of these shards, of so many rows each but the last."""
    images = sum(one["rows"] for one in entries)
    content: dict[str, Any] = {"kind": "ptlreid shards", "schema": 1, "weights": "w", "network": {}, "readout": {}}
    content |= {"view": {}, "cameras": "", "dtype": dtype, "width": width, "rows_per_shard": rows}
    content |= {"list": {"images": images, "digest": "0" * 32}, "names": [], "rows": images, "shards": entries}
    write_json(manifest_file(folder), content | changes)
