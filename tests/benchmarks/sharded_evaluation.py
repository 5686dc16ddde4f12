"""Time and memory of an evaluation in shards of made-up features, by one process and by two, and of the bare product.

    OMP_NUM_THREADS=1 python tests/benchmarks/sharded_evaluation.py FOLDER --images 2000000 --queries 1000 --turns 3

The shards are written to FOLDER if it does not exist yet. One process, two processes and the product take turns. Each
evaluation starts processes of its own, so that their memory is that of nothing else; its time begins when all have
joined, and ends with the scores.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))

from shard_folders import entry, write_manifest
from shards import multiply

from ptlreid import distributed
from ptlreid.progress import Silent
from ptlreid.retrieval import feature_files
from ptlreid.retrieval.protocols import PROTOCOLS
from ptlreid.retrieval.shard_files import Columns, write_shard
from ptlreid.retrieval.shard_scores import ShardRetrieval, score_shards
from ptlreid.retrieval.shards import Shards
from ptlreid.retrieval.types import Features

_SPREAD = (0.6, 1.6)  # length of what differs from the mean of an identity: some matches are as far as other images


def main() -> None:
    """Write the shards, then print the median of each measurement and the ratios of neighbouring ones."""
    arguments = parse()
    if arguments.evaluate:
        evaluate(arguments)
        return
    if not arguments.folder.exists():
        write(arguments)
    shards = Shards.open(arguments.folder)
    seconds: dict[str, list[float]] = {"product": [], "one process": [], "two processes": []}
    memory: dict[str, list[int]] = {"one process": [], "two processes": []}
    scores = set()
    for _ in range(arguments.turns):
        seconds["product"].append(multiply(shards, arguments.queries))
        for size, name in enumerate(memory, start=1):
            found = start(arguments, size)
            seconds[name].append(max(one["seconds"] for one in found))
            memory[name].append(max(one["bytes"] for one in found))
            scores |= {one["scores"] for one in found}
    for name, values in seconds.items():
        print(f"{name}: median {median(values):.2f} s of {', '.join(f'{value:.2f}' for value in values)}")
    one, two, product = (np.array(seconds[name]) for name in ("one process", "two processes", "product"))
    print(f"one process over two: median {median(one / two):.2f} of {np.round(one / two, 2).tolist()}")
    print(f"one process over the product: median {median(one / product):.2f} of {np.round(one / product, 2).tolist()}")
    print(f"peak memory of a process: {', '.join(f'{name} {max(memory[name]) / 1e6:.0f} MB' for name in memory)}")
    print(f"scores: {scores}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=2_000_000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--evaluate", action="store_true")
    return parser.parse_args()


def write(arguments: argparse.Namespace) -> None:
    """An identity for each query, with 2 to 20 images in random places of the gallery; all others have none of them."""
    arguments.folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    centres = _normalize(rng.standard_normal((arguments.queries, arguments.width)))
    pids = np.repeat(np.arange(arguments.queries), rng.integers(2, 21, arguments.queries))
    labels = np.full(arguments.images, 10**6)
    labels[rng.choice(arguments.images, len(pids), replace=False)] = pids
    entries = []
    for number, first in enumerate(range(0, arguments.images, arguments.rows)):
        part = labels[first : first + arguments.rows]
        paths = np.array([f"city/{first + row:09d}.jpg" for row in range(len(part))], dtype=object)
        matrix = _make(np.random.default_rng(number + 1), part, centres).astype(np.float16)
        columns = Columns(part, np.full(len(part), 1), paths, None, {})
        entries.append(entry(number, len(part), *write_shard(arguments.folder, number, matrix, columns)))
    write_manifest(arguments.folder, entries, rows=arguments.rows, width=arguments.width, dtype="float16")
    matrix = _make(np.random.default_rng(10**6), np.arange(arguments.queries), centres)
    paths = np.array([f"query/{row}.jpg" for row in range(arguments.queries)], dtype=object)
    query = Features(matrix, np.arange(arguments.queries), np.zeros(arguments.queries, dtype=np.int64), paths)
    feature_files.write(query_file(arguments), query, {}, dtype="float32")


def _make(rng: np.random.Generator, pids: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(N, D) float32, L2-normalised: around the mean of each identity, or anywhere."""
    matrix = _normalize(rng.standard_normal((len(pids), centres.shape[1]), dtype=np.float32))
    known = np.flatnonzero(pids < len(centres))
    spread = rng.uniform(*_SPREAD, len(known)).astype(np.float32)
    matrix[known] = _normalize(centres[pids[known]] + spread[:, None] * matrix[known])
    return matrix


def _normalize(matrix: np.ndarray) -> np.ndarray:
    return matrix / np.linalg.norm(matrix, axis=1)[:, None]


def query_file(arguments: argparse.Namespace) -> Path:
    return arguments.folder / "query.h5"


def start(arguments: argparse.Namespace, size: int) -> list[dict[str, float]]:
    """What each of so many processes of one evaluation reports."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(size)}
    processes = [
        subprocess.Popen(
            [sys.executable, *sys.argv, "--evaluate"],
            env=os.environ | places | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
        )
        for rank in range(size)
    ]
    return [json.loads(process.communicate()[0]) for process in processes]


def evaluate(arguments: argparse.Namespace) -> None:
    """One process of an evaluation."""
    query, shards = feature_files.read(query_file(arguments)), Shards.open(arguments.folder)
    retrieval = ShardRetrieval(query, shards, PROTOCOLS["market"])
    with distributed.process_group("cpu"):
        distributed.all_gather(None)
        began = time.perf_counter()
        scores = score_shards(retrieval, metric="euclidean", ap="step", memory_budget=None, progress=Silent())
        seconds = time.perf_counter() - began
    (peak,) = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
    print(json.dumps({"seconds": seconds, "bytes": int(peak) * 1024, "scores": f"mAP {scores.mean_ap:.6f}"}))


if __name__ == "__main__":
    main()
