"""Time and memory of an exact search in shards of made-up features, against reading and against the bare product.

    python tests/benchmarks/shards.py FOLDER --images 2000000 --width 128 --queries 100

The shards are written to FOLDER if it does not exist yet. The search runs in a process of its own, so that its memory
is that of nothing else.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))

from shard_folders import entry, write_manifest

from ptlreid.progress import Silent
from ptlreid.retrieval.search import Side
from ptlreid.retrieval.shard_files import Columns, matrix_file, write_shard
from ptlreid.retrieval.shards import Shards
from ptlreid.retrieval.types import Features
from ptlreid.settings import SearchSettings
from ptlreid.workflows.search_shards import search_shards


def main() -> None:
    """Write the shards, then print rows per second of each measurement, the best of three."""
    arguments = parse()
    if arguments.search:
        search(arguments)
        return
    if not arguments.folder.exists():
        write(arguments)
    began = time.perf_counter()
    shards = Shards.open(arguments.folder)
    print(f"open, digests as far as the index lacks them: {time.perf_counter() - began:.2f} s")
    seconds: dict[str, list[float]] = {"np.fromfile": [], "product": []}
    for _ in range(3):
        seconds["np.fromfile"].append(read(shards))
        seconds["product"].append(multiply(shards, arguments.queries))
    command = [sys.executable, *sys.argv, "--search"]
    found = [json.loads(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(3)]
    seconds["search"] = [one["seconds"] for one in found]
    for name, values in seconds.items():
        print(f"{name}: {min(values):.2f} s, {len(shards) / min(values) / 1e6:.2f} million rows/s")
    print(f"processor time of the search: {min(one['cpu'] for one in found):.2f} s")
    print(f"peak memory of the search: {max(one['bytes'] for one in found) / 1e6:.0f} MB")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=2_000_000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--search", action="store_true")
    return parser.parse_args()


def make(rng: np.random.Generator, size: int, width: int) -> np.ndarray:
    """(N, D) float32, L2-normalised."""
    matrix = rng.standard_normal((size, width), dtype=np.float32)
    return matrix / np.linalg.norm(matrix, axis=1)[:, None]


def write(arguments: argparse.Namespace) -> None:
    """Random float16 features, of identities and cameras that are random, too."""
    arguments.folder.mkdir(parents=True)
    entries = []
    for number, first in enumerate(range(0, arguments.images, arguments.rows)):
        rng, size = np.random.default_rng(number), min(arguments.rows, arguments.images - first)
        paths = np.array([f"city/{first + row:09d}.jpg" for row in range(size)], dtype=object)
        columns = Columns(rng.integers(0, 10**6, size), rng.integers(0, 100, size), paths, None, {})
        matrix = make(rng, size, arguments.width).astype(np.float16)
        entries.append(entry(number, size, *write_shard(arguments.folder, number, matrix, columns)))
    write_manifest(arguments.folder, entries, rows=arguments.rows, width=arguments.width, dtype="float16")


def read(shards: Shards) -> float:
    """Seconds to read all matrices."""
    began = time.perf_counter()
    for one in shards.manifest["shards"]:
        np.fromfile(matrix_file(shards.folder, one["number"]), np.uint8)
    return time.perf_counter() - began


def multiply(shards: Shards, num_queries: int) -> float:
    """Seconds of the products alone, with features in memory as float32."""
    queries = make(np.random.default_rng(10**6), num_queries, shards.width)
    tile = make(np.random.default_rng(0), 16_384, shards.width)
    products = np.empty((num_queries, len(tile)), dtype=np.float32)
    began = time.perf_counter()
    for _ in range(0, len(shards), len(tile)):
        np.matmul(queries, tile.T, out=products)
    return time.perf_counter() - began


def search(arguments: argparse.Namespace) -> None:
    shards = Shards.open(arguments.folder)
    matrix, zeros = make(np.random.default_rng(10**6), arguments.queries, shards.width), np.zeros(arguments.queries)
    paths = np.array([str(row) for row in range(arguments.queries)], dtype=object)
    query = Features(matrix, zeros.astype(np.int64), zeros.astype(np.int64), paths)
    settings = SearchSettings.resolve(None)
    began, cpu = time.perf_counter(), time.process_time()
    search_shards(Side(query, paths), shards, settings, Silent())
    seconds = time.perf_counter() - began
    (peak,) = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
    print(json.dumps({"seconds": seconds, "cpu": time.process_time() - cpu, "bytes": int(peak) * 1024}))


if __name__ == "__main__":
    main()
