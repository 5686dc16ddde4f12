"""`ptlreid finetune`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptlreid.cli import console, options
from ptlreid.errors import CheckpointError
from ptlreid.settings import FinetuneSettings

if TYPE_CHECKING:
    from ptlreid.runs import RunFolder


def finetune(
    data: options.Data = None,
    backbone: options.Backbone = None,
    ptl: Annotated[bool | None, options.option(FinetuneSettings, "ptl", "--ptl/--no-ptl")] = None,
    memory: Annotated[str | None, options.option(FinetuneSettings, "memory")] = None,
    init: options.Init = None,
    recipe: options.Recipe = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    lr: Annotated[float | None, options.option(FinetuneSettings, "lr")] = None,
    amp: Annotated[str | None, options.option(FinetuneSettings, "amp")] = None,
    seed: options.Seed = None,
    height: Annotated[int | None, options.option(FinetuneSettings, "height", hidden=True)] = None,
    width: Annotated[int | None, options.option(FinetuneSettings, "width", hidden=True)] = None,
    optimizer: Annotated[str | None, options.option(FinetuneSettings, "optimizer", hidden=True)] = None,
    workers: Annotated[int | None, options.option(FinetuneSettings, "workers", hidden=True)] = None,
    name: options.Name = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Only continue: a run that was not begun is an error.")
    ] = False,
    config: options.ConfigFile = None,
    root: options.Root = None,
    runs: options.Runs = Path("runs"),
    device: options.Device = None,
    json: options.Json = False,
    dry_run: options.DryRun = False,
) -> None:
    """Fine-tune a network on a dataset, with BConv-Cells (PTL) unless --no-ptl.

    The same command again continues a run that was stopped, and reuses one that is finished. Every other setting, such
    as height, width, workers, loss and schedule, is a line in the TOML file of --config.
    """
    settings = options.settings(FinetuneSettings, locals())

    from ptlreid import datasets
    from ptlreid.runs import RunFolder, init_digests
    from ptlreid.workflows import finetune as workflow

    _check_names(settings)
    run = RunFolder(runs / (name or settings.default_name))
    if resume:
        _check_begun(run)
    splits = datasets.load(settings.data, Path(settings.root))
    if dry_run:
        found = workflow.dry_run(settings, splits, run, console.Reporter())
        console.show_plan(found if json else _readable(found), as_json=json)
        return
    depends = init_digests(settings.init, runs)
    metrics = workflow.finetune(settings, splits, run, console.Reporter(), depends=depends)
    if json:
        console.show_json(metrics)
        return
    scores = metrics if "mAP" in metrics else None
    console.show_scores(f"{run.path.name} on {splits.name} (protocol {splits.protocol})", {"last epoch": scores})
    console.say(f"Run folder: {run.path}")


def _check_names(settings: FinetuneSettings) -> None:
    """Raise `OptionError` for a backbone or a loss that there is not; imports neither."""
    from ptlreid import losses, models, plugins

    if settings.backbone not in models.names():
        raise plugins.unknown_name("backbone", settings.backbone, models.names())
    if settings.loss not in plugins.names(losses):
        raise plugins.unknown_name("loss", settings.loss, plugins.names(losses))


def _check_begun(run: RunFolder) -> None:
    if not (run.checkpoint.is_file() or run.finished):
        raise CheckpointError(
            f"{run.path} holds no checkpoint to --resume. Leave --resume out to begin the run there, or name another "
            "with --name and --runs."
        )


def _readable(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The plan with sizes that a person can read, and what is missing from it."""
    sizes = {name: f"{size / 2**20:,.0f} MiB" for name, size in plan["memory_bytes"].items()}
    told = {**plan, "memory": sizes, "time": plan["time"] or "not known: one batch needs more memory than is free"}
    del told["memory_bytes"]
    return told
