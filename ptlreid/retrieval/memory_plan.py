"""Block sizes of an evaluation within its memory budget."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

_STRIP_BYTES = 640 << 20  # limit for the keys of a strip, so that a million gallery images stay within a gigabyte
_STRIP_ROWS = (64, 1024)  # fewer are slow to multiply, more are no faster
_TILE_COLUMNS = 32_768  # smaller calls spend their time on starting and joining the BLAS's threads
_BYTES_PER_GALLERY_IMAGE = 96  # weights, order by pid, and the ranking of one row
_BYTES_PER_RERANKED_IMAGE = 2048
SQUARED_ROWS = 128  # squared, or converted to float64, at a time: a megabyte or two, which stay in the CPU cache
_DEFAULT_LIMIT_BYTES = 1 << 30


@dataclass(frozen=True)
class BlockPlan:
    """Block sizes. Products are made of `strip` queries and `columns` gallery images, whatever the budget; the keys of
    `rows` queries, at most a strip, are held at once. `peak_bytes`: in total, besides the features.
    """

    strip: int
    columns: int
    rows: int
    peak_bytes: int


def plan_blocks(num_queries: int, num_gallery: int, width: int, memory_budget: int | None) -> BlockPlan:
    """The largest blocks within `memory_budget` bytes; None means a quarter of the free memory, at most 1 GiB.

    Results are the same for any `rows`, but each halving below a strip takes about twice the time. A budget below the
    smallest peak (about 150 MB at width 2,048, and 96 bytes per gallery image) gives the plan with that peak.
    """
    fewest, most = _STRIP_ROWS
    strip = max(fewest, min(most, _STRIP_BYTES // (4 * num_gallery)))
    strip = math.ceil(num_queries / math.ceil(num_queries / strip))  # equal parts leave no small remainder
    columns = math.ceil(num_gallery / math.ceil(num_gallery / _TILE_COLUMNS))
    copied_bytes = 4 * width * (strip + 6 * min(max(num_queries, num_gallery), SQUARED_ROWS))
    fixed_bytes = copied_bytes + _BYTES_PER_GALLERY_IMAGE * num_gallery
    budget = min(_DEFAULT_LIMIT_BYTES, free_memory_bytes() // 4) if memory_budget is None else memory_budget
    plans = []
    for halvings in range(strip.bit_length()):
        rows = max(1, strip >> halvings)
        scratch = strip * columns if rows < strip else 0
        plans.append(BlockPlan(strip, columns, rows, 4 * (rows * num_gallery + scratch) + fixed_bytes))
        if plans[-1].peak_bytes <= budget:
            return plans[-1]
    return min(plans, key=lambda plan: plan.peak_bytes)


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes needed by an evaluation: the features, the blocks of keys, and the extra of re-ranking.

    `ranking_bytes` is the smallest possible where the budget is below it.
    """

    features_bytes: int
    ranking_bytes: int
    reranking_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.features_bytes + self.ranking_bytes + self.reranking_bytes


def estimate_memory(
    num_queries: int, num_gallery: int, width: int, *, rerank: bool, memory_budget: int | None
) -> MemoryEstimate:
    """The memory for ranking `num_gallery` images for each of `num_queries`, both 1 or more."""
    num_images = num_queries + num_gallery
    features_bytes = 4 * num_images * width
    if not rerank:
        return MemoryEstimate(features_bytes, plan_blocks(num_queries, num_gallery, width, memory_budget).peak_bytes, 0)
    # Neighbours are searched among all images; re-ranking adds a normalised copy, and each image's neighbours and code.
    ranking_bytes = plan_blocks(num_images, num_images, width, memory_budget).peak_bytes
    return MemoryEstimate(features_bytes, ranking_bytes, features_bytes + _BYTES_PER_RERANKED_IMAGE * num_images)


def free_memory_bytes() -> int:
    """Memory available without swapping: Linux's own estimate, elsewhere half of the installed memory."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
