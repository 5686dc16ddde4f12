"""`ptlreid compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptlreid.cli import console, options
from ptlreid.settings.evaluate import CompareSettings


def compare(
    names: Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="Runs: each is compared with the first.")],
    data: Annotated[str | None, options.option(CompareSettings, "data")] = None,
    protocol: Annotated[str | None, options.option(CompareSettings, "protocol")] = None,
    weights: Annotated[str | None, options.option(CompareSettings, "weights")] = None,
    metric: Annotated[str | None, options.option(CompareSettings, "metric")] = None,
    rerank: Annotated[bool | None, options.option(CompareSettings, "rerank", "--rerank/--no-rerank")] = None,
    bootstrap: Annotated[int | None, options.option(CompareSettings, "bootstrap")] = None,
    seed: Annotated[int | None, options.option(CompareSettings, "seed")] = None,
    config: options.ConfigFile = None,
    root: options.Root = None,
    runs: options.Runs = Path("runs"),
    device: options.Device = None,
    workers: options.Workers = None,
    json: options.Json = False,
) -> None:
    """Tell whether runs differ by more than chance: which people are in the test set.

    Differences of mAP and CMC-1 by query, with 95% intervals from a paired bootstrap over people. What another seed of
    training would change is not in them.
    """
    settings = options.settings(CompareSettings, locals())

    from ptlreid.distributed import process_group
    from ptlreid.runs import find_run
    from ptlreid.workflows.compare import compare as workflow

    with process_group(settings.device):
        result = workflow([find_run(runs, name) for name in names], settings, console.Reporter())
    if json:
        console.show_json(result)
        return
    console.show_scores(f"{result['data']} ({result['protocol']})", {one["run"]: one for one in result["runs"]})
    for one in result["differences"]:
        for name, found in (("mAP", one["mAP"]), ("CMC-1", one["cmc"]["1"])):
            low, high = found["interval"]
            console.say(
                f"{Path(one['run']).name} against {Path(one['against']).name}: {name} {100 * found['difference']:+.1f} "
                f"({100 * low:+.1f} to {100 * high:+.1f}), {found['verdict']}."
            )
