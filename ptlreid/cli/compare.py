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
    names: Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="Runs; all are compared with the first.")],
    *,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Compare runs on one test set: differences of mAP and CMC-1 with 95% CIs.

    The intervals come from a paired bootstrap over the test identities: they reflect the choice of the test set, not
    the variation between training seeds.
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
        for score, gap in (("mAP", one["mAP"]), ("CMC-1", one["cmc"]["1"])):
            low, high = gap["interval"]
            console.say(
                f"{Path(one['run']).name} vs. {Path(one['against']).name}: {score} {100 * gap['difference']:+.1f} "
                f"(95% CI {100 * low:+.1f} to {100 * high:+.1f}), {gap['verdict']}."
            )
