"""`ptlreid evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ptlreid.cli import console, options
from ptlreid.errors import OptionError
from ptlreid.settings import EvaluateSettings


def evaluate(
    run: Annotated[str | None, typer.Option(help="Name of the run, or the path of its folder.")] = None,
    data: options.TestData = None,
    query: Annotated[Path | None, typer.Option(help="Instead of a run: file of query features, .h5 or .npz.")] = None,
    gallery: Annotated[Path | None, typer.Option(help="File of gallery features, to go with --query.")] = None,
    protocol: Annotated[str | None, options.option(EvaluateSettings, "protocol")] = None,
    metric: Annotated[str | None, options.option(EvaluateSettings, "metric")] = None,
    rerank: Annotated[bool | None, options.option(EvaluateSettings, "rerank", "--rerank/--no-rerank")] = None,
    flip: Annotated[bool | None, options.option(EvaluateSettings, "flip", "--flip/--no-flip")] = None,
    ap: Annotated[str | None, options.option(EvaluateSettings, "ap")] = None,
    bootstrap: Annotated[int | None, options.option(EvaluateSettings, "bootstrap")] = None,
    per_camera: Annotated[bool | None, options.option(EvaluateSettings, "per_camera", "--per-camera")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a table of the queries to this CSV file.")] = None,
    ranklist: Annotated[Path | None, typer.Option(help="Write each query's rank list to this CSV file.")] = None,
    memory_budget: Annotated[str | None, options.option(EvaluateSettings, "memory_budget")] = None,
    config: options.ConfigFile = None,
    root: options.Root = None,
    runs: options.Runs = Path("runs"),
    json: options.Json = False,
    dry_run: options.DryRun = False,
    weights: Annotated[str | None, options.option(EvaluateSettings, "weights", hidden=True)] = None,
    normalize: Annotated[
        bool | None, options.option(EvaluateSettings, "normalize", "--normalize/--no-normalize", hidden=True)
    ] = None,
    amp: Annotated[str | None, options.option(EvaluateSettings, "amp", hidden=True)] = None,
    batch_size: Annotated[int | None, options.option(EvaluateSettings, "batch_size", hidden=True)] = None,
    ranklist_size: Annotated[int | None, options.option(EvaluateSettings, "ranklist_size", hidden=True)] = None,
    seed: Annotated[int | None, options.option(EvaluateSettings, "seed", hidden=True)] = None,
    device: Annotated[str | None, options.option(EvaluateSettings, "device", hidden=True)] = None,
    workers: Annotated[int | None, options.option(EvaluateSettings, "workers", hidden=True)] = None,
) -> None:
    """Score a run on a dataset, or features of any program: mAP, CMC and mINP.

    A run's features are cached in its folder, so that a second evaluation decodes no image. Every other setting, such
    as weights, seed, ranklist_size, rerank_k1, expand and device, is a line in the TOML file of --config.
    """
    settings = options.settings(EvaluateSettings, locals())
    if run is None and query is not None and gallery is not None:
        _check_file_settings(settings)
        result = _of_files(query, gallery, settings, dry_run=dry_run, csv=csv, ranklist=ranklist)
        title = f"{query} in {gallery}"
    elif run is not None and query is None and gallery is None:
        result = _of_run(run, runs, settings, dry_run=dry_run, csv=csv, ranklist=ranklist)
        title = f"{Path(result['run']).name} on {result['settings']['data']}"
    else:
        raise OptionError("What is to be scored? Give --run RUN, or both --query FILE and --gallery FILE.")
    if dry_run:
        console.show_plan(result, as_json=json)
    elif json:
        console.show_json(result)
    else:
        _show(title, result)


# What says how features are made, which for features from files is done.
_OF_A_RUN = ("data", "weights", "flip", "normalize", "amp", "batch_size", "dtype")


def _check_file_settings(settings: EvaluateSettings) -> None:
    given = [f"--{name.replace('_', '-')}" for name in _OF_A_RUN if name in settings.model_fields_set]
    if given:
        raise OptionError(f"{', '.join(given)} is for a --run; --query and --gallery hold features as they are.")


def _of_run(
    name: str, runs: Path, settings: EvaluateSettings, *, dry_run: bool, csv: Path | None, ranklist: Path | None
) -> dict[str, Any]:
    from ptlreid import datasets
    from ptlreid.distributed import process_group
    from ptlreid.runs import find_run
    from ptlreid.workflows import evaluate as workflow

    run = find_run(runs, name)
    splits = datasets.load(settings.data or run.settings().data, Path(settings.root))
    if dry_run:
        return workflow.preview_run(run, splits, settings)
    with process_group(settings.device):
        return workflow.evaluate_run(run, splits, settings, console.Reporter(), workflow.Tables(csv, ranklist))


def _of_files(
    query: Path, gallery: Path, settings: EvaluateSettings, *, dry_run: bool, csv: Path | None, ranklist: Path | None
) -> dict[str, Any]:
    from ptlreid.workflows import evaluate as workflow

    if dry_run:
        return workflow.preview_files(query, gallery, settings)
    return workflow.evaluate_files(query, gallery, settings, console.Reporter(), workflow.Tables(csv, ranklist))


def _show(title: str, result: dict[str, Any]) -> None:
    settings, queries, gallery = result["settings"], result["queries"], result["gallery"]
    how = ", ".join(
        [f"protocol {result['protocol']}", *(["re-ranked"] if settings["rerank"] else []), *_other(settings)]
    )
    row = settings["weights"] if "run" in result else "features"
    console.show_scores(f"{title} ({how})", {row: result})
    console.say(
        f"{queries['valid']} of {queries['total']} queries have a true match; "
        f"{gallery['total']} gallery images, {gallery['junk']} of them junk."
    )
    if "intervals" in result:
        found = result["intervals"]
        named = {"mAP": found["mAP"], "CMC-1": found["cmc"]["1"], "mINP": found["mINP"]}
        ends = ", ".join(f"{name} {100 * low:.1f} to {100 * high:.1f}" for name, (low, high) in named.items())
        console.say(f"With other people, in 95 of 100 draws: {ends}.")
    if "cameras" in result:
        _show_cameras(result["cameras"])


def _other(settings: Mapping[str, Any]) -> list[str]:
    """What the scores depend on and was not left as it is by default, such as `metric cosine`."""
    fields = EvaluateSettings.model_fields
    changed = [
        name
        for name in ("metric", "ap", "flip", "normalize", "amp", "dtype", "expand", "single_shot_samples")
        if settings[name] != fields[name].default
    ]
    return [
        f"{name} {'on' if settings[name] is True else 'off' if settings[name] is False else settings[name]}"
        for name in changed
    ]


def _show_cameras(cells: list[dict[str, Any]]) -> None:
    """mAP by query camera and gallery camera, with what is to be known to read it."""
    columns = sorted({cell["gallery"] for cell in cells})
    console.say(
        "mAP in percent by query camera (a line each) and gallery camera; - where no query has a true match. The "
        "images of one camera are all that a cell searches: compare cells with one another, not with the whole."
    )
    console.say(" " * 6 + "".join(f"{camera:>6}" for camera in columns))
    for camera in sorted({cell["query"] for cell in cells}):
        row = {cell["gallery"]: cell["mAP"] for cell in cells if cell["query"] == camera}
        texts = ("-" if row[column] is None else f"{100 * row[column]:.1f}" for column in columns)
        console.say(f"{camera:>6}" + "".join(f"{text:>6}" for text in texts))
