"""How fast images are read: training batches per second of one process, over bare JPEG decoding of the same files.

    OMP_NUM_THREADS=1 python tests/benchmarks/loader.py [FOLDER]

FOLDER holds a dataset in Market-1501's layout; without one, a synthetic site is rendered. Decoding, loading from files
and loading from a pack are measured in turn on the same images, in seconds of this process. The minimum of each
counts, as other work on the machine only adds.
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
    """Open and decode every file, and do nothing with it."""
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
    given = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        if given is None:
            given = place / "synthetic"
            synthetic.prepare(given, "a", SyntheticSettings.resolve(None))
        for name in ("files", "packed"):  # the same images twice, by links: one of the two gets packs
            (place / name).mkdir()
            for part in ("bounding_box_train", "query", "bounding_box_test"):
                (place / name / part).symlink_to((given / part).resolve())
        for height, width in ((128, 64), (256, 128), (384, 128)):
            compare(place, TrainView(height, width, flip=0.5, pad=0, erase=0.0))


def compare(place: Path, view: TrainView) -> None:
    """Print the speed of each way, and its ratio to bare decoding, for one view."""
    packed = datasets.find(str(place / "packed"))
    pack(packed, place / "packed", PackSettings(height=view.height, width=view.width), Silent())
    files, pixels = (fill_batches(datasets.load(str(place / name), place).train) for name in ("files", "packed"))
    ways: dict[str, Callable[[], None]] = {
        "decoded": lambda: decode(files),
        "loaded": lambda: load(files, view),
        "loaded from the pack": lambda: load(pixels, view),
    }
    seconds = dict.fromkeys(ways, float("inf"))
    for _ in range(REPEATS):
        for name, work in ways.items():
            began = time.process_time()
            work()
            seconds[name] = min(seconds[name], time.process_time() - began)
    rates = (f"{name} {len(files) / least:,.0f} ({seconds['decoded'] / least:.2f})" for name, least in seconds.items())
    print(f"{view.height}×{view.width}, images a second: {', '.join(rates)}")


def fill_batches(records: Records) -> Records:
    """As many of the records as fill whole batches."""
    return records.select(np.arange(len(records) // BATCH * BATCH))


if __name__ == "__main__":
    main()
