"""Work on the rows of a large array by several threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

MAX_THREADS = min(4, os.cpu_count() or 1)  # more only wait for memory
_FEWEST_ROWS = 32
_LONG_ROW = 40_000  # NumPy lets go of the interpreter inside a call; in a short row that costs more than it gains


def map_rows(function: Callable[[slice], None], num_rows: int, row_length: int) -> None:
    """Calls `function` with slices that cover the rows 0 .. `num_rows` once, at the same time where rows are long.

    What `function` raises is raised. Its result must not depend on where the slices end: it writes each row's result
    for itself. `row_length`: about how many numbers it works on in a row.
    """
    num_parts = min(MAX_THREADS, num_rows // _FEWEST_ROWS) if row_length >= _LONG_ROW else 1
    if num_parts <= 1:
        function(slice(0, num_rows))
        return
    parts = [slice(num_rows * part // num_parts, num_rows * (part + 1) // num_parts) for part in range(num_parts)]
    with ThreadPoolExecutor(num_parts) as pool:
        list(pool.map(function, parts))
