"""Time of a second search, from the start of the process to its answer, in a gallery whose features are known.

    python tests/benchmarks/search.py                        100,000 images, 512-d, in a feature file
    python tests/benchmarks/search.py --images 20000 --folder   in a folder of images, with a run

Features are synthetic. With --folder, images are copies of one crop with a number behind its end, and their features
are put into the run's cache as an extraction would. Wall time and CPU time are medians of --repeats; the work before is
not measured.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from PIL import Image

from ptlreid import cache, models
from ptlreid.features import Extractor
from ptlreid.models import weights
from ptlreid.models.weights import read_weights_header
from ptlreid.network_types import NetworkSpec
from ptlreid.progress import Silent
from ptlreid.retrieval import feature_files
from ptlreid.retrieval.types import Features
from ptlreid.runs import RunFolder
from ptlreid.settings import SearchSettings
from ptlreid.workflows.image_sets import find_image_sets

_CAMERAS = 6


def make_features(paths: list[str], width: int, seed: int) -> Features:
    matrix = np.random.default_rng(seed).standard_normal((len(paths), width), dtype=np.float32)
    names = np.empty(len(paths), dtype=object)
    names[:] = paths
    rows = np.arange(len(paths))
    return Features(matrix, rows // 10, rows % _CAMERAS, names)


def prepare_file(images: int, width: int) -> list[str]:
    """The command of a search in a feature file, in the current folder."""
    feature_files.write(
        Path("g.h5"), make_features([f"{row}.jpg" for row in range(images)], width, 0), {}, dtype="float32"
    )
    query = make_features(["query.jpg"], width, 1)
    np.savez("q.npz", features=query.matrix, pids=query.pids, camids=query.camids)
    return ["--features", "q.npz", "--gallery", "g.h5"]


def prepare_folder(images: int, width: int) -> list[str]:
    """The command of a search in a folder, after a first search."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 64, 3), dtype=np.uint8)).save(
        "crop.jpg", quality=60
    )
    content = Path("crop.jpg").read_bytes()
    for row in range(images):
        file = Path("gallery", f"cam{row % _CAMERAS}", f"{row // 100:05d}", f"{row:06d}.jpg")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content + str(row).encode())
    run = RunFolder(Path("runs", "r"))
    run.path.mkdir(parents=True)
    run.config.write_text('data = "none"\n')
    spec = NetworkSpec("resnet18", True, "slot", 4, 128, 64, feature_width=width)
    weights.save(models.build(spec, seed=0), spec, run.weights())
    settings = SearchSettings.resolve(None, device="cpu")
    (found,) = find_image_sets(["gallery"], run, settings, Silent(), parts=["gallery"])
    extractor = Extractor.from_weights(read_weights_header(run.weights()), settings)
    features = make_features(list(map(str, found.records.paths)), width, 0)
    cache.write_copy(found.cache, features, cache.fingerprint(extractor, found.records, "float32"))
    return ["crop.jpg", "--run", "r", "--gallery", "gallery", "--device", "cpu"]


def measure(command: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of one search."""
    before, began = os.times(), perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "ptlreid", "search", *command, "--json"], capture_output=True, text=True, check=False
    )
    wall, after = perf_counter() - began, os.times()
    assert done.returncode == 0, done.stderr
    used = sum(getattr(after, name) - getattr(before, name) for name in ("children_user", "children_system"))
    return wall, used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", action="store_true")
    given = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path.cwd())
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PYTHONPYCACHEPREFIX"] = str(Path(folder, "bytecode"))  # which an installed program has, too
        os.chdir(folder)
        command = (prepare_folder if given.folder else prepare_file)(given.images, given.width)
        measure(command)
        walls, used = zip(*(measure(command) for _ in range(given.repeats)), strict=True)
    spread = f"{min(walls):.2f} to {max(walls):.2f} s"
    print(f"{' '.join(command)}: {median(walls):.2f} s wall ({spread}), {median(used):.2f} s CPU")


if __name__ == "__main__":
    main()
