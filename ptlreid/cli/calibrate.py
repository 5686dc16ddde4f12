"""`ptlreid calibrate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ptlreid.cli import console
from ptlreid.cli.evaluate import check_file_settings
from ptlreid.cli.options import DryRun, Given, Json, Model, Runs, find_source, from_settings
from ptlreid.errors import OptionError
from ptlreid.settings import CalibrateSettings, GraphSettings

if TYPE_CHECKING:
    from ptlreid.runs import RunFolder


@from_settings(CalibrateSettings, GraphSettings)
def calibrate(
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
    runs: Runs = Path("runs"),
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Measure thresholds on the distance: same identity or not, in the gallery or not.

    From labelled images of the cameras that the threshold is for. Pairs: false-accept rate (FAR) and true-accept rate
    (TAR). Searches for identities that may be missing from the gallery: FAR, and detection and identification rate
    (DIR). The thresholds of a run are saved in its folder, for its weights, readout and metric.

    Examples:
      ptlreid calibrate --run market-resnet50-ptl-s0
      ptlreid calibrate --run market-resnet50-ptl-s0 --data lobby --per-camera
      ptlreid calibrate --model osnet.onnx --data lobby
      ptlreid calibrate --query q.npz --gallery g.npz --metric cosine
    """
    settings = given.resolve(CalibrateSettings)
    if run is None and model is None and query is not None and gallery is not None:
        check_file_settings(settings, given)
        result = _calibrate_files(query, gallery, settings, dry_run=dry_run)
        title = f"{query} in {gallery}"
    elif (run is None) != (model is None) and query is None and gallery is None:
        result = _calibrate_run(find_source(run, model, runs, given), settings, dry_run=dry_run)
        title = f"{Path(result['run']).name} on {result.get('data')}"
    else:
        raise OptionError(
            "Nothing to calibrate: expected --run RUN, --model FILE, or --query FILE with --gallery FILE."
        )
    if dry_run:
        console.show_plan(result, as_json=json)
    elif json:
        console.show_json(result)
    else:
        _show(title, result)


def _calibrate_run(run: RunFolder, settings: CalibrateSettings, *, dry_run: bool) -> dict[str, Any]:
    from ptlreid import datasets
    from ptlreid.distributed import process_group
    from ptlreid.workflows import calibrate as workflow

    splits = datasets.load(settings.data or run.settings().data, Path(settings.root))
    if dry_run:
        return workflow.preview_run(run, splits, settings)
    with process_group(settings.device):
        return workflow.calibrate_run(run, splits, settings, console.Reporter())


def _calibrate_files(query: Path, gallery: Path, settings: CalibrateSettings, *, dry_run: bool) -> dict[str, Any]:
    from ptlreid.workflows import calibrate as workflow

    if dry_run:
        return workflow.preview_files(query, gallery, settings)
    return workflow.calibrate_files(query, gallery, settings, console.Reporter())


def _show(title: str, result: Mapping[str, Any]) -> None:
    pairs, split = result["pairs"], result["open_set_split"]
    how = f"metric {result['metric']}, protocol {result['protocol']}"
    _show_points(
        f"{title} ({how}): a pair is accepted if its distance is below the threshold", result["operating_points"], "tar"
    )
    console.say(f"{pairs['same']:,} same-identity and {pairs['different']:,} different-identity pairs.")
    if split:
        enrolled, absent = split["enrolled"], split["absent"]
        title = "Searches: the nearest image is the answer if its distance is below the threshold"
        _show_points(title, result["open_set"], "dir")
        console.say(
            f"{enrolled['queries']:,} queries with their identity in the gallery, {absent['queries']:,} without "
            f"({absent['identities']:,} identities left it)."
        )
    for cell in result.get("camera_pairs", ()):
        if cell["operating_points"]:
            title = f"Queries from camera {cell['query']}, gallery images from camera {cell['gallery']}"
            _show_points(title, cell["operating_points"], "tar")
    queries, images = (", ".join(map(str, result["cameras"][side])) for side in ("query", "gallery"))
    where = f"cameras {queries} (queries) and {images} (gallery) of {result.get('data', 'these files')}"
    console.say(f"Thresholds hold for {where}: measure again for others.")
    if "thresholds" in result:
        console.say(f"Saved: {result['thresholds']}")


def _show_points(title: str, points: Sequence[Mapping[str, Any]], kind: Literal["tar", "dir"]) -> None:
    """Print operating points, and why some are not measurable."""
    from ptlreid.reports.operating_points import explain_missing, tabulate_points

    table = tabulate_points(points, kind)
    console.show_rows(title, table.columns, table.rows, right=True)
    for line in explain_missing(points):
        console.say(line)
