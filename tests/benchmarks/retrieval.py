"""Time and memory of evaluation and re-ranking beside the bare matrix product of the same features, in one run.

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python tests/benchmarks/retrieval.py market msmt17 distractors
    ... --rerank market msmt17          re-ranking (at MSMT17 size: about a minute on a quiet machine)
    ... --torch                         torch's product, too

Each size runs in a process of its own. Ratios are of neighbouring measurements, the median of `--repeats`; memory is
the peak of the process less the features. Features are made: people scattered around centres, `--noise` as wide.
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

from ptlreid.retrieval.distance import blocks
from ptlreid.retrieval.memory_plan import plan
from ptlreid.retrieval.metrics import evaluate, evaluate_blocks
from ptlreid.retrieval.protocols import find
from ptlreid.retrieval.rerank import rerank
from ptlreid.retrieval.types import Features

MARKET = find("market")
_BLOCK = 1024


@dataclass(frozen=True)
class Size:
    queries: int
    gallery: int
    distractors: int
    people: int
    cameras: int
    width: int
    noise: float


SIZES = {
    "market": Size(3_368, 15_913, 2_798, 750, 6, 2_048, 2.7),
    "msmt17": Size(11_659, 82_161, 0, 3_060, 15, 512, 1.9),
    "distractors": Size(3_368, 515_913, 502_798, 750, 6, 512, 1.7),
}


def made(rows: int, size: Size, seed: int, distractors: int = 0) -> Features:
    """Features of `rows` images, filled in parts, so that making them takes no memory beside them."""
    centres = np.random.default_rng(0).standard_normal((size.people + 1, size.width), dtype=np.float32)
    rng = np.random.default_rng(seed)
    pids = rng.integers(1, size.people + 1, rows)
    pids[rng.permutation(rows)[:distractors]] = 0
    matrix = np.empty((rows, size.width), dtype=np.float32)
    for start in range(0, rows, _BLOCK):
        part = matrix[start : start + _BLOCK]
        rng.standard_normal(out=part, dtype=np.float32)
        part *= size.noise
        known = pids[start : start + _BLOCK]
        part[known > 0] += centres[known[known > 0]]
        part[known == 0] *= np.sqrt(1 + size.noise**-2)  # as long as the others
    return Features(matrix, pids, rng.integers(1, size.cameras + 1, rows), np.full(rows, "", dtype=object))


def product(query: np.ndarray, gallery: np.ndarray) -> None:
    """All products, in blocks that fit: what no exact evaluation does without."""
    for start in range(0, len(query), _BLOCK):
        query[start : start + _BLOCK] @ gallery.T


def torch_product(query: np.ndarray, gallery: np.ndarray) -> None:
    import torch

    left, right = torch.from_numpy(query), torch.from_numpy(gallery)
    for start in range(0, len(query), _BLOCK):
        left[start : start + _BLOCK] @ right.T


def peak_memory() -> int:
    """Bytes the process held at most since the last `forget_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM: this benchmark needs Linux")


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def timed(function: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of work by all cores, which neighbours disturb less."""
    clock, work = perf_counter(), process_time()
    function()
    return perf_counter() - clock, process_time() - work


def compare(name: str, function: Callable[[], object], base: Callable[[], object], repeats: int, held: int) -> None:
    """Prints `function` beside `base`, measured in turns, and the memory of `function` beside `held` bytes."""
    seconds, ratios, work_ratios, peaks = [], [], [], []
    for _ in range(repeats):
        base_clock, base_work = timed(base)
        forget_peak()
        clock, work = timed(function)
        peaks.append(peak_memory())
        seconds.append(clock)
        ratios.append(clock / base_clock)
        work_ratios.append(work / base_work)
    print(
        f"  {name:<12} {median(seconds):7.2f} s   {median(ratios):5.2f} x product by the clock "
        f"({min(ratios):.2f} to {max(ratios):.2f}), {median(work_ratios):5.2f} in work   "
        f"{(max(peaks) - held) / 1e6:6.0f} MB above the features",
        flush=True,
    )


def run(name: str, options: argparse.Namespace) -> None:
    size = SIZES[name]
    query, gallery = made(size.queries, size, 1), made(size.gallery, size, 2, size.distractors)
    held = query.matrix.nbytes + gallery.matrix.nbytes
    print(f"{name}: {len(query)} x {len(gallery)}, width {size.width}, {held / 1e6:.0f} MB of features")
    print(f"  planned: {plan(len(query), len(gallery), size.width).bytes / 1e6:.0f} MB")

    def base() -> None:
        product(query.matrix, gallery.matrix)

    base()
    compare("product", base, base, options.repeats, held)
    if 4 * len(query) * len(gallery) < 4e9:
        compare("all at once", lambda: query.matrix @ gallery.matrix.T, base, 1, held)
    if options.torch:
        compare("torch", lambda: torch_product(query.matrix, gallery.matrix), base, options.repeats, held)
    compare("blocks", lambda: [None for _ in blocks(query, gallery)], base, options.repeats, held)
    compare("evaluate", lambda: evaluate(query, gallery, MARKET), base, options.repeats, held)
    print(f"  mAP {evaluate(query, gallery, MARKET).mean_ap:.3f}")
    if options.rerank:
        compare("re-ranking", lambda: rerank_all(query, gallery), base, 1, held)


def rerank_all(query: Features, gallery: Features) -> None:
    print(f"  re-ranked mAP {evaluate_blocks(rerank(query, gallery), query, gallery, MARKET).mean_ap:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", choices=[*SIZES, []], default=list(SIZES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rerank", action="store_true")
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
