"""Time and memory of evaluation and re-ranking, relative to the bare matrix product of the same features.

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python tests/benchmarks/retrieval.py market msmt17 distractors
    ... --rerank market msmt17          re-ranking (at MSMT17 size: about a minute on a quiet machine)
    ... --repeats 1 msmt17-2048         MSMT17 at the width of ResNet-50's last map: 0.8 GB of features
    ... --torch                         torch's product as well
    ... --offset 30                     features far from the origin, which have to be centred

Each size runs in a process of its own. Ratios are of neighbouring measurements, the median of `--repeats`; memory is
the peak of the process minus the features. Features are synthetic: Gaussian clusters, one per identity.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import numpy as np

from ptlreid.records import DISTRACTOR
from ptlreid.retrieval.distance import Blocks, distance_blocks
from ptlreid.retrieval.memory_plan import plan_blocks
from ptlreid.retrieval.metrics import score
from ptlreid.retrieval.protocols import find_protocol
from ptlreid.retrieval.rerank import rerank_blocks
from ptlreid.retrieval.types import Features, Retrieval, Scores

_BLOCK = 1024


@dataclass(frozen=True)
class Size:
    queries: int
    gallery: int
    distractors: int
    identities: int
    cameras: int
    width: int
    noise: float


SIZES = {
    "market": Size(3_368, 15_913, 2_798, 750, 6, 2_048, 2.7),
    "msmt17": Size(11_659, 82_161, 0, 3_060, 15, 512, 1.9),
    "msmt17-2048": Size(11_659, 82_161, 0, 3_060, 15, 2_048, 1.9),
    "distractors": Size(3_368, 515_913, 502_798, 750, 6, 512, 1.7),
}


def make_features(rows: int, size: Size, seed: int, distractors: int = 0) -> Features:
    """Features of `rows` images, filled block by block, so that no other memory is needed."""
    centres = np.random.default_rng(0).standard_normal((size.identities + 1, size.width), dtype=np.float32)
    rng = np.random.default_rng(seed)
    pids = rng.integers(1, size.identities + 1, rows)
    pids[rng.permutation(rows)[:distractors]] = DISTRACTOR
    matrix = np.empty((rows, size.width), dtype=np.float32)
    for start in range(0, rows, _BLOCK):
        block = matrix[start : start + _BLOCK]
        rng.standard_normal(out=block, dtype=np.float32)
        block *= size.noise
        labels = pids[start : start + _BLOCK]
        block[labels >= 0] += centres[labels[labels >= 0]]
        block[labels == DISTRACTOR] *= np.sqrt(1 + size.noise**-2)  # as long as the others
    return Features(matrix, pids, rng.integers(1, size.cameras + 1, rows), np.full(rows, "", dtype=object))


def product(query: np.ndarray, gallery: np.ndarray) -> None:
    """The matrix product in blocks, which every exact evaluation needs."""
    for start in range(0, len(query), _BLOCK):
        query[start : start + _BLOCK] @ gallery.T


def torch_product(query: np.ndarray, gallery: np.ndarray) -> None:
    import torch

    left, right = torch.from_numpy(query), torch.from_numpy(gallery)
    for start in range(0, len(query), _BLOCK):
        left[start : start + _BLOCK] @ right.T


def peak_bytes() -> int:
    """The peak memory of the process since the last `reset_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM: this benchmark needs Linux")


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def measure(function: Callable[[], object]) -> tuple[float, float]:
    """Wall time, and CPU time, which depends less on other processes; in seconds."""
    wall, cpu = perf_counter(), process_time()
    function()
    return perf_counter() - wall, process_time() - cpu


def compare(
    name: str, function: Callable[[], object], base: Callable[[], object], repeats: int, features_bytes: int
) -> None:
    """Prints the time of `function` relative to `base`, measured alternately, and its memory on top of the features."""
    seconds, ratios, cpu_ratios, peaks = [], [], [], []
    for _ in range(repeats):
        base_wall, base_cpu = measure(base)
        reset_peak()
        wall, cpu = measure(function)
        peaks.append(peak_bytes())
        seconds.append(wall)
        ratios.append(wall / base_wall)
        cpu_ratios.append(cpu / base_cpu)
    print(
        f"  {name:<12} {median(seconds):7.2f} s   {median(ratios):5.2f} x product in wall time "
        f"({min(ratios):.2f} to {max(ratios):.2f}), {median(cpu_ratios):5.2f} in CPU time   "
        f"{(max(peaks) - features_bytes) / 1e6:6.0f} MB above the features",
        flush=True,
    )


def run(name: str, options: argparse.Namespace) -> None:
    size = SIZES[name]
    query = make_features(size.queries, size, 1)
    gallery = make_features(size.gallery, size, 2, size.distractors)
    query.matrix[...] += options.offset
    gallery.matrix[...] += options.offset
    retrieval = Retrieval(query, gallery, find_protocol("market"))
    features_bytes = query.matrix.nbytes + gallery.matrix.nbytes
    planned = plan_blocks(len(query), len(gallery), size.width, None).peak_bytes
    print(f"{name}: {len(query)} x {len(gallery)}, width {size.width}, {features_bytes / 1e6:.0f} MB of features")
    print(f"  planned: {planned / 1e6:.0f} MB")

    def base() -> None:
        product(query.matrix, gallery.matrix)

    base()
    compare("product", base, base, options.repeats, features_bytes)
    if 4 * len(query) * len(gallery) < 4e9:
        compare("all at once", lambda: query.matrix @ gallery.matrix.T, base, 1, features_bytes)
    if options.torch:
        compare("torch", lambda: torch_product(query.matrix, gallery.matrix), base, options.repeats, features_bytes)
    compare("blocks", lambda: [None for _ in euclidean_blocks(retrieval)], base, options.repeats, features_bytes)
    compare("evaluate", lambda: evaluate(retrieval, euclidean_blocks(retrieval)), base, options.repeats, features_bytes)
    print(f"  mAP {evaluate(retrieval, euclidean_blocks(retrieval)).mean_ap:.3f}")
    if options.rerank:
        compare("re-ranking", lambda: evaluate_reranked(retrieval), base, 1, features_bytes)


def euclidean_blocks(retrieval: Retrieval) -> Blocks:
    return distance_blocks(retrieval, metric="euclidean", memory_budget=None)


def evaluate(retrieval: Retrieval, blocks: Blocks) -> Scores:
    return score(retrieval, blocks, ap="step", single_shot_samples=None, seed=0)


def evaluate_reranked(retrieval: Retrieval) -> None:
    blocks = rerank_blocks(retrieval, k1=20, k2=6, weight=0.3, memory_budget=None)
    print(f"  re-ranked mAP {evaluate(retrieval, blocks).mean_ap:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", choices=[*SIZES, []], default=["market", "msmt17", "distractors"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rerank", action="store_true")
    parser.add_argument("--offset", type=float, default=0)
    parser.add_argument("--torch", action="store_true")
    options = parser.parse_args()
    if len(options.sizes) == 1:
        run(options.sizes[0], options)
        return
    flags = [argument for argument in sys.argv[1:] if argument not in SIZES]
    for name in options.sizes:
        subprocess.run([sys.executable, __file__, name, *flags], check=True)


if __name__ == "__main__":
    main()
