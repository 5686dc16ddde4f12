"""The scripts of docs/scale.md that load features into vector databases, run on made-up features by any Python.

The engines are no dependencies: an environment that has them, and need not have ptlreid, runs the scripts.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
from blocks import PAGES, blocks
from shard_folders import make_shards

from ptlreid.retrieval.feature_exports import export
from ptlreid.retrieval.types import Features

SCRIPTS = {block.file: block.text for block in blocks(PAGES["docs/scale.md"].read_text(encoding="utf-8")) if block.file}
# What each script imports, and what starts its server.
PACKAGES = {
    "to_lancedb.py": ("lancedb", "pyarrow"),
    "to_qdrant.py": ("qdrant_client",),
    "to_milvus.py": ("pymilvus", "milvus_lite"),
    "to_pgvector.py": ("psycopg", "pgvector", "pgserver"),
}

# Runs a script with a PostgreSQL server that a package brings along.
_WITH_SERVER = """
import os, runpy, sys
import pgserver
server = pgserver.get_server(sys.argv[2])
os.environ["DATABASE_URL"] = server.get_uri()
try:
    runpy.run_path(sys.argv[1], run_name="__main__")
finally:
    server.cleanup()
"""


def write_inputs(folder: Path, dtype: str, *, rows: int, width: int) -> list[str]:
    """The shard folder `city`, `city.arrow` and `query.npy`; the paths of the ten nearest images by cosine distance."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(rows, width)).astype(np.float32)
    paths = np.array([f"crops/ü{row}.jpg" for row in range(rows)], dtype=object)
    features = Features(matrix.astype(dtype).astype(np.float32), np.zeros(rows, int), np.arange(rows) % 7, paths)
    make_shards(folder / "city", features, rows=-(-rows // 3), dtype=dtype)
    export(folder / "city.arrow", features, {}, dtype=dtype)
    query = (matrix[rows // 2] + 0.1 * rng.normal(size=width)).astype(dtype)
    np.save(folder / "query.npy", query[None])
    cosines = features.matrix @ query.astype(np.float32) / np.linalg.norm(features.matrix, axis=1)
    return [paths[row] for row in np.argsort(-cosines, kind="stable")[:10]]


def run_script(name: str, folder: Path, python: str) -> list[tuple[float, str]]:
    """The distances and paths that the script `name` prints, run by `python` in the folder of its inputs."""
    (folder / name).write_text(SCRIPTS[name], encoding="utf-8")
    command = [python, name]
    if name == "to_pgvector.py":
        command = [python, "-c", _WITH_SERVER, name, str(folder / "server")]
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment = kept | {"PYTHONUTF8": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{name}\n{done.stdout}\n{done.stderr}"
    lines = [line.partition(" ") for line in done.stdout.splitlines()]
    return [(float(distance), path) for distance, _, path in lines]
