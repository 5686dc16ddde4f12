"""Time and size of a report, for a run and a dataset of the size of Market-1501.

    python tests/benchmarks/report.py [FOLDER]

The images are synthetic, copied until there are as many as in Market-1501's test set. The features are random around a
direction for each identity, and are cached before the clock starts. FOLDER keeps everything for the next run.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ptlreid import datasets, models
from ptlreid.datasets import market, synthetic
from ptlreid.evaluation import load_retrieval
from ptlreid.features import Extractor
from ptlreid.models import weights
from ptlreid.network_types import NetworkSpec
from ptlreid.progress import Silent
from ptlreid.runs import RunFolder
from ptlreid.settings import FinetuneSettings, SyntheticSettings
from ptlreid.settings.report import ReportSettings
from ptlreid.workflows.report import write_report

IDENTITIES, QUERIES, TRUE, JUNK, DISTRACTORS = 750, 3368, 13_115, 3819, 2798
EPOCHS, STEPS, WIDTH = 50, 404, 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        run = RunFolder(folder / "runs" / "market-run")
        if not (folder / "data" / "market").is_dir():
            make_dataset(folder / "data")
        if not run.finished:
            make_run(run, folder / "data")
        settings = ReportSettings.resolve(None, root=str(folder / "data"), device="cpu")
        Extractor.stream = stream_features  # type: ignore[method-assign]
        splits = datasets.load("market", folder / "data")
        load_retrieval(run, splits, settings.evaluation(), Silent())
        began, cpu_began = time.perf_counter(), time.process_time()
        page = write_report([run], settings, Silent())
        seconds = time.perf_counter() - began
        cpu = time.process_time() - cpu_began  # does not depend on other processes
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{page}: {page.stat().st_size / 1e6:.2f} MB in {seconds:.1f} s ({cpu:.1f} s of this process's CPU time)")
        print(f"{peak:.2f} GB peak resident memory")


def make_dataset(root: Path) -> None:
    """A dataset in the layout of Market-1501, with as many test images of each kind."""
    synthetic.prepare(root / "synthetic", "a", SyntheticSettings.resolve(None))
    images = sorted((root / "synthetic").rglob("*.jpg"))
    rng = np.random.default_rng(0)
    kinds = {"query": rng.integers(1, IDENTITIES + 1, QUERIES), "bounding_box_train": rng.integers(751, 1502, 32)}
    pids = (rng.integers(1, IDENTITIES + 1, TRUE), np.full(JUNK, -1), np.zeros(DISTRACTORS, dtype=int))
    kinds["bounding_box_test"] = np.concatenate(pids)
    for name, numbers in kinds.items():
        (root / "market.part" / name).mkdir(parents=True)
        for row, pid in enumerate(numbers):
            file = f"{pid if pid < 0 else f'{pid:04d}'}_c{rng.integers(1, 7)}s1_{row:06d}_00.jpg"
            shutil.copyfile(images[rng.integers(len(images))], root / "market.part" / name / file)
    (root / "market.part").rename(root / "market")


def make_run(run: RunFolder, root: Path) -> None:
    """The folder of a run trained for as many epochs as in the paper, without training."""
    settings = FinetuneSettings.resolve(None, backbone="resnet18", init="none", height=256, width=128)
    run.claim(settings, datasets.load("market", root))
    spec = NetworkSpec("resnet18", True, "slot", 751, 256, 128)
    weights.save(models.build(spec, 0), spec, run.weights())
    rng = np.random.default_rng(0)
    with run.history.open("w", encoding="utf-8") as file:
        for epoch in range(EPOCHS):
            for step in range(STEPS):
                file.write(json.dumps({"kind": "step", "epoch": epoch, "step": step, **_step(epoch, rng)}) + "\n")
            scores = {"mAP": 0.7 - 0.6 / (epoch + 1), "mINP": 0.3, "cmc": {"1": 0.8, "5": 0.9, "10": 0.95}}
            cell = {"state_norm": 5.0, "input": 0.5, "forget": 0.6, "output": 0.5}
            values = {"cells": {f"cells.{number}": cell for number in range(5)}, **scores}
            file.write(json.dumps({"kind": "epoch", "epoch": epoch + 1, **values}) + "\n")
    run.metrics.write_text(json.dumps({"run": "market-run", "epochs": EPOCHS, **scores}))


def stream_features(extractor: Extractor, paths: np.ndarray, *, start: int = 0, **_: Any) -> Iterator[np.ndarray]:
    """Replaces extraction: a direction for each identity, plus noise of six times its length."""
    centres = np.random.default_rng(1).normal(size=(IDENTITIES + 2, WIDTH)).astype(np.float32)
    for first in range(start, len(paths), 64):
        pids = np.array([market.parse_name(path.name)[0] for path in paths[first : first + 64]])
        noise = np.random.default_rng((2, first, len(paths))).normal(size=(len(pids), WIDTH))
        yield (centres[pids] + 6 * noise).astype(np.float32)


def _step(epoch: int, rng: np.random.Generator) -> dict[str, Any]:
    loss = float(6 / (epoch + 1) + rng.exponential(0.3))
    speed = {"images": 32, "images_per_second": 200.0, "wait": 0.01, "memory": 10**9}
    return {"loss": loss, "terms": {"ce": loss}, "lr": 0.01 * 0.1 ** (epoch // 10), **speed}


if __name__ == "__main__":
    main()
