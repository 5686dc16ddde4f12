"""`ptlreid demo`: the whole pipeline on a small scale, from synthetic images to the scores of three networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ptlreid import datasets
from ptlreid.progress import Progress
from ptlreid.records import Splits
from ptlreid.runs import RunFolder
from ptlreid.settings import DemoSettings, FinetuneSettings, SyntheticSettings
from ptlreid.workflows.finetune import finetune

DATA = "synthetic"


def run_demo(settings: DemoSettings, runs: Path, progress: Progress) -> dict[str, dict[str, Any]]:
    """The metrics of the untrained network, of the plain backbone and of PTL, by name.

    Makes three run folders below `runs`; finished runs with the same settings are reused.
    """
    splits = _prepare(settings, progress)
    return {
        "untrained": _train("demo-untrained", settings, splits, runs, progress, epochs=0),
        "baseline": _train("demo-baseline", settings, splits, runs, progress, ptl=False),
        "PTL": _train("demo-ptl", settings, splits, runs, progress),
    }


def _prepare(settings: DemoSettings, progress: Progress) -> Splits:
    """The synthetic dataset, rendered if needed; an existing one is reused unless a number of identities is given."""
    dataset = datasets.find(DATA)
    folder = dataset.folders(Path(settings.root))[0]
    if settings.identities is None and folder.is_dir():
        progress.note(f"{folder}: reused")
    else:
        synthetic = SyntheticSettings.resolve(None, identities=settings.identities)
        if not dataset.module.prepare(folder, dataset.variant, synthetic, progress):
            progress.note(f"{folder}: reused")
    return datasets.load(DATA, Path(settings.root))


def _train(
    name: str, settings: DemoSettings, splits: Splits, runs: Path, progress: Progress, **changed: Any
) -> dict[str, Any]:
    """The metrics of a small network trained from scratch, with PTL unless `changed` turns it off."""
    values: dict[str, Any] = {
        "data": DATA,
        "root": settings.root,
        "backbone": "resnet18",
        "init": "none",
        "height": 128,
        "width": 64,
        "epochs": settings.epochs,
        # Not the paper's recipe, which starts from ImageNet weights: in a minute from scratch, AdamW and small batches
        # reach a much higher score.
        "optimizer": "adamw",
        "lr": 5e-4,
        "weight_decay": 0.01,
        "batch_size": 16,
        "decay_every": max(1, round(0.7 * settings.epochs)),
        "evaluate_every": 0,
        "seed": settings.seed,
        "device": settings.device,
    }
    return finetune(FinetuneSettings.resolve(None, **values | changed), splits, RunFolder(runs / name), progress)
