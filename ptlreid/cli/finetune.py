"""`ptlreid finetune`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptlreid.cli import console
from ptlreid.cli.options import DryRun, Given, Json, Name, Runs, from_settings
from ptlreid.cli.plans import show_training_plan
from ptlreid.cli.seeds import Seeds, add_seeds, name_of_seed, resolve_seeds, show_seeds
from ptlreid.errors import CheckpointError
from ptlreid.settings import FinetuneSettings

if TYPE_CHECKING:
    from ptlreid.runs import RunFolder


@from_settings(FinetuneSettings, recipe=True)
def finetune(
    given: Given,
    *,
    seeds: Seeds = None,
    name: Name = None,
    resume: Annotated[bool, typer.Option("--resume", help="Only resume a run, never start one.")] = False,
    runs: Runs = Path("runs"),
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Fine-tune a network on a dataset, with BConv-Cells (PTL) unless --no-ptl.

    The same command again resumes an interrupted run, and reuses a finished one. With --seeds there is a run per seed:
    --name plain --seeds 0-4 trains plain-s0 to plain-s4.

    Examples:
      ptlreid finetune --data market --backbone densenet161
      ptlreid finetune --data market --backbone mgn --device 0
      ptlreid finetune --data market --no-ptl --seeds 0-4
      ptlreid finetune --data duke --init market-resnet50-ptl-s0 --lr 0.001
    """
    from ptlreid import datasets
    from ptlreid.distributed import process_group
    from ptlreid.models.pretrained import init_digests
    from ptlreid.retrieval.seeds import summarize_seeds
    from ptlreid.runs import name_run
    from ptlreid.workflows import finetune as workflow

    every = resolve_seeds(given, FinetuneSettings, seeds, console.Reporter())
    settings, progress = every[0], console.Reporter()
    pairs = [(one, name_run(runs, name_of_seed(name, seeds, one.seed), one)) for one in every]
    for _, run in pairs if resume else ():
        _require_checkpoint(run)
    depends = init_digests(settings.init, runs)
    splits = datasets.load(settings.data, Path(settings.root))
    if dry_run:
        return _show_plans(workflow.dry_run_all(pairs, splits, progress, depends), many=seeds is not None, as_json=json)
    with process_group(settings.device):
        workflow.check_all(pairs, splits, depends)
        results = [workflow.finetune(one, splits, run, progress, depends=depends) for one, run in pairs]
    found = summarize_seeds(add_seeds(every, results)) if seeds else results[0]
    if json:
        return console.show_json(found)
    where = f"on {splits.name} (protocol {splits.protocol})"
    if seeds:
        show_seeds(f"{settings.backbone} {settings.method} {where}", {"": found})
    else:
        console.show_scores(f"{pairs[0][1].path.name} {where}", {"last epoch": found})
    console.show_folders(run.path for _, run in pairs)


def _show_plans(plans: Sequence[Mapping[str, Any]], *, many: bool, as_json: bool) -> None:
    """Print the plan of the first run, and the folders of the others, which differ in their seed only."""
    if as_json:
        return console.show_json({"runs": plans} if many else plans[0])
    plan, *others = plans
    show_training_plan(plan)
    for one in others:
        console.say(f"The same for seed {one['settings']['seed']}: run = {one['run']}")


def _require_checkpoint(run: RunFolder) -> None:
    if not (run.checkpoint.is_file() or run.finished):
        raise CheckpointError(
            f"{run.path} has no checkpoint to --resume. Leave --resume out to start the run there, or name another "
            "with --name and --runs."
        )
