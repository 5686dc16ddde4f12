"""How fast images are read: training batches per second of one process, over bare JPEG decoding of the same files.

    python tests/benchmarks/loader.py [FOLDER]

FOLDER holds a data set in Market-1501's layout; without one, a synthetic site is drawn. Both are measured in turn on
the same files in this process, and the ratio of the medians is what counts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from ptlreid import datasets
from ptlreid.config import SyntheticConfig
from ptlreid.datasets import synthetic
from ptlreid.images import load_batches
from ptlreid.records import Records
from ptlreid.samplers import Shuffled
from ptlreid.views import TrainView

REPEATS, BATCH = 7, 32


def decode(records: Records) -> None:
    """Open and decode every file, and do nothing with it."""
    for path in records.paths:
        with Image.open(path) as image:
            image.load()


def load(records: Records, view: TrainView) -> None:
    """Every file as the training loop gets it."""
    for _ in load_batches(records, view, Shuffled(len(records), BATCH, 0).epoch(0), seed=(0, 0)):
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "synthetic-a"
        if options.folder is None:
            synthetic.prepare(folder, "a", SyntheticConfig.resolve(None))
        train = datasets.load(str(folder), folder).train
        records = train.select(np.arange(len(train) // BATCH * BATCH))
        for size in ((128, 64), (256, 128), (384, 128)):
            compare(records, TrainView(*size))


def compare(records: Records, view: TrainView) -> None:
    """Print the speed of both and their ratio for one view."""
    seconds: dict[str, list[float]] = {"decode": [], "load": []}
    for _ in range(REPEATS + 1):
        for name, work in (("decode", lambda: decode(records)), ("load", lambda: load(records, view))):
            began = time.process_time()  # seconds of this process: what another one does on the core does not count
            work()
            seconds[name].append(time.process_time() - began)
    bare, loaded = (len(records) / median(seconds[name][1:]) for name in ("decode", "load"))
    print(f"{view.height}×{view.width}: {loaded:.0f} images/s loaded, {bare:.0f} decoded, ratio {loaded / bare:.2f}")


if __name__ == "__main__":
    main()
