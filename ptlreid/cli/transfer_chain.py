"""`ptlreid transfer-chain`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ptlreid.cli import console
from ptlreid.cli.options import DryRun, Given, Json, Runs, from_settings
from ptlreid.settings import ChainSettings


@from_settings(ChainSettings, recipe=True)
def transfer_chain(
    given: Given,
    chain: Annotated[
        list[str] | None, typer.Argument(metavar="DATA...", help="Datasets in order; market+duke is one stage.")
    ] = None,
    *,
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
    an interrupted chain. Settings of a single stage go into a [[stage]] table of the --config file: see
    docs/transfer.md.

    Examples:
      ptlreid transfer-chain duke market msmt17
      ptlreid transfer-chain market duke --backbone densenet161 --std
    """
    settings = given.resolve(ChainSettings, chain=chain, progress=console.Reporter())

    from ptlreid.transfer.chain_folder import ChainFolder
    from ptlreid.workflows import chain as workflow

    folder = ChainFolder.named(runs, name, settings)
    if dry_run:
        _show_plan(workflow.dry_run(settings, folder), as_json=json)
        return
    result = workflow.run_chain(settings, folder, console.Reporter())
    if json:
        console.show_json(result)
        return
    _show_matrix(f"{folder.path.name}: mAP / CMC-1 in percent", result)
    console.say(f"Forward transfer and forgetting are differences of mAP. All figures: {folder.result}")


def _show_plan(plan: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        console.show_json(plan)
        return
    rows = []
    for one in plan["trainings"]:
        run = one["run"] or f"{one['data']} {one['method']}, named once it can start"
        rows.append([run, str(one["epochs"]), one["state"]])
    console.show_rows(str(plan["chain"]), ("run", "epochs", "state"), rows)
    if plan["missing"]:
        console.say(f"Missing datasets, for `ptlreid prepare`: {', '.join(plan['missing'])}")


def _show_matrix(title: str, result: Mapping[str, Any]) -> None:
    rows = [
        [name, *(f"{100 * cell['mAP']:.1f} / {100 * cell['cmc']['1']:.1f}" for cell in cells)]
        for name, cells in zip(result["rows"], result["scores"], strict=True)
    ]
    for what in ("forward_transfer", "forgetting"):
        values = [result[what][name] for name in result["data"]]
        rows.append([what.replace("_", " "), *("" if value is None else f"{100 * value:+.1f}" for value in values)])
    console.show_rows(title, ("after", *result["data"]), rows)
