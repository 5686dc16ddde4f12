"""`ptlreid compare`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ptlreid.cli import console
from ptlreid.cli.options import Given, Json, Runs, find_source, from_settings, refuse_graph_settings
from ptlreid.cli.seeds import MEAN
from ptlreid.errors import OptionError
from ptlreid.settings import GraphSettings
from ptlreid.settings.evaluate import CompareSettings


@from_settings(CompareSettings, GraphSettings)
def compare(
    given: Given,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="RUN RUN...", help="Runs; all are compared with the first.")
    ] = None,
    *,
    model: Annotated[
        list[Path] | None, typer.Option("--model", metavar="FILE", help="ONNX model, before the runs; may be repeated.")
    ] = None,
    methods: Annotated[
        bool, typer.Option("--methods", help="The names stand for runs of several seeds, with * for the seed.")
    ] = False,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Compare runs on one test set: differences of mAP and CMC-1 with 95% CIs.

    The intervals come from a paired bootstrap over the test identities: they reflect the choice of the test set, not
    the variation between training seeds. With --methods they are over seeds and identities together.

    Models of --model come before the runs: all are compared with the first model.

    Examples:
      ptlreid compare market-resnet50-baseline-s0 market-resnet50-ptl-s0
      ptlreid compare --model osnet.onnx market-resnet50-ptl-s0 --data lobby
      ptlreid compare --methods 'market-resnet50-baseline-s*' 'market-resnet50-ptl-s*'
    """
    from ptlreid.distributed import process_group
    from ptlreid.runs import find_run
    from ptlreid.workflows.compare import compare as workflow
    from ptlreid.workflows.compare import compare_methods, find_method

    settings, progress, names = given.resolve(CompareSettings), console.Reporter(), names or []
    if methods and model:
        raise OptionError("--model with --methods: expected runs of several seeds only. Leave one out.")
    folders = [find_source(None, path, runs, given) for path in model or []]
    if not folders:
        refuse_graph_settings(given)
    folders += [] if methods else [find_run(runs, name) for name in names]
    with process_group(settings.device):
        if methods:
            result = compare_methods([find_method(runs, name) for name in names], settings, progress)
        else:
            result = workflow(folders, settings, progress)
    if json:
        console.show_json(result)
    else:
        _show(result)


def _show(result: Mapping[str, Any]) -> None:
    title = f"{result['data']} ({result['protocol']})"
    if "methods" in result:
        means = {one["method"]: (one["mean"], one["sd"]) for one in result["methods"]}
        console.show_scores(f"{title}, {MEAN} of seeds {', '.join(map(str, result['seeds']))}", {}, means)
    else:
        console.show_scores(title, {one["run"]: one for one in result["runs"]})
    for one in result["differences"]:
        pair = [one.get("method") or Path(one["run"]).name, Path(one["against"]).name]
        for score, gap in (("mAP", one["mAP"]), ("CMC-1", one["cmc"]["1"])):
            console.say(f"{' vs. '.join(pair)}: {score} {_describe(gap)}")


def _describe(gap: Mapping[str, Any]) -> str:
    """A difference in percent, with its interval and, over seeds, the parts of its standard error."""
    low, high = gap["interval"]
    interval = f"95% CI {100 * low:+.1f} to {100 * high:+.1f}"
    if errors := gap.get("standard_errors"):
        interval += "; standard errors: " + ", ".join(f"{name} {100 * value:.2f}" for name, value in errors.items())
    return f"{100 * gap['difference']:+.1f} ({interval}), {gap['verdict']}."
