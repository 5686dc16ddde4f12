"""`ptlreid check`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptlreid.cli import console
from ptlreid.cli.options import Given, Json, Model, from_settings, refuse_graph_settings
from ptlreid.errors import OptionError
from ptlreid.settings import GraphSettings, RootSettings

if TYPE_CHECKING:
    from ptlreid.datasets import DatasetRef
    from ptlreid.records import Splits

_MAX_PER_KIND = 20


@from_settings(RootSettings, GraphSettings, config=False)
def check(
    given: Given,
    data: Annotated[str | None, typer.Argument(metavar="DATA", help="Dataset: its name or folder.")] = None,
    model: Model = None,
    *,
    json: Json = False,
) -> None:
    """Check a dataset: decode every image, compare every count, find leaks and duplicates.

    No file is changed. Exit code 1 if a serious fault is found. With --model, of an ONNX model: what it takes and
    returns, where each fact comes from, and whether it can be run, tried on two images in a process of its own.

    Examples:
      ptlreid check market
      ptlreid check --model osnet.onnx
    """
    if (data is None) == (model is None):
        raise OptionError("Nothing to check: expected a dataset, or --model FILE. Give one of them.")
    if model is not None:
        _check_model(model, given.resolve(GraphSettings, config=False), as_json=json)
        return
    refuse_graph_settings(given)
    from ptlreid import datasets

    assert data is not None
    root = Path(given.resolve(RootSettings, config=False).root)
    dataset = datasets.find(data, root)
    show_check(dataset, dataset.folder(root), {}, as_json=json)


def _check_model(path: Path, settings: GraphSettings, *, as_json: bool) -> None:
    from ptlreid.models.graph_file import read_graph
    from ptlreid.workflows.check_model import check_model

    found = check_model(read_graph(path, settings, console.Reporter()))
    if as_json:
        console.show_json(found)
        return
    rows = [[name, _format(value), found["origins"][name]] for name, value in found["input"].items()]
    console.show_rows(f"Images that {path} takes", ("", "value", "from"), rows)
    output, batch = found["output"], found["batch"]
    own = " and ".join(name for name in ("flip", "normalize") if output[name]) or "neither flip nor L2-normalisation"
    console.say(f"Features: width {output['width']}; in the graph, as far as a card says so: {own}.")
    console.say(f"Batch size: {'any' if batch is None else batch}. Opset {found['opset']}.")
    if found["cameras"]:
        console.say(f"Statistics of {len(found['cameras'])} cameras: {_format(found['cameras'])}.")


def _format(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def show_check(dataset: DatasetRef, folder: Path, made: Mapping[str, Any], *, as_json: bool) -> None:
    """Check `folder` and print the result; exit code 1 if any fault is serious.

    `made`: the results of earlier steps of the command, for JSON.
    """
    from ptlreid.workflows.check import check

    report = check(dataset, folder, console.Reporter())
    if as_json:
        console.show_json({"data": dataset.name, "variant": dataset.variant, **made, **report.describe()})
    else:
        if report.parts:
            show_counts(report.data, report.parts)
        counts: Counter[str] = Counter()
        for fault in report.faults:
            counts[fault.kind] += 1
            if counts[fault.kind] <= _MAX_PER_KIND:
                console.say(f"{'serious' if fault.serious else 'minor'}, {fault.kind}: {fault}")
        for kind in (kind for kind in counts if counts[kind] > _MAX_PER_KIND):
            console.say(f"{kind}: {counts[kind] - _MAX_PER_KIND:,} more; --json lists all.")
        plural = "" if len(report.faults) == 1 else "s"
        console.say(f"{len(report.faults):,} fault{plural}, {report.num_serious:,} serious: {folder}")
    if report.num_serious:
        raise typer.Exit(1)


def count_parts(splits: Splits) -> dict[str, dict[str, int]]:
    """Numbers of images, identities and cameras in train, query and gallery."""
    return dict(zip(("train", "query", "gallery"), (part.count() for part in splits.parts), strict=True))


def show_counts(title: str, parts: Mapping[str, Mapping[str, int]]) -> None:
    """Print the numbers from `count_parts` as a table, and a line if the training images have no identities."""
    columns = ("images", "identities", "cameras")
    rows = [[name, *(str(part[column]) for column in columns)] for name, part in parts.items()]
    console.show_rows(title, ("", *columns), rows, right=True)
    if parts["train"]["images"] and not parts["train"]["identities"]:
        console.say("The training images have no identities: `ptlreid adapt` adapts a trained run to them.")
