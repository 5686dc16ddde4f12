"""Work on the rows of a large array by several threads: NumPy lets go of the interpreter inside its long loops."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

MAX_THREADS = min(4, os.cpu_count() or 1)  # more wait for memory
_FEWEST_ROWS = 32


def over_rows(function: Callable[[slice], None], num_rows: int) -> None:
    """Calls `function` with slices that cover the rows 0 .. `num_rows` once, at the same time; it raises as they do.

    The result must not depend on where the slices end: `function` writes each row's result for itself.
    """
    num_parts = max(1, min(MAX_THREADS, num_rows // _FEWEST_ROWS))
    parts = [slice(num_rows * part // num_parts, num_rows * (part + 1) // num_parts) for part in range(num_parts)]
    if num_parts == 1:
        function(parts[0])
        return
    with ThreadPoolExecutor(num_parts) as pool:
        list(pool.map(function, parts))
