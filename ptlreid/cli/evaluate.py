"""`ptlreid evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptlreid.cli import console, options
from ptlreid.config import EvaluateConfig, FinetuneConfig


def evaluate(
    run: Annotated[str, typer.Option(help="Name of the run, or the path of its folder.")],
    data: options.TestData = None,
    weights: Annotated[str | None, options.option(EvaluateConfig, "weights")] = None,
    metric: Annotated[str | None, options.option(EvaluateConfig, "metric")] = None,
    ap: Annotated[str | None, options.option(EvaluateConfig, "ap")] = None,
    flip: Annotated[bool | None, options.option(EvaluateConfig, "flip", "--flip/--no-flip")] = None,
    normalize: Annotated[bool | None, options.option(EvaluateConfig, "normalize", "--normalize/--no-normalize")] = None,
    amp: Annotated[str | None, options.option(EvaluateConfig, "amp")] = None,
    batch_size: Annotated[int | None, options.option(EvaluateConfig, "batch_size")] = None,
    config: options.ConfigFile = None,
    root: options.Root = None,
    runs: options.Runs = Path("runs"),
    device: options.Device = None,
    workers: options.Workers = None,
    json: options.Json = False,
) -> None:
    """Score a run on a data set: mAP, CMC and mINP.

    Features are cached in the run folder, so that a second evaluation decodes no image.
    """
    settings = options.settings(EvaluateConfig, locals())

    from ptlreid import datasets
    from ptlreid.runs import find_run
    from ptlreid.workflows.evaluate import evaluate_run

    folder = find_run(runs, run)
    trained = FinetuneConfig.resolve(folder.config)
    splits = datasets.load(settings.data or trained.data, Path(settings.root))
    scores = evaluate_run(folder, splits, settings, console.Reporter()).summary()
    if json:
        console.show_json({"run": str(folder.path), "data": splits.name, "settings": settings.model_dump(), **scores})
        return
    console.show_scores(f"{folder.path.name} on {splits.name} ({scores['protocol']})", {settings.weights: scores})
    queries, gallery = scores["queries"], scores["gallery"]
    console.say(
        f"{queries['valid']} of {queries['total']} queries have a true match; "
        f"{gallery['total']} gallery images, {gallery['junk']} of them junk."
    )
