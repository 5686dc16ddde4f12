"""`ptlreid demo`: the whole way on a small scale, from drawn images to three scores."""

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


def run_demo(config: DemoSettings, runs: Path, progress: Progress) -> dict[str, dict[str, Any]]:
    """The metrics of the untrained network, of the plain backbone and of PTL, by name.

    Three run folders below `runs`; what is there already from the same settings is reused.
    """
    splits = _draw(config, progress)
    return {
        "untrained": _run("demo-untrained", config, splits, runs, progress, epochs=0),
        "baseline": _run("demo-baseline", config, splits, runs, progress, ptl=False),
        "PTL": _run("demo-ptl", config, splits, runs, progress),
    }


def _draw(config: DemoSettings, progress: Progress) -> Splits:
    """The drawn dataset: the one below the root, if no number of identities is asked for."""
    found = datasets.find(DATA)
    folder = found.folders(Path(config.root))[0]
    if config.identities is None and folder.is_dir():
        progress.note(f"{folder}: reused")
    else:
        settings = SyntheticSettings.resolve(None, identities=config.identities)
        if not found.module.prepare(folder, found.variant, settings, progress):
            progress.note(f"{folder}: reused")
    return datasets.load(DATA, Path(config.root))


def _run(
    name: str, config: DemoSettings, splits: Splits, runs: Path, progress: Progress, **changed: Any
) -> dict[str, Any]:
    """The metrics of one small network, from scratch; `changed` is what sets it apart from the PTL run."""
    settings: dict[str, Any] = {
        "data": DATA,
        "root": config.root,
        "backbone": "resnet18",
        "init": "none",
        "height": 128,
        "width": 64,
        "epochs": config.epochs,
        # Not the paper's recipe, which is for weights that know ImageNet: from scratch in a minute, AdamW and small
        # batches get several times as far.
        "optimizer": "adamw",
        "lr": 5e-4,
        "weight_decay": 0.01,
        "batch_size": 16,
        "decay_every": max(1, round(0.7 * config.epochs)),
        "evaluate_every": 0,
        "seed": config.seed,
        "device": config.device,
    }
    return finetune(FinetuneSettings.resolve(None, **settings | changed), splits, RunFolder(runs / name), progress)
