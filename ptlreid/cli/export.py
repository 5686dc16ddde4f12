"""`ptlreid export`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ptlreid.cli import console
from ptlreid.cli.options import Json, Runs, from_settings
from ptlreid.errors import OptionError
from ptlreid.settings import ExportSettings


@from_settings(ExportSettings)
def export(
    settings: ExportSettings,
    run: Annotated[str | None, typer.Option("--run", metavar="RUN", help="Run: its name or folder.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Graph to write: .onnx, .pt2 or .xml (OpenVINO).")
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", metavar="DIR", help="New folder for a hub: graph, weights, example.")
    ] = None,
    gate: Annotated[
        Path | None,
        typer.Option("--gate", metavar="FILE", help="Only compare a graph (.onnx), or features of the test images."),
    ] = None,
    *,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Write the network of a run as a graph for other programs, if it agrees with the run.

    The graph takes images and returns features. It is run by its own runtime on test images, and gets its name only if
    features and mAP are those of the run; ranks and decisions that changed are counted. A card for programs (.json) and
    one for people (.md) say how it is used.

    Examples:
      ptlreid export --run market-resnet50-ptl-s0 --out model.onnx
      ptlreid export --run market-resnet50-ptl-s0 --out model.onnx --with-preprocessing --half
      ptlreid export --run market-resnet50-ptl-s0 --bundle market_model
      ptlreid export --run market-resnet50-ptl-s0 --gate quantised.onnx --full
    """
    from ptlreid import datasets
    from ptlreid.runs import find_run
    from ptlreid.workflows import export as workflows

    given = {workflows.export: out, workflows.bundle: bundle, workflows.gate: gate}
    chosen = [(workflow, path) for workflow, path in given.items() if path is not None]
    if run is None or len(chosen) != 1:
        raise OptionError(
            "Nothing to export: expected --run RUN and one of --out FILE, --bundle DIR and --gate FILE. Give both."
        )
    workflow, path = chosen[0]
    folder = find_run(runs, run)
    splits = datasets.load(settings.data or folder.settings().data, Path(settings.root))
    card = workflow(folder, splits, settings, path, console.Reporter())
    if json:
        console.show_json(card)
    else:
        _show(card)


def _show(card: Mapping[str, Any]) -> None:
    gate = card["gate"]
    gap, nearest = gate["features"], gate["nearest_changed"]
    rows = [
        ["smallest cosine", f"{gap['min_cosine']:.7f}"],
        ["largest difference", f"{gap['max_absolute']:.2g}"],
        ["mAP of the run, of the graph", _both(gate["scores"]["mAP"])],
        ["CMC-1 of the run, of the graph", _both(gate["scores"]["CMC-1"])],
        ["another nearest image", f"{nearest['changed']:,} of {nearest['queries']:,} queries"],
    ]
    rows += [
        [f"decisions changed at {name}", f"{one['changed']:,} of {one['pairs']:,}"]
        for name, one in gate["decisions_changed"].items()
    ]
    title = f"{Path(card['file']).name} and {Path(card['run']).name} on {gate['images']:,} images of {gate['data']}"
    console.show_rows(title, ("", "agreement"), rows)
    if speed := gate.get("speed"):
        lines = [
            [str(one["batch"]), f"{one['graph']:.1f}", f"{one['torch']:.1f}", f"{one['graph'] / one['torch']:.2f}"]
            for one in speed["images_per_second"]
        ]
        graph, torch = speed["devices"]["graph"], speed["devices"]["torch"]
        where = f"on {graph}" if graph == torch else f"graph on {graph}, torch on {torch}"
        title = f"Images per second, {where}, {speed['threads']} threads"
        console.show_rows(title, ("batch", "graph", "torch", "ratio"), lines, right=True)
    if card["files"] and not card["thresholds"]:
        console.say("No thresholds on the card: calibrate the run with `ptlreid calibrate`, then export again.")
    console.say(f"Written: {', '.join(card['files'])}" if card["files"] else "Within the limits. Nothing is written.")


def _both(scores: Mapping[str, float]) -> str:
    return f"{100 * scores['before']:.2f}, {100 * scores['after']:.2f}"
