"""Rendering speed: synthetic images per second, with one process and with one per core.

Run: `python tests/benchmarks/synthetic.py [identities]`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from ptlreid.datasets._synthetic import SITES, render_site


def images_per_second(site: str, workers: int, identities: int) -> float:
    """Images of 128 x 64, from the call to the last file: the time includes starting and ending the processes."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        options = {"cameras": 6, "images_per_camera": 4, "height": 128, "width": 64, "seed": 0}
        render_site(SITES[site], Path(folder), identities=identities, processes=workers, **options)
        seconds = time.perf_counter() - start
        return sum(1 for _ in Path(folder).rglob("*.jpg")) / seconds


def main() -> None:
    """Print a line per site and number of processes."""
    identities = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    for site in SITES:
        for workers in sorted({1, os.cpu_count() or 1}):
            rate = images_per_second(site, workers, identities)
            sys.stdout.write(f"site {site}, {workers} process(es): {rate:.0f} images/s\n")


if __name__ == "__main__":
    main()
