"""`ptlreid transfer-chain`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ptlreid.cli import console, options
from ptlreid.settings import ChainSettings


def transfer_chain(
    chain: Annotated[
        list[str] | None, typer.Argument(metavar="DATA...", help="Datasets in order; market+duke is one step.")
    ] = None,
    backbone: options.Backbone = None,
    ptl: Annotated[bool | None, options.option(ChainSettings, "ptl", "--ptl/--no-ptl")] = None,
    memory: Annotated[str | None, options.option(ChainSettings, "memory")] = None,
    std: Annotated[bool | None, options.option(ChainSettings, "std", "--std/--no-std")] = None,
    lambda_: Annotated[float | None, options.option(ChainSettings, "lambda_", "--lambda")] = None,
    init: options.Init = None,
    recipe: options.Recipe = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    seed: options.Seed = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the chain's folder.", show_default="from data, backbone, method, seed")
    ] = None,
    config: options.ConfigFile = None,
    root: options.Root = None,
    runs: options.Runs = Path("runs"),
    device: options.Device = None,
    workers: options.Workers = None,
    json: options.Json = False,
    dry_run: options.DryRun = False,
) -> None:
    """Fine-tune one network on several datasets in a row, and score it on all of them after each.

    Each stage is a run folder of its own. Stages that another chain has trained are reused; the same command again
    continues a chain that was stopped. Settings of single stages stand in the --config file: docs/transfer.md.
    """
    given = {key: value for key, value in locals().items() if key in ChainSettings.model_fields}
    settings = ChainSettings.resolve(config, recipe=recipe, chain=chain, **given)

    from ptlreid.transfer.chain_folder import ChainFolder
    from ptlreid.workflows import chain as workflow

    folder = ChainFolder(runs / (name or settings.default_name))
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
        console.say(f"Missing, to be made with `ptlreid prepare`: {', '.join(plan['missing'])}")


def _show_matrix(title: str, result: Mapping[str, Any]) -> None:
    rows = [
        [name, *(f"{100 * cell['mAP']:.1f} / {100 * cell['cmc']['1']:.1f}" for cell in cells)]
        for name, cells in zip(result["rows"], result["scores"], strict=True)
    ]
    for what in ("forward_transfer", "forgetting"):
        values = [result[what][name] for name in result["data"]]
        rows.append([what.replace("_", " "), *("" if value is None else f"{100 * value:+.1f}" for value in values)])
    console.show_rows(title, ("after", *result["data"]), rows)
