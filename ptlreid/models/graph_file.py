"""A model in an ONNX file, of this or any other program: the images that it takes, and the features that it returns.

What its card `<stem>.json` states is used as it is; `graph_input` says what is read or assumed without one. Nothing is
run before `open`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ptlreid.card_schema import Card, ImageInput
from ptlreid.errors import DataError, OptionError
from ptlreid.json_files import read_json
from ptlreid.models.camera_statistics import GraphCameras
from ptlreid.models.graph_checks import GraphContent, GraphTensor, inspect_graph
from ptlreid.models.graph_input import CARD_ADVICE, card_path, describe_defaults, find_inputs, read_image, require_one
from ptlreid.models.graph_session import GraphSession, GraphSpec, load_onnx
from ptlreid.models.graph_trial import try_graph
from ptlreid.network_types import Readout
from ptlreid.progress import Progress
from ptlreid.settings import ExtractionSettings, GraphSettings
from ptlreid.thresholds_schema import Calibration
from ptlreid.views import GraphView


class OnnxNetwork:
    """What stands for the `NetworkSpec` of a graph."""

    def describe(self) -> dict[str, str]:
        """The network, for JSON: all of it is in the digest of the graph."""
        return {"graph": "onnx"}


@dataclass(frozen=True)
class GraphFile:
    """An ONNX graph from images to features.

    `digest`: see `graph_checks.inspect_graph`. `image`: its input. `batch`: the only batch size that it takes, None for
    any. `width`: of its features, None where nothing states it. `readout`: what the graph does itself, flip and
    L2-normalisation, as far as a card says so. `cameras`: of a graph with their statistics. `origins`: where each fact
    about the input comes from: `card`, `graph`, an option or `default`. `calibration`: the one on its card.
    """

    path: Path
    digest: str
    image: ImageInput
    batch: int | None
    width: int | None
    readout: Readout
    cameras: GraphCameras | None
    origins: Mapping[str, str]
    opset: int
    weight_bytes: int
    half: bool
    calibration: Calibration | None = None
    spec: ClassVar = OnnxNetwork()

    @property
    def view(self) -> GraphView:
        """The preprocessing of images; mean and std are 0 and 1 where the graph standardises itself."""
        image = self.image
        caller = image["preprocessing"] == "caller"
        return GraphView(
            image["height"],
            image["width"],
            image["interpolation"],
            mean=tuple(image["mean"]) if caller else (0.0, 0.0, 0.0),
            std=tuple(image["std"]) if caller else (1.0, 1.0, 1.0),
            bgr=image["color"] == "BGR",
        )

    def open(self, threads: int, device: str) -> GraphSession:
        """The graph, loaded by onnxruntime after a trial in a process of its own: see `graph_trial.try_graph`.

        `device`: `cpu` or `cuda:N`. Raises `DataError` for a graph that cannot be run, or returns another width than
        it or its card states.
        """
        spec = GraphSpec(
            self.path.resolve(),
            self.image,
            self.cameras.input if self.cameras else None,
            len(self.cameras.names) if self.cameras else 0,
            self.batch,
            None,
            self.weight_bytes,
            self.half,
        )
        tried = try_graph(spec)
        if self.width not in (None, tried.width):
            raise DataError(
                f"{self.path}: returned features of width {tried.width}, but states {self.width}: expected the same. "
                f"{CARD_ADVICE}"
            )
        return GraphSession(tried, load_onnx(tried.path, threads, device))


def read_graph(path: Path, settings: GraphSettings, progress: Progress) -> GraphFile:
    """The graph at `path`, with its card if it has one; `progress` gets a note on what is assumed.

    Raises `DataError` for a file that is no plain graph from images to features (see `graph_checks.inspect_graph`), and
    for a card that is damaged or of another graph; `OptionError` for settings that are missing, or that contradict the
    card or the graph.
    """
    content = inspect_graph(path)
    card = _read_card(path, content)
    output = require_one(path, content.outputs, "output")
    tensor, cameras = find_inputs(path, content.inputs, card)
    image, origins = read_image(path, tensor, card, settings)
    if assumed := describe_defaults(image, origins):
        progress.note(f"{path}: {assumed}")
    width, readout = _read_output(path, output, card)
    batch = tensor.shape[0] if tensor.shape else None
    calibration = card.get("thresholds") if card else None
    facts = (content.opset, content.weight_bytes, content.half, calibration)
    return GraphFile(path, content.digest, image, batch, width, readout, cameras, origins, *facts)


def _read_output(path: Path, output: GraphTensor, card: Card | None) -> tuple[int | None, Readout]:
    """The width of features, if it is stated, and how they are read."""
    if (output.shape is not None and len(output.shape) != 2) or not output.dtype.startswith("float"):
        raise DataError(
            f"{path}: its output is {output}: expected floating-point features, (batch, width). Export it with one "
            "feature vector for each image."
        )
    width = output.shape[1] if output.shape else None
    if card is None:
        return width, Readout()
    stated = card["output"]
    if stated["name"] != output.name or width not in (None, stated["width"]):
        raise DataError(
            f"{card_path(path)}: states the output {stated['name']} of width {stated['width']}, but the graph has "
            f"{output}: expected the same. {CARD_ADVICE}"
        )
    return stated["width"], Readout(stated["flip"], stated["normalize"])


def check_graph_settings(graph: GraphFile, settings: ExtractionSettings) -> None:
    """Raise `OptionError` for settings of extraction that a graph cannot follow."""
    for name in ("flip", "normalize"):
        if getattr(settings, name) is False and getattr(graph.readout, name):
            raise OptionError(
                f"--no-{name}: {graph.path} has {name} inside: expected no change. Leave it out, or export the graph "
                "again without it."
            )
    if settings.flip and graph.readout.normalize and not graph.readout.flip:
        raise OptionError(
            f"--flip: {graph.path} normalises its features, and flipped ones are added before that: expected no flip. "
            "Leave it out, or export the graph again with --flip."
        )
    if settings.amp != "off":
        raise OptionError(f"--amp {settings.amp}: a graph has its own precision: expected off. Export it with --half.")
    if settings.weights != "last":
        raise OptionError(f"--weights {settings.weights}: of a run, but {graph.path} is a model. Leave it out.")
    if graph.cameras and not settings.cameras:
        raise OptionError(
            f"--no-cameras: {graph.path} has the statistics of cameras inside: expected no change. Leave it out."
        )


def _read_card(path: Path, content: GraphContent) -> Card | None:
    file = card_path(path)
    if file == path or not file.exists():
        return None
    card = read_json(file, Card, CARD_ADVICE)
    if card["digest"] != content.digest:
        raise DataError(f"{file}: is the card of another graph, expected that of {path.name}. {CARD_ADVICE}")
    return card
