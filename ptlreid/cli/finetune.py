"""`ptlreid finetune`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptlreid.cli import console
from ptlreid.cli.options import DryRun, Json, Name, Runs, from_settings
from ptlreid.errors import CheckpointError
from ptlreid.settings import FinetuneSettings

if TYPE_CHECKING:
    from ptlreid.runs import RunFolder


@from_settings(FinetuneSettings, recipe=True)
def finetune(
    settings: FinetuneSettings,
    *,
    name: Name = None,
    resume: Annotated[bool, typer.Option("--resume", help="Only resume a run, never start one.")] = False,
    runs: Runs = Path("runs"),
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Fine-tune a network on a dataset, with BConv-Cells (PTL) unless --no-ptl.

    The same command again resumes an interrupted run, and reuses a finished one.

    Examples:
      ptlreid finetune --data market --backbone densenet161
      ptlreid finetune --data market --backbone mgn --device 0
      ptlreid finetune --data duke --init market-resnet50-ptl-s0 --lr 0.001
    """
    from ptlreid import datasets
    from ptlreid.models.pretrained import init_digests
    from ptlreid.runs import name_run
    from ptlreid.workflows import finetune as workflow

    run = name_run(runs, name, settings)
    if resume:
        _require_checkpoint(run)
    depends = init_digests(settings.init, runs)
    splits = datasets.load(settings.data, Path(settings.root))
    if dry_run:
        plan = workflow.dry_run(settings, splits, run, console.Reporter())
        too_large = "one batch needs more memory than is free. Choose a smaller --batch-size, with more --accumulate"
        time = plan["time"] or f"unknown: {too_large}"
        console.show_plan(plan if json else {**plan, "time": time}, as_json=json)
        if plan["time"] and not json:
            console.say(_describe_moment(plan["time"]))
        return
    metrics = workflow.finetune(settings, splits, run, console.Reporter(), depends=depends)
    if json:
        console.show_json(metrics)
        return
    scores = metrics if "mAP" in metrics else None
    console.show_scores(f"{run.path.name} on {splits.name} (protocol {splits.protocol})", {"last epoch": scores})
    console.say(f"Run folder: {run.path}")


def _describe_moment(time: Mapping[str, Any]) -> str:
    """What the measured times hold for."""
    load = time["load_average"]
    shown = "" if load is None else f" (load average {load:g} on {time['cores']} cores)"
    return f"The times were measured at this moment, under the machine's present load{shown}."


def _require_checkpoint(run: RunFolder) -> None:
    if not (run.checkpoint.is_file() or run.finished):
        raise CheckpointError(
            f"{run.path} has no checkpoint to --resume. Leave --resume out to start the run there, or name another "
            "with --name and --runs."
        )
