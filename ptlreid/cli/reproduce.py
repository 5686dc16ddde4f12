"""`ptlreid reproduce`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ptlreid.cli import console
from ptlreid.cli.options import DryRun, Given, Json, Runs, from_settings
from ptlreid.cli.seeds import Seeds, resolve_seeds
from ptlreid.settings.reproduce import SCALES, ReproduceSettings, choose_rows, tables

_MACS_PER_SECOND = 1e13  # assumed in estimates of hours


@from_settings(ReproduceSettings)
def reproduce(
    given: Given,
    table: Annotated[str, typer.Argument(metavar="TABLE", help="Table of the paper, 1 to 6, or all.")],
    *,
    row: Annotated[
        list[str] | None, typer.Option("--row", metavar="NAME", help="Only rows of this name, or with it in theirs.")
    ] = None,
    seeds: Seeds = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another value of a setting of finetune, in all runs."),
    ] = None,
    runs: Runs = Path("runs"),
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Train the runs behind a table of the paper, and compare with the published figures.

    Rows with missing datasets list them. The same command again reuses finished runs and resumes the others. With
    --seeds, figures are means over seeds. Rows with --set are labelled, as they are not in the paper's setting.

    Examples:
      ptlreid reproduce 3 --row mgn+ptl --seeds 0-2
      ptlreid reproduce 1 --row resnet-50 --row resnet-50+ptl --set amp=off
      ptlreid reproduce all --dry-run
    """
    every = resolve_seeds(given, ReproduceSettings, seeds, console.Reporter())  # checks the device, too
    selected = choose_rows(tables(table), row or [])
    scale = replace(SCALES[every[0].scale], changes=change or [])

    from ptlreid.distributed import process_group
    from ptlreid.workflows import reproduce as workflow

    workflow.check(selected, every, scale)
    if dry_run:
        plan = workflow.dry_run(selected, every, runs, scale)
        return console.show_json(plan) if json else _show_plans(plan)
    progress = console.Reporter()
    with process_group(every[0].device):
        results = [workflow.reproduce(one, every, runs, scale, progress) for one in selected]
    if json:
        console.show_json({"tables": results})
        return
    for result in results:
        _show_result(result)


def _show_plans(plans: Mapping[str, Any]) -> None:
    for plan in plans["tables"]:
        _show_plan(plan)
    if len(plans["tables"]) > 1:
        total = f"All tables: {plans['trainings']} runs, each trained once. {_cost(plans['cost'])}"
        console.say(_label(plans["tables"][0], total))


def _show_plan(plan: Mapping[str, Any]) -> None:
    def say(text: str) -> None:
        console.say(_label(plan, text))

    say(f"Table {plan['table']}, {plan['title']}: {plan['trainings']} runs, each trained once")
    for row in plan["rows"]:
        say(f"{row['row']} [{_state(row)}]")
        for line in row.get("trainings", []):
            say(f"  {line}")
    say(_cost(plan["cost"]))


def _cost(cost: Mapping[str, Any] | None) -> str:
    """The cost of a plan in words."""
    if cost is None:
        return "The cost can be estimated once the datasets are prepared."
    if not cost["images"]:
        return "Nothing would be trained."
    hours = cost["macs"] / _MACS_PER_SECOND / 3600
    return (
        f"Cost of all runs: {_amount(cost['images'])} images (training images × epochs) × "
        f"{_amount(cost['macs'] / cost['images'])} multiply-adds (forward and backward) = {_amount(cost['macs'])}: "
        f"{f'{hours:,.1f} hours' if hours >= 1 else f'{60 * hours:.1f} minutes'} at "
        f"{_amount(_MACS_PER_SECOND)} per second."
    )


def _amount(number: float) -> str:
    for size, word in ((1e15, "quadrillion"), (1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:,.1f} {word}"
    return f"{number:,.0f}"


def _state(row: Mapping[str, Any]) -> str:
    if "cited" in row:
        return f"cited: {row['cited']}"
    if row["missing"]:
        return f"missing: {', '.join(row['missing'])}"
    return "finished" if row["finished"] else "to do"


def _show_result(result: Mapping[str, Any]) -> None:
    from ptlreid.environment import describe_environment

    compared = any("published" in row for row in result["rows"])
    columns = ("row", "mAP", "step mAP", "CMC-1", "AP", *(("published", "difference") if compared else ()))
    rows = [[_label(row, row["row"]), *_cells(row)][: len(columns)] for row in result["rows"]]
    title = _label(result, f"Table {result['table']}, {result['title']}, in percent")
    console.show_rows(title, columns, rows)
    trained: dict[str, list[str]] = {}  # on what, and the rows
    for row in result["rows"]:
        for run in row.get("runs", []):
            trained.setdefault(describe_environment(run), []).append(row["row"])
    for where, names in trained.items():
        of = "" if len(trained) == 1 else f" ({', '.join(dict.fromkeys(names))})"
        console.say(f"Trained on {where}{of}")


def _cells(row: Mapping[str, Any]) -> list[str]:
    """Measured mAP, by the step AP too, and CMC-1; the AP of the first; published figures; differences."""
    published, difference = row.get("published"), row.get("difference")
    target = f"{published['mAP']:.2f} / {published['cmc1']:.2f}" if published else ""
    if "cited" in row:
        return ["", "", "", "", target, f"cited: {row['cited']}"]
    if row["missing"]:
        return ["", "", "", row["ap"], target, f"missing: {', '.join(row['missing'])}"]
    measured = row["measured"]
    delta = f"{difference['mAP']:+.2f} / {difference['cmc1']:+.2f}" if difference else ""
    scores = [_mean(measured[name], row["sd"][name]) for name in ("mAP", "mAP_step", "cmc1")]
    return [*scores, row["ap"], target, delta]


def _mean(mean: float, sd: float | None) -> str:
    return f"{mean:.2f}" + ("" if sd is None else f" ± {sd:.2f}")


def _label(content: Mapping[str, Any], text: str) -> str:
    """The text, followed by the setting if that is not the paper's."""
    setting = content.get("setting", "paper")
    return text if setting == "paper" else f"{text} ({setting})"
