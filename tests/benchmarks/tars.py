"""Time and memory of finding the images in a large tar file, next to Python's `tarfile`, and of reading them by path.

    python tests/benchmarks/tars.py FOLDER --images 1000000

The tar file is made in FOLDER (3.6 GB for a million members of 3,000 random bytes) and left there for the next run.
"""

from __future__ import annotations

import argparse
import os
import resource
import tarfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from ptlreid.datasets._loose_images import find_loose_images
from ptlreid.tar_members import OpenTar, open_content

_BYTES = 3000
_READ = 20_000


def make_tar(path: Path, images: int) -> None:
    content = os.urandom(_BYTES) + bytes(-_BYTES % 512)
    with path.open("wb") as stream:
        for number in range(images):
            info = tarfile.TarInfo(f"{number:08d}.jpg")
            info.size = _BYTES
            stream.write(info.tobuf(tarfile.USTAR_FORMAT) + content)
        stream.write(bytes(1024))


def measure(what: str, function: Callable[[], Any], count: int) -> Any:
    """What the function returns, with its times printed."""
    wall, cpu = perf_counter(), process_time()
    result = function()
    wall, cpu = perf_counter() - wall, process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    each = 1e6 / count
    print(
        f"{what}: {wall:.1f} s ({wall * each:.1f} us each), CPU {cpu:.1f} s ({cpu * each:.1f} us), peak {peak:.2f} GB"
    )
    return result


def scan(path: Path, members: int) -> None:
    """The first members, by `tarfile`, without keeping them."""
    with tarfile.open(path) as tar:
        for _ in range(members):
            tar.next()
            tar.members.clear()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1_000_000)
    given = parser.parse_args()
    path = given.folder / f"{given.images}.tar"
    if not path.exists():
        make_tar(path, given.images)
    print(f"load average {os.getloadavg()[0]:.1f}")
    measure("index", lambda: OpenTar(path), given.images).__exit__()
    measure(f"tarfile, {given.images // 10} of them", lambda: scan(path, given.images // 10), given.images // 10)
    rows = np.random.default_rng(0).integers(0, given.images, _READ).tolist()
    measure("read in random order", lambda: [open_content(path / f"{row:08d}.jpg") for row in rows], _READ)
    images = measure(
        "list as a source", lambda: find_loose_images([str(path)], layout="files", pattern=None), given.images
    )
    assert len(images.records) == given.images


if __name__ == "__main__":
    main()
