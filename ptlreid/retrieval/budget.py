"""How many queries are ranked together, so that evaluation stays within a memory budget."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from ptlreid.errors import OptionError

_STRIP_BYTES = 640 << 20  # keys of one strip at most, so that a million gallery images stay within a gigabyte
_STRIP_ROWS = (64, 512)  # fewer are slow to multiply, more are no faster
_TILE_COLUMNS = 16_384  # smaller calls spend their time on starting and joining the BLAS's threads
_BYTES_PER_GALLERY_IMAGE = 96  # weights, order by pid, and what ranking one row takes
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

    Fewer `rows` than a strip make it slower, each halving about twice, never different. Raises `OptionError` for a
    stated budget that is too small even for one row; without one, the least is taken.
    """
    fewest, most = _STRIP_ROWS
    strip = min(num_queries, max(fewest, min(most, _STRIP_BYTES // (4 * num_gallery) // fewest * fewest)))
    columns = math.ceil(num_gallery / math.ceil(num_gallery / _TILE_COLUMNS))  # tiles of equal size

    def needed(rows: int) -> int:
        scratch = strip * columns if rows < strip else 0
        lengths = min(num_gallery, 128) * width
        return 4 * (rows * num_gallery + scratch + lengths) + _BYTES_PER_GALLERY_IMAGE * num_gallery

    budget = min(_DEFAULT_LIMIT, free_memory() // 4) if memory_budget is None else memory_budget
    rows = strip
    while rows > 1 and needed(rows) > budget:
        rows //= 2
    if memory_budget is not None and needed(rows) > memory_budget:
        raise OptionError(
            f"A memory budget of {memory_budget} bytes is too small for {num_queries} queries and {num_gallery} "
            f"gallery images. Give at least {needed(1)} bytes, or none to use a share of the free memory."
        )
    return Plan(strip, columns, rows, needed(rows))


def free_memory() -> int:
    """Bytes that can be had without swapping: Linux's own estimate, elsewhere half of the memory built in."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
