"""`ptlreid evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptlreid.cli import console
from ptlreid.cli.options import DryRun, Given, Json, Model, Runs, find_source, from_settings, refuse_graph_settings
from ptlreid.errors import OptionError
from ptlreid.settings import EvaluateSettings, GraphSettings

if TYPE_CHECKING:
    from ptlreid.runs import RunFolder


@from_settings(EvaluateSettings, GraphSettings)
def evaluate(
    given: Given,
    run: Annotated[str | None, typer.Option("--run", metavar="RUN", help="Run: its name or folder.")] = None,
    model: Model = None,
    query: Annotated[
        Path | None, typer.Option("--query", metavar="FILE", help="Query features (.h5 or .npz), instead of a run.")
    ] = None,
    gallery: Annotated[
        Path | None, typer.Option("--gallery", metavar="FILE", help="Gallery features, with --query.")
    ] = None,
    *,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write the scores of each query as CSV.")
    ] = None,
    ranklist: Annotated[
        Path | None, typer.Option("--ranklist", metavar="FILE", help="Write each query's rank list as CSV.")
    ] = None,
    thresholds: Annotated[
        str | None, typer.Option("--thresholds", metavar="RUN", help="Also apply the thresholds of a run.")
    ] = None,
    runs: Runs = Path("runs"),
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Evaluate a run or an ONNX model on a dataset, or features of any program: mAP, CMC and mINP.

    Features are cached in the run folder, so that a second evaluation decodes no image.

    Examples:
      ptlreid evaluate --run market-resnet50-ptl-s0
      ptlreid evaluate --run market-resnet50-ptl-s0 --data duke --rerank
      ptlreid evaluate --run market-resnet50-ptl-s0 --data duke --thresholds market-resnet50-ptl-s0
      ptlreid evaluate --model osnet.onnx --data lobby
      ptlreid evaluate --query q.npz --gallery g.npz --metric cosine
    """
    settings = given.resolve(EvaluateSettings)
    if run is None and model is None and query is not None and gallery is not None:
        check_file_settings(settings, given, thresholds)
        result = _evaluate_files(query, gallery, settings, dry_run=dry_run, csv=csv, ranklist=ranklist)
        title = f"{query} in {gallery}"
    elif (run is None) != (model is None) and query is None and gallery is None:
        source = find_source(run, model, runs, given)
        result = _evaluate_run(source, runs, settings, thresholds, dry_run=dry_run, csv=csv, ranklist=ranklist)
        title = f"{Path(result['run']).name} on {result['settings']['data']}"
    else:
        raise OptionError("Nothing to evaluate: expected --run RUN, --model FILE, or --query FILE with --gallery FILE.")
    if dry_run:
        console.show_plan(result, as_json=json)
    else:
        console.show_json(result) if json else _show(title, result)


# Settings of feature extraction, which do not apply to feature files.
_EXTRACTION = ("data", "weights", "flip", "normalize", "amp", "batch_size", "dtype")


def check_file_settings(settings: EvaluateSettings, given: Given, thresholds: str | None = None) -> None:
    """Raise `OptionError` for a setting of feature extraction, or for thresholds, which belong to a run."""
    if thresholds:
        raise OptionError("--thresholds: for a --run only, expected the run that was calibrated. Leave it out.")
    refuse_graph_settings(given)
    options = [f"--{name.replace('_', '-')}" for name in _EXTRACTION if name in settings.model_fields_set]
    if options:
        raise OptionError(
            f"{', '.join(options)}: for a --run only. The features in --query and --gallery are used as they are."
        )


def _evaluate_run(
    run: RunFolder,
    runs: Path,
    settings: EvaluateSettings,
    thresholds: str | None,
    *,
    dry_run: bool,
    csv: Path | None,
    ranklist: Path | None,
) -> dict[str, Any]:
    from ptlreid import datasets
    from ptlreid.distributed import process_group
    from ptlreid.runs import find_run
    from ptlreid.workflows import evaluate as workflow

    splits = datasets.load(settings.data or run.settings().data, Path(settings.root))
    if dry_run:
        return workflow.preview_run(run, splits, settings)
    tables, calibrated = workflow.Tables(csv, ranklist), None
    if thresholds:  # of a run, or of the model itself
        calibrated = run if thresholds == str(run.path) else find_run(runs, thresholds)
    with process_group(settings.device):
        return workflow.evaluate_run(run, splits, settings, console.Reporter(), tables, thresholds=calibrated)


def _evaluate_files(
    query: Path, gallery: Path, settings: EvaluateSettings, *, dry_run: bool, csv: Path | None, ranklist: Path | None
) -> dict[str, Any]:
    from ptlreid.distributed import process_group
    from ptlreid.workflows import evaluate as workflow
    from ptlreid.workflows import evaluate_shards as by_blocks

    tables = workflow.Tables(csv, ranklist)
    streamed = by_blocks.reads_blocks(gallery, settings, tables)
    if dry_run:
        preview = by_blocks.preview_shards if streamed else workflow.preview_files
        return preview(query, gallery, settings)
    with process_group(settings.device):
        evaluate = by_blocks.evaluate_shards if streamed else workflow.evaluate_files
        return evaluate(query, gallery, settings, console.Reporter(), tables)


def _show(title: str, result: dict[str, Any]) -> None:
    settings, queries, gallery = result["settings"], result["queries"], result["gallery"]
    details = ", ".join(
        [f"protocol {result['protocol']}", *(["re-ranked"] if settings["rerank"] else []), *_changed(result)]
    )
    row = settings["weights"] if "run" in result else "features"
    console.show_scores(f"{title} ({details})", {row: result})
    console.say(
        f"{queries['valid']} of {queries['total']} queries have a true match; "
        f"{gallery['total']} gallery images, {gallery['junk']} of them junk."
    )
    if "intervals" in result:
        intervals = result["intervals"]
        shown = {"mAP": intervals["mAP"], "CMC-1": intervals["cmc"]["1"], "mINP": intervals["mINP"]}
        text = ", ".join(f"{name} {100 * low:.1f} to {100 * high:.1f}" for name, (low, high) in shown.items())
        console.say(f"95% CI (bootstrap over identities): {text}.")
    if "cameras" in result:
        _show_cameras(result["cameras"])
    if "thresholds" in result:
        _show_thresholds(result["thresholds"], settings["data"])


_IN_TITLE = ("metric", "ap", "flip", "normalize", "amp", "dtype", "expand", "single_shot_samples")


def _changed(result: Mapping[str, Any]) -> list[str]:
    """The settings that scores depend on and that differ from the defaults, or the network's: `metric cosine`."""
    settings = result["settings"]
    defaults = {name: EvaluateSettings.model_fields[name].default for name in _IN_TITLE} | result.get("readout", {})
    changed = [name for name in _IN_TITLE if settings[name] != defaults[name]]
    return [f"{name.replace('_', ' ')} {_format_value(settings[name])}" for name in changed]


def _format_value(value: object) -> str:
    return {"True": "on", "False": "off"}.get(str(value), str(value))


def _show_thresholds(applied: Mapping[str, Any], data: str) -> None:
    """Print what the thresholds of a calibration give on `data`, next to what they gave where they were measured."""
    from ptlreid.reports.operating_points import tabulate_realised

    where = f"{data} (here) at the thresholds calibrated on {applied['data']} (there)"
    tables = {
        f"Pairs of {where}": tabulate_realised(applied["operating_points"], "tar"),
        f"Searches in {where}": tabulate_realised(applied["open_set"], "dir"),
    }
    for title, table in tables.items():
        if table.rows:
            console.show_rows(title, table.columns, table.rows, right=True)


def _show_cameras(cells: list[dict[str, Any]]) -> None:
    """Print mAP by query camera and gallery camera, with a note on how to read it."""
    columns = sorted({cell["gallery"] for cell in cells})
    rows = []
    for camera in sorted({cell["query"] for cell in cells}):
        row = {cell["gallery"]: cell["mAP"] for cell in cells if cell["query"] == camera}
        texts = ("-" if row[column] is None else f"{100 * row[column]:.1f}" for column in columns)
        rows.append([str(camera), *texts])
    console.show_rows(
        "mAP in percent by query camera (rows) and gallery camera (columns); - where no query has a true match. Each "
        "cell searches the images of one camera only: compare cells with one another, not with the overall mAP.",
        ("", *map(str, columns)),
        rows,
        right=True,
    )
