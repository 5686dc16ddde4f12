"""`ptlreid adapt`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ptlreid.cli import console
from ptlreid.cli.options import DryRun, Given, Json, Name, Runs, from_settings
from ptlreid.cli.plans import show_training_plan
from ptlreid.cli.seeds import Seeds, add_seeds, name_of_seed, seed_values, show_seeds
from ptlreid.settings import AdaptSettings


@from_settings(AdaptSettings)
def adapt(
    given: Given,
    *,
    seeds: Seeds = None,
    name: Name = None,
    runs: Runs = Path("runs"),
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Adapt a finished run to the images of other cameras, without identities.

    First, statistics of each camera are taken from the unlabelled training images. Then, unless --method cameras ends
    there, each epoch clusters their features and trains on the clusters. The result is a run of its own. The same
    command again resumes an interrupted run, and reuses a finished one.

    Examples:
      ptlreid adapt --run market-resnet50-ptl-s0 --data lobby
      ptlreid adapt --run market-resnet50-ptl-s0 --data lobby --method cameras
      ptlreid adapt --run market-resnet50-ptl-s0 --data duke:unlabelled
      ptlreid adapt --run market-resnet50-ptl-s0 --data lobby --with market
    """
    from ptlreid import datasets
    from ptlreid.adapt.source import resolve_settings
    from ptlreid.distributed import process_group
    from ptlreid.retrieval.seeds import summarize_seeds
    from ptlreid.runs import name_run
    from ptlreid.workflows import adapt as workflow

    progress = console.Reporter()
    every = [
        resolve_settings(partial(given.resolve, AdaptSettings, **values), runs) for values in seed_values(given, seeds)
    ]
    first = every[0]
    pairs = [(one, name_run(runs, name_of_seed(name, seeds, one.seed), one)) for one in every]
    splits = datasets.load(first.data, Path(first.root))
    if dry_run:
        plans = [workflow.dry_run(one, splits, run, progress) for one, run in pairs]
        return _show_plans(plans, as_json=json)
    with process_group(first.device):
        workflow.check_all(pairs, splits)
        results = [workflow.adapt(one, splits, run, progress) for one, run in pairs]
    found = summarize_seeds(add_seeds(every, results)) if seeds else results[0]
    if json:
        return console.show_json(found)
    title = f"{first.backbone} {first.method} on {splits.name} (protocol {splits.protocol})"
    if not splits.has_test:
        console.say(f"{splits.name} has no labelled test set: no scores. The weights are those of the last epoch.")
    elif seeds:
        show_seeds(title, {"": found})
    else:
        console.show_scores(title, {f"before: {first.run}": found["before"], f"after: {pairs[0][1].path.name}": found})
        if found["mAP"] <= found["before"]["mAP"]:
            console.say("No improvement: the adapted run scores no higher than the run it comes from.")
    console.show_folders(run.path for _, run in pairs)


def _show_plans(plans: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    if as_json:
        return console.show_json(plans[0] if len(plans) == 1 else {"runs": plans})
    for plan in plans:
        show_training_plan(plan)
