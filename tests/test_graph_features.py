"""Features of ONNX graphs: those of the network that torch exported, whatever layout, colour order and batch size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_network
from graphs import constant, export, fix_batch, prepend
from onnx import TensorProto, helper

from ptlreid.features import Extractor
from ptlreid.models.graph_file import read_graph
from ptlreid.progress import Silent
from ptlreid.settings import EvaluateSettings, GraphSettings
from ptlreid.views import EvalView

IMAGES = [np.random.default_rng(seed).integers(0, 256, (70, 30, 3), dtype=np.uint8) for seed in range(65)]


class Notes(Silent):
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def extractor(path: Path, given: dict | None = None, **settings) -> Extractor:
    graph = read_graph(path, GraphSettings.make(**(given or {})), Silent())
    return Extractor.from_graph(graph, EvaluateSettings.make(device="cpu", **settings))


def features_of(path: Path, given: dict | None = None, images=IMAGES, **settings) -> np.ndarray:
    return extractor(path, given, **settings).extract(images).matrix


def network_features(images=IMAGES, **settings) -> np.ndarray:
    """Those of the tiny network in torch."""
    chosen = EvaluateSettings.make(device="cpu", **settings)
    return Extractor.from_network(tiny_network(None), EvalView(64, 32), chosen).extract(images).matrix


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """A folder of graphs of the tiny network: as torch exports it, in BGR, of three images at a time, and of pixels."""
    folder = tmp_path_factory.mktemp("exported")
    plain = export(tiny_network(None), folder / "plain.onnx")
    reverse = helper.make_node("Gather", ["bgr", "order"], ["images"], axis=1)
    image = helper.make_tensor_value_info("bgr", TensorProto.FLOAT, ["batch", 3, 64, 32])
    prepend(plain, [reverse], image, folder / "bgr.onnx", constant(np.array([2, 1, 0]), "order"))
    fix_batch(plain, 3, folder / "three.onnx")
    image = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 64, 32, 3])
    # ImageNet's mean and std for pixels from 0 to 255.
    mean = np.array([123.675, 116.28, 103.53], dtype=np.float32)
    std = np.array([58.395, 57.12, 57.375], dtype=np.float32)
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["floats", "pixel_mean"], ["centred"]),
        helper.make_node("Div", ["centred", "pixel_std"], ["standardised"]),
        helper.make_node("Transpose", ["standardised"], ["images"], perm=[0, 3, 1, 2]),
    ]
    prepend(plain, nodes, image, folder / "pixels.onnx", constant(mean, "pixel_mean"), constant(std, "pixel_std"))
    return folder


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_a_graph_has_the_features_of_its_network(exported, batch_size):
    found = features_of(exported / "plain.onnx", batch_size=batch_size)
    np.testing.assert_allclose(found, network_features(), atol=1e-5)


@pytest.mark.parametrize("name", ["bgr", "three", "pixels"])
def test_colour_order_fixed_batch_and_layout_change_nothing(exported, name):
    found = features_of(exported / f"{name}.onnx", {"bgr": True} if name == "bgr" else {}, batch_size=7)
    np.testing.assert_allclose(found, network_features(), atol=1e-5)


def test_flip_and_normalisation_around_a_graph_are_those_of_the_network(exported):
    settings = {"flip": True, "normalize": True}
    found = features_of(exported / "plain.onnx", images=IMAGES[:9], **settings)
    np.testing.assert_allclose(found, network_features(IMAGES[:9], **settings), atol=1e-5)
