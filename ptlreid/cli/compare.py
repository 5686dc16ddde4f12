"""`ptlreid compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptlreid.cli import console
from ptlreid.cli.options import Json, Runs, from_settings
from ptlreid.settings.evaluate import CompareSettings


@from_settings(CompareSettings)
def compare(
    settings: CompareSettings,
    names: Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="Runs; each is compared with the first.")],
    *,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Compare runs on one test set: differences of mAP and CMC-1 with 95% CIs.

    The intervals are from a paired bootstrap over the identities of the test set: they show what another test set would
    change, not what another training seed would.
    """
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
                f"{Path(one['run']).name} vs. {Path(one['against']).name}: {name} {100 * found['difference']:+.1f} "
                f"(95% CI {100 * low:+.1f} to {100 * high:+.1f}), {found['verdict']}."
            )
