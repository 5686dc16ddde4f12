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
    command again resumes an interrupted run, and reuses a finished one. With --seeds, a * in --run stands for the seed.

    Examples:
      ptlreid adapt --run market-resnet50-ptl-s0 --data lobby
      ptlreid adapt --run market-resnet50-ptl-s0 --data lobby --method cameras
      ptlreid adapt --run market-resnet50-ptl-s0 --data duke:unlabelled
      ptlreid adapt --run market-resnet50-ptl-s0 --data lobby --with market
    """
    from ptlreid import datasets
    from ptlreid.distributed import process_group
    from ptlreid.retrieval.seeds import summarize_seeds
    from ptlreid.runs import name_run
    from ptlreid.workflows import adapt as workflow

    progress = console.Reporter()
    every = _resolve(given, seeds, runs)
    pairs = [(one, name_run(runs, name_of_seed(name, seeds, one.seed), one)) for one in every]
    splits = datasets.load(every[0].data, Path(every[0].root))
    if dry_run:
        return _show_plans([workflow.dry_run(one, splits, run, progress) for one, run in pairs], as_json=json)
    with process_group(every[0].device):
        workflow.check_all(pairs, splits)
        results = [workflow.adapt(one, splits, run, progress) for one, run in pairs]
    if json:
        return console.show_json(summarize_seeds(add_seeds(every, results)) if seeds else results[0])
    if splits.has_test:
        _show(f"{every[0].method} on {splits.name} (protocol {splits.protocol})", every, results)
    else:
        trained = any(one["epochs"] for one in results)
        kept = "after the last epoch" if trained else "of the run, with the statistics of the site"
        console.say(f"{splits.name} has no test set: no scores. The weights are those {kept}.")
    console.show_folders(run.path for _, run in pairs)


def _resolve(given: Given, seeds: str | None, runs: Path) -> list[AdaptSettings]:
    """The settings of each seed; a `*` in --run stands for the seed."""
    from ptlreid.adapt.source import resolve_settings

    found = []
    for values in seed_values(given, seeds):
        name = given.resolve(AdaptSettings, **values).run
        source: dict[str, Any] = {"run": name.replace("*", str(values["seed"]))} if seeds and name else {}
        found.append(resolve_settings(partial(given.resolve, AdaptSettings, **values, **source), runs))
    return found


def _show(title: str, every: Sequence[AdaptSettings], results: Sequence[Mapping[str, Any]]) -> None:
    """Print the scores before and after, of several seeds with their means."""
    from ptlreid.retrieval.seeds import summarize_seeds

    before = [one["before"] for one in results]
    if len(results) > 1:
        groups = {
            label: summarize_seeds(add_seeds(every, rows)) for label, rows in (("before", before), ("after", results))
        }
        show_seeds(title, groups)
    else:
        console.show_scores(title, {f"before: {every[0].run}": before[0], f"after: {results[0]['run']}": results[0]})
    if sum(one["mAP"] for one in results) <= sum(one["mAP"] for one in before):
        console.say("No improvement: mAP is no higher than before.")


def _show_plans(plans: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    if as_json:
        return console.show_json(plans[0] if len(plans) == 1 else {"runs": plans})
    for plan in plans:
        show_training_plan(plan)
