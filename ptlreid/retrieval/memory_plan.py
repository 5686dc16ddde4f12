"""How many queries are ranked together, so that evaluation stays within a memory budget."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

_STRIP_BYTES = 640 << 20  # keys of one strip at most, so that a million gallery images stay within a gigabyte
_STRIP_ROWS = (64, 1024)  # fewer are slow to multiply, more are no faster
_TILE_COLUMNS = 32_768  # smaller calls spend their time on starting and joining the BLAS's threads
_BYTES_PER_GALLERY_IMAGE = 96  # weights, order by pid, and what ranking one row takes
_BYTES_PER_RERANKED_IMAGE = 2048
SQUARED_ROWS = 128  # whose squares are held at once: a megabyte or so stays in the cache
_DEFAULT_LIMIT = 1 << 30


@dataclass(frozen=True)
class Plan:
    """Block sizes. Products are made of `strip` queries and `columns` gallery images, whatever the budget;
    the keys of `rows` queries, at most a strip, are held at once. `bytes`: needed in all, beside the features.
    """

    strip: int
    columns: int
    rows: int
    bytes: int


def plan(num_queries: int, num_gallery: int, width: int, memory_budget: int | None = None) -> Plan:
    """The largest blocks within `memory_budget` bytes; None means a quarter of the free memory, at most 1 GiB.

    Fewer `rows` than a strip make it slower, each halving about twice, and change no number. A budget below the least
    that is possible (about 134 MB, and 96 bytes for each gallery image) gets the least: see `bytes`.
    """
    fewest, most = _STRIP_ROWS
    strip = max(fewest, min(most, _STRIP_BYTES // (4 * num_gallery)))
    strip = math.ceil(num_queries / math.ceil(num_queries / strip))  # equal parts leave no small remainder
    columns = math.ceil(num_gallery / math.ceil(num_gallery / _TILE_COLUMNS))

    def needed(rows: int) -> int:
        scratch = strip * columns if rows < strip else 0
        squares = min(num_gallery, SQUARED_ROWS) * width
        return 4 * (rows * num_gallery + scratch + squares) + _BYTES_PER_GALLERY_IMAGE * num_gallery

    budget = min(_DEFAULT_LIMIT, free_memory() // 4) if memory_budget is None else memory_budget
    choices = [max(1, strip >> halvings) for halvings in range(strip.bit_length())]
    rows = next((rows for rows in choices if needed(rows) <= budget), min(choices, key=needed))
    return Plan(strip, columns, rows, needed(rows))


@dataclass(frozen=True)
class Estimate:
    """Bytes that an evaluation takes beside the program: the features, the blocks of keys, and what re-ranking adds.

    `ranking` is the least that works where the budget is below it.
    """

    features: int
    ranking: int
    reranking: int

    @property
    def total(self) -> int:
        return self.features + self.ranking + self.reranking


def estimate(
    num_queries: int, num_gallery: int, width: int, *, rerank: bool = False, memory_budget: int | None = None
) -> Estimate:
    """What ranking `num_gallery` images for each of `num_queries` takes, both 1 or more."""
    together = num_queries + num_gallery
    features = 4 * together * width
    if not rerank:
        return Estimate(features, plan(num_queries, num_gallery, width, memory_budget).bytes, 0)
    # Neighbours are looked for among all; a copy of length 1, and each image's neighbours and encoding.
    ranking = plan(together, together, width, memory_budget).bytes
    return Estimate(features, ranking, features + _BYTES_PER_RERANKED_IMAGE * together)


def free_memory() -> int:
    """Bytes that can be had without swapping: Linux's own estimate, elsewhere half of the memory built in."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
