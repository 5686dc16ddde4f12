"""`ptlreid transfer-chain`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptlreid.cli import console
from ptlreid.cli.options import DryRun, Given, Json, Runs, from_settings
from ptlreid.cli.seeds import MEAN, Seeds, add_seeds, name_of_seed, resolve_seeds
from ptlreid.settings import ChainSettings

if TYPE_CHECKING:
    from ptlreid.transfer.chain_folder import ChainFolder

_NUMBERS = ("scores", "forward_transfer", "forgetting")  # of a chain's result


@from_settings(ChainSettings, recipe=True)
def transfer_chain(
    given: Given,
    chain: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATA...", help="Datasets in order; market+duke is one stage, lobby:unlabelled an adaptation."
        ),
    ] = None,
    *,
    seeds: Seeds = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Chain folder.", show_default="chain-data-backbone-method-seed"),
    ] = None,
    runs: Runs = Path("runs"),
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Fine-tune one network on several datasets in order, and evaluate it on all after each.

    Each stage has its own run folder. Stages that another chain has trained are reused; the same command again resumes
    an interrupted chain. A dataset whose name ends in :unlabelled is adapted to, as by `ptlreid adapt`. With --seeds
    there is a chain folder per seed, and one table of means. Settings of a single stage go into a [[stage]] table of
    the --config file: see docs/transfer.md.

    Examples:
      ptlreid transfer-chain duke market msmt17
      ptlreid transfer-chain market duke --backbone densenet161 --std
      ptlreid transfer-chain duke market --seeds 0-2
      ptlreid transfer-chain market lobby:unlabelled
    """
    every = resolve_seeds(given, ChainSettings, seeds, console.Reporter(), chain=chain)

    from ptlreid.distributed import process_group
    from ptlreid.transfer.chain_folder import ChainFolder
    from ptlreid.workflows import chain as workflow

    pairs = [(one, ChainFolder.named(runs, name_of_seed(name, seeds, one.seed), one)) for one in every]
    if dry_run:
        plans = [workflow.dry_run(*pair) for pair in pairs]
        return _show_plans(every, plans, as_json=json, many=seeds is not None)
    with process_group(every[0].device):
        workflow.check_all(pairs)
        results = [workflow.run_chain(one, folder, console.Reporter()) for one, folder in pairs]
    _show(every, results, [folder for _, folder in pairs], many=seeds is not None, as_json=json)


def _show(
    every: Sequence[ChainSettings],
    results: Sequence[Mapping[str, Any]],
    folders: Sequence[ChainFolder],
    *,
    many: bool,
    as_json: bool,
) -> None:
    """Print the matrix of the chain, or of `many` the mean and the standard deviation of their matrices."""
    from ptlreid.retrieval.seeds import mean_and_sd

    mean, sd = mean_and_sd([{key: one[key] for key in _NUMBERS} for one in results])
    if as_json:
        spread = {"runs": add_seeds(every, results), "mean": mean, "sd": sd}
        return console.show_json(spread if many else results[0])
    title = folders[0].path.name
    if many:
        title = f"{title.removesuffix(f'-s{every[0].seed}')}, {MEAN} of {len(every)} seeds"
    _show_matrix(f"{title}: mAP / CMC-1 in percent", results[0], mean, sd)
    for folder in folders:
        console.say(f"Forward transfer and forgetting are differences of mAP. All figures: {folder.result}")


def _show_plans(
    every: Sequence[ChainSettings], plans: Sequence[Mapping[str, Any]], *, as_json: bool, many: bool
) -> None:
    if as_json:
        return console.show_json({"runs": add_seeds(every, plans)} if many else plans[0])
    for plan in plans:
        _show_plan(plan)


def _show_plan(plan: Mapping[str, Any]) -> None:
    rows = []
    for one in plan["trainings"]:
        run = one["run"] or f"{one['data']} {one['method']}, named once it can start"
        rows.append([run, str(one["epochs"]), one["state"]])
    console.show_rows(str(plan["chain"]), ("run", "epochs", "state"), rows)
    if plan["missing"]:
        console.say(f"Missing datasets, for `ptlreid prepare`: {', '.join(plan['missing'])}")


def _show_matrix(title: str, result: Mapping[str, Any], mean: Mapping[str, Any], sd: Mapping[str, Any]) -> None:
    """Print the scores of each stage on each dataset; `result` names them."""

    def cell(mean: Mapping[str, Any], sd: Mapping[str, Any]) -> str:
        return " / ".join(
            console.mean_text(*pair) for pair in ((mean["mAP"], sd["mAP"]), (mean["cmc"]["1"], sd["cmc"]["1"]))
        )

    rows = [
        [name, *map(cell, *cells)] for name, *cells in zip(result["rows"], mean["scores"], sd["scores"], strict=True)
    ]
    for what in ("forward_transfer", "forgetting"):
        pairs = [(mean[what][name], sd[what][name]) for name in result["data"]]
        rows.append(
            [what.replace("_", " "), *("" if pair[0] is None else console.mean_text(*pair, sign="+") for pair in pairs)]
        )
    console.show_rows(title, ("after", *result["data"]), rows)
