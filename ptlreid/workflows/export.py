"""`ptlreid export`: the network of a run as a graph for other programs, written if it agrees with the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from ptlreid.card_schema import Card
from ptlreid.errors import OptionError
from ptlreid.evaluation import load_retrieval, rank, score_ranking
from ptlreid.export import card as cards
from ptlreid.export import formats, runtimes
from ptlreid.export.bundle import copy_run, write_example
from ptlreid.export.card_page import make_hub_page, make_page
from ptlreid.export.source import Source
from ptlreid.file_kinds import printable
from ptlreid.files import atomic_files, atomic_folder, read_regular
from ptlreid.json_files import write_json
from ptlreid.models.graph_file import GraphFile, read_graph
from ptlreid.progress import Progress
from ptlreid.records import Splits
from ptlreid.retrieval.bootstrap import score_intervals
from ptlreid.runs import RunFolder, test_set_digest
from ptlreid.settings import ExportSettings, GraphSettings
from ptlreid.workflows.export_gate import gate_features, gate_graph

BUNDLED = "model.onnx"  # the graph of a bundle
_FEATURES = (".h5", ".hdf5", ".npz")


def export(run: RunFolder, splits: Splits, settings: ExportSettings, file: Path, progress: Progress) -> dict[str, Any]:
    """The card of the graph that was written to `file`, with the names of all `files`: docs/export.md.

    Raises `ExportError`, and leaves no file, if the graph does not agree with the run within the limits of `settings`.
    """
    formats.check_format(file)
    _check_place(file)
    source = Source.of(run, splits, settings)
    with atomic_files(file) as folder:
        card = _export(source, folder / file.name, file, progress)
        (folder / file.name).with_suffix(".md").write_text(make_page(card, file.name), encoding="utf-8")
        written = sorted(one.name for one in folder.iterdir())
    return card | {"files": [str(file.parent / name) for name in written]}


def _check_place(file: Path) -> None:
    """Raise `OptionError` if a file that is written next to `file` would replace one that is not of it."""
    target = file.with_suffix(".json")
    if target.exists():
        try:
            of = json.loads(read_regular(target))["file"]
        except (OSError, ValueError, KeyError, TypeError):
            of = None
        if of == file.name:
            return
        what = f"is the card of {printable(of)}" if isinstance(of, str) else "is no card of a graph"
        raise OptionError(f"--out {file}: {target} exists and {what}: expected no such file. Choose another name.")
    others = [file.with_suffix(".md"), *([file.with_suffix(".bin")] if file.suffix == formats.OPENVINO else [])]
    for other in others:
        if other.exists():
            raise OptionError(f"--out {file}: would replace {other}: expected no such file. Choose another name.")


def bundle(
    run: RunFolder, splits: Splits, settings: ExportSettings, folder: Path, progress: Progress
) -> dict[str, Any]:
    """The card of the graph in a new folder that holds all that is needed to use the run or to go on from it."""
    formats.check_format(folder / BUNDLED)
    if folder.exists():
        raise OptionError(
            f"--bundle {folder}: exists already, expected a new folder. Choose another name, or remove it."
        )
    source = Source.of(run, splits, settings)
    with atomic_folder(folder) as temporary:
        card = _export(source, temporary / BUNDLED, folder / BUNDLED, progress)
        copy_run(run, temporary, settings.weights, card["scores"])
        write_example(temporary, BUNDLED)
        (temporary / "README.md").write_text(make_hub_page(card, BUNDLED), encoding="utf-8")
        written = sorted(one.name for one in temporary.iterdir())
    return card | {"files": [str(folder / name) for name in written]}


def gate(run: RunFolder, splits: Splits, settings: ExportSettings, file: Path, progress: Progress) -> dict[str, Any]:
    """What was compared between the run and `file`, a graph or features by another program; nothing is written.

    Raises `ExportError` if they do not agree.
    """
    if file.suffix in _FEATURES:
        compared = gate_features(Source.of(run, splits, settings), file, progress)
        thresholds = None
    else:
        graph = read_graph(file, GraphSettings.resolve(None), progress)
        source = _match_readout(Source.of(run, splits, settings), graph)
        compared, thresholds = gate_graph(source, graph, {}, file, progress), source.calibration
    return {"file": str(file), "run": str(run.path), "gate": compared, "thresholds": thresholds, "files": []}


def _match_readout(source: Source, graph: GraphFile) -> Source:
    """The run with its features read as the graph reads them, where that is more than the settings ask for."""
    own, does = source.extractor.readout, graph.readout
    readout = replace(own, flip=own.flip or does.flip, normalize=own.normalize or does.normalize)
    return replace(source, extractor=replace(source.extractor, readout=readout))


def _export(source: Source, file: Path, shown: Path, progress: Progress) -> dict[str, Any]:
    """Write graph and card. `shown`: what messages call the file."""
    known = {"scores": _score(source, progress), "file": file.name, "schema": cards.SCHEMA}
    card: dict[str, Any] = source.describe() | known
    tensors = _write_graph(source, file, card, progress)
    card["digest"] = runtimes.digest(file)
    target = file.with_suffix(".json")
    write_json(target, card)  # it says how the graph is used
    graph = runtimes.open_exported(file, cast(Card, card), progress, half=source.settings.half)
    card["gate"] = gate_graph(source, graph, tensors if file.suffix == formats.ONNX else {}, shown, progress)
    write_json(target, card)
    return card


def _score(source: Source, progress: Progress) -> dict[str, Any]:
    """The scores of the run on the whole test set, with intervals."""
    settings = source.settings
    retrieval = load_retrieval(source.run, source.splits, settings, progress, extractor=source.extractor)
    scores = score_ranking(rank(retrieval, settings, progress), settings, progress)
    found = scores.summary() | {"data": source.splits.name, "test_images": test_set_digest(source.splits)}
    if settings.bootstrap:
        pids = retrieval.query.pids
        found["intervals"] = score_intervals(scores, pids, resamples=settings.bootstrap, seed=settings.seed)
    return found


def _write_graph(source: Source, file: Path, card: Mapping[str, Any], progress: Progress) -> dict[str, np.ndarray]:
    """Write the graph; its tensors by name."""
    from ptlreid.export.graph import FeatureGraph, trace
    from ptlreid.models.camera_norm import CameraNorms, fix_camera

    settings, statistics = source.settings, source.statistics
    network, norms, centres = source.weights.build(), None, None
    if statistics and source.camera is None:
        norms = CameraNorms.of(network, statistics)
    elif statistics and source.camera is not None:
        centres = fix_camera(network, statistics, source.camera)
    graph = FeatureGraph(
        network,
        cards.readout_of(source.extractor),
        norms=norms,
        centres=centres,
        image=card["input"],
        half=settings.half,
    )
    with progress.task(f"export {file.name}", None):
        program = trace(graph)
        facts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in card.items()}
        formats.write(program, file, facts, half=settings.half)
    return {name: tensor.numpy() for name, tensor in graph.state_dict().items()}
