"""Loading speed: training images per second in one process, relative to bare JPEG decoding of the same files.

    OMP_NUM_THREADS=1 python tests/benchmarks/loader.py [FOLDER]

FOLDER holds a dataset in Market-1501's layout; without one, a synthetic site is rendered. Decoding, loading from files
and loading from a pack are measured in turn on the same images, in seconds of this process. The minimum of each
counts, as other work on the machine only adds time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ptlreid import datasets
from ptlreid.datasets import synthetic
from ptlreid.images import load_batches
from ptlreid.progress import Silent
from ptlreid.records import Records
from ptlreid.samplers import ShuffleSampler
from ptlreid.settings import SyntheticSettings
from ptlreid.settings.prepare import PackSettings
from ptlreid.views import TrainView
from ptlreid.workflows.pack import pack

REPEATS, BATCH = 15, 32


def decode(records: Records) -> None:
    """Open and decode every file, nothing else."""
    for path in records.paths:
        with Image.open(path) as image:
            image.load()


def load(records: Records, view: TrainView) -> None:
    """Load every image as the training loop does."""
    for _ in load_batches(records.paths, view, ShuffleSampler(len(records), BATCH, 0).epoch(0), workers=0):
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    source = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if source is None:
            source = folder / "synthetic"
            synthetic.prepare(source, "a", SyntheticSettings.resolve(None))
        for name in ("files", "packed"):  # the same images twice, by links: one of the two gets packs
            (folder / name).mkdir()
            for part in ("bounding_box_train", "query", "bounding_box_test"):
                (folder / name / part).symlink_to((source / part).resolve())
        for height, width in ((128, 64), (256, 128), (384, 128)):
            compare(folder, TrainView(height, width, crop=0.0, flip=0.5, pad=0, erase=0.0))


def compare(folder: Path, view: TrainView) -> None:
    """Print the speed of each method, and its ratio to bare decoding, for one view."""
    packed = datasets.find(str(folder / "packed"))
    pack(packed, folder / "packed", PackSettings(height=view.height, width=view.width), Silent())
    files, pixels = (fill_batches(datasets.load(str(folder / name), folder).train) for name in ("files", "packed"))
    methods: dict[str, Callable[[], None]] = {
        "decoded": lambda: decode(files),
        "loaded": lambda: load(files, view),
        "loaded from the pack": lambda: load(pixels, view),
    }
    seconds = dict.fromkeys(methods, float("inf"))
    for _ in range(REPEATS):
        for name, method in methods.items():
            began = time.process_time()
            method()
            seconds[name] = min(seconds[name], time.process_time() - began)
    rates = (f"{name} {len(files) / least:,.0f} ({seconds['decoded'] / least:.2f})" for name, least in seconds.items())
    print(f"{view.height}×{view.width}, images per second: {', '.join(rates)}")


def fill_batches(records: Records) -> Records:
    """The records without those of the last, incomplete batch."""
    return records.select(np.arange(len(records) // BATCH * BATCH))


if __name__ == "__main__":
    main()
