"""Images per second of a graph in its runtime and of the same graph in torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

SIZES = (1, 8, 32)
_ROUNDS = 3

Run = Callable[[np.ndarray], object]


def measure_speed(runs: Mapping[str, Run], images: np.ndarray) -> list[dict[str, float]]:
    """Images per second by the name of each run, for batches of `SIZES`: the fastest of three rounds that alternate.

    `images`: (B, H, W, 3) uint8, repeated where they are too few.
    """
    found = []
    for size in SIZES:
        batch = images[np.arange(size) % len(images)]
        seconds = _fastest([partial(run, batch) for run in runs.values()])
        found.append({"batch": size} | {name: size / one for name, one in zip(runs, seconds, strict=True)})
    return found


def _fastest(calls: Sequence[Callable[[], object]]) -> list[float]:
    """The least seconds of each call; the first call of each is not timed."""
    best = [float("inf")] * len(calls)
    for round_ in range(_ROUNDS + 1):
        for place, call in enumerate(calls):
            start = time.perf_counter()
            call()
            if round_:
                best[place] = min(best[place], time.perf_counter() - start)
    return best
