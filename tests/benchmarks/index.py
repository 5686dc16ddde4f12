"""Time, memory and recall of an index over shards of made-up features of identities.

    python tests/benchmarks/index.py FOLDER --images 10000000 --width 128 --queries 100

The shards are written to FOLDER/shards if they do not exist yet. Each command runs in a process of its own. At the end
the recall that the index states is compared with that of other queries.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))

from shard_folders import entry, write_manifest

from ptlreid.retrieval import feature_files
from ptlreid.retrieval.shard_files import Columns, write_shard
from ptlreid.retrieval.types import Features

IMAGES = 20  # of each identity


def main() -> None:
    """Write shards and queries, then print what each command took, the search the best of three."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=10_000_000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--kind", default="ivfpq")
    arguments = parser.parse_args()
    folder, shards = arguments.folder, arguments.folder / "shards"
    if not shards.exists():
        write(shards, arguments)
    for name, size, seed in (("q.h5", arguments.queries, 10**6), ("other.h5", 2000, 10**6 + 1)):
        write_queries(folder / name, size, seed, arguments)
    index = folder / arguments.kind
    about = run("index", "build", shards, "--out", index, "--kind", arguments.kind, "--json")
    print(f"{about['factory']}, effort {about['effort']}, {about['bytes'] / 1e6:.0f} MB, {about['recall']}")
    for _ in range(3):
        run("search", "--features", folder / "q.h5", "--index", index, "--json")
    answers = [
        run("search", "--features", folder / "other.h5", "--index", index, *more, "--json")["queries"]
        for more in ([], ["--exact"])
    ]
    shares = [
        np.mean([hit["distance"] <= exact["hits"][-1]["distance"] for hit in found["hits"]])
        for found, exact in zip(*answers, strict=True)
    ]
    print(f"recall of {len(shares):,} other queries: {np.mean(shares):.4f}")


def run(*arguments: object) -> dict[str, Any]:
    """The JSON of a command; prints its time, processor time and peak memory."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "ptlreid", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    content = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, command
    seconds = time.perf_counter() - began
    used = describe(usage)
    print(f"{' '.join(map(str, arguments[:2]))} {arguments[-2]}: {seconds:.2f} s, {used}", flush=True)
    return json.loads(content)


def describe(usage: resource.struct_rusage) -> str:
    return f"{usage.ru_utime + usage.ru_stime:.2f} s of processors, at most {usage.ru_maxrss / 1e6:.2f} GB"


def make(rng: np.random.Generator, identities: np.ndarray, width: int) -> np.ndarray:
    """(N, D) float32, L2-normalised: an identity's own direction, the same for each seed, and noise half as long."""
    matrix = rng.standard_normal((len(identities), width), dtype=np.float32) / 2
    own, place = np.unique(identities, return_inverse=True)
    directions = np.stack([np.random.default_rng([7, one]).standard_normal(width, dtype=np.float32) for one in own])
    matrix += directions[place]
    return matrix / np.linalg.norm(matrix, axis=1)[:, None]


def write(folder: Path, arguments: argparse.Namespace) -> None:
    folder.mkdir(parents=True)
    entries = []
    for number, first in enumerate(range(0, arguments.images, arguments.rows)):
        rng, size = np.random.default_rng(number), min(arguments.rows, arguments.images - first)
        pids = rng.integers(0, arguments.images // IMAGES, size)
        paths = np.array([f"city/{first + row:09d}.jpg" for row in range(size)], dtype=object)
        matrix = make(rng, pids, arguments.width).astype(np.float16)
        columns = Columns(pids, rng.integers(0, 100, size), paths, None, {})
        entries.append(entry(number, size, *write_shard(folder, number, matrix, columns)))
    write_manifest(folder, entries, rows=arguments.rows, width=arguments.width, dtype="float16")


def write_queries(file: Path, size: int, seed: int, arguments: argparse.Namespace) -> None:
    rng = np.random.default_rng(seed)
    pids = rng.integers(0, arguments.images // IMAGES, size)
    paths = np.array([f"query/{row}.jpg" for row in range(size)], dtype=object)
    matrix = make(rng, pids, arguments.width)
    feature_files.write(file, Features(matrix, pids, np.zeros(size, dtype=np.int64), paths), {}, dtype="float32")


if __name__ == "__main__":
    main()
