"""`ptlreid finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ptlreid.cli import console, options
from ptlreid.config import FinetuneConfig


def finetune(
    data: options.Data = None,
    backbone: options.Backbone = None,
    ptl: Annotated[bool | None, options.option(FinetuneConfig, "ptl", "--ptl/--no-ptl")] = None,
    memory: Annotated[str | None, options.option(FinetuneConfig, "memory")] = None,
    init: options.Init = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    height: options.Height = None,
    width: options.Width = None,
    optimizer: Annotated[str | None, options.option(FinetuneConfig, "optimizer")] = None,
    lr: Annotated[float | None, options.option(FinetuneConfig, "lr")] = None,
    seed: options.Seed = None,
    name: options.Name = None,
    config: options.ConfigFile = None,
    root: options.Root = None,
    runs: options.Runs = Path("runs"),
    device: options.Device = None,
    workers: options.Workers = None,
    json: options.Json = False,
    dry_run: options.DryRun = False,
) -> None:
    """Fine-tune a network on a data set, with BConv-Cells (PTL) unless --no-ptl.

    The same command again continues a run that was stopped, and reuses one that is finished.
    """
    settings = options.settings(FinetuneConfig, locals())

    from ptlreid import datasets, models, plugins
    from ptlreid.runs import RunFolder
    from ptlreid.workflows import finetune as workflow

    if settings.backbone not in models.names():
        raise plugins.unknown("backbone", settings.backbone, models.names())
    splits = datasets.load(settings.data, Path(settings.root))
    run = RunFolder(runs / (name or settings.default_name))
    if dry_run:
        settings = workflow.sized(settings)
        run.check(settings, splits)
        plan = {
            "run": str(run.path),
            "settings": settings.model_dump(),
            "train": {"images": len(splits.train), "identities": splits.train.num_identities},
            "steps": settings.epochs * len(workflow.batches(settings, splits)),
        }
        console.show_plan(plan, as_json=json)
        return
    metrics = workflow.finetune(settings, splits, run, console.Reporter())
    if json:
        console.show_json(metrics)
        return
    scores = metrics if "mAP" in metrics else None
    console.show_scores(f"{run.path.name} on {splits.name} ({splits.protocol})", {"last epoch": scores})
    console.say(f"Run folder: {run.path}")
