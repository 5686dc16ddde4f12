"""Features of ONNX graphs: those of the network that torch exported, whatever layout, colour order and batch size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_network
from graphs import constant, export, fix_batch, mean_colour, prepend, save
from onnx import TensorProto, helper
from PIL import Image

from ptlreid.cache import fingerprint
from ptlreid.calibrations import FeatureOrigin
from ptlreid.errors import DataError, OptionError
from ptlreid.features import Extractor
from ptlreid.json_files import write_json
from ptlreid.models import graph_file
from ptlreid.models.graph_checks import digest_graph
from ptlreid.models.graph_file import read_graph
from ptlreid.progress import Silent
from ptlreid.records import Records
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


@pytest.fixture
def without_trial(monkeypatch) -> None:
    """Graphs of mean colours are loaded without a trial, which takes half a second."""
    monkeypatch.setattr(graph_file, "try_graph", lambda spec: replace(spec, width=3))


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


def card(path: Path, **changes) -> Path:
    """Writes the card of `path`, with changes of its `input`, its `output`, and what else it has."""
    image = {
        **{"name": "images", "layout": "NCHW", "dtype": "float32", "height": 8, "width": 4, "color": "RGB"},
        **{"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0], "interpolation": "bilinear", "preprocessing": "caller"},
    }
    output = {"name": "features", "width": 3, "flip": False, "normalize": False}
    content = {
        "digest": digest_graph(path),
        "input": image | changes.pop("input", {}),
        "output": output | changes.pop("output", {}),
        "cameras": None,
        **changes,
    }
    write_json(path.with_suffix(".json"), content)
    return path


# Red, green and blue of every pixel: the mean colour, from 0 to 1, is (0.2, 0.4, 1).
COLOUR = [np.broadcast_to(np.array([51, 102, 255], dtype=np.uint8), (8, 4, 3))]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [0.2, 0.4, 1.0]),
        ({"color": "BGR"}, [1.0, 0.4, 0.2]),
        ({"mean": [0.2, 0.3, 0.5], "std": [0.5, 0.1, 0.25]}, [0.0, 1.0, 2.0]),
        # Mean and std are those of red, green and blue also where blue comes first.
        ({"mean": [0.2, 0.3, 0.5], "std": [0.5, 0.1, 0.25], "color": "BGR"}, [2.0, 1.0, 0.0]),
    ],
)
def test_a_card_or_options_state_colour_order_mean_and_std(without_trial, tmp_path, changes, expected):
    file = card(save(mean_colour(), tmp_path / "model.onnx"), input=changes)
    np.testing.assert_allclose(features_of(file, images=COLOUR)[0], expected, atol=1e-6)
    file.with_suffix(".json").unlink()
    given = {"mean": changes.get("mean", [0.0, 0.0, 0.0]), "std": changes.get("std", [1.0, 1.0, 1.0])}
    given["bgr"] = changes.get("color") == "BGR"
    np.testing.assert_allclose(features_of(file, given, images=COLOUR)[0], expected, atol=1e-6)


def test_imagenets_mean_and_std_are_used_without_a_card_and_stated(without_trial, tmp_path):
    file, notes = save(mean_colour(), tmp_path / "model.onnx"), Notes()
    read_graph(file, GraphSettings(), notes)
    assert notes.texts == [
        f"{file}: without a card, assuming mean 0.485,0.456,0.406, std 0.229,0.224,0.225, color RGB; --mean, --std and "
        "--bgr change it"
    ]
    expected = [(0.2 - 0.485) / 0.229, (0.4 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    np.testing.assert_allclose(features_of(file, images=COLOUR)[0], expected, rtol=1e-5)
    notes.texts.clear()
    read_graph(file, GraphSettings.make(mean=[0.5] * 3, std=[0.5] * 3, bgr=False), notes)
    read_graph(card(file), GraphSettings(), notes)
    assert notes.texts == []


WRONG_CARDS = {
    "another graph": ({"digest": "0" * 32}, "is the card of another graph"),
    "name": ({"input": {"name": "pixels"}}, "states the input pixels float32"),
    "type": ({"input": {"dtype": "float16"}}, "but the graph has images float32 (?, 3, 8, 4)"),
    "size": ({"input": {"height": 16}}, "(?, 3, 16, 4), caller's preprocessing"),
    "layout": ({"input": {"layout": "NHWC"}}, "(?, 8, 4, 3)"),
    "width": ({"output": {"width": 4}}, "states the output features of width 4"),
    "output": ({"output": {"name": "logits"}}, "states the output logits of width 3"),
    "cameras": (
        {"cameras": {"input": "camera", "names": [{"data": "lobby", "camera": 1}]}},
        "no input of the graph is",
    ),
    "range": ({"input": {"std": [0.0, 1.0, 1.0]}}, "input.std[0] = 0.0: expected greater than 0"),
    "missing": ({"input": {"mean": None}}, "input.mean = None"),
}


@pytest.mark.parametrize("name", WRONG_CARDS)
def test_a_card_that_is_not_that_of_the_graph_is_refused(tmp_path, name):
    changes, words = WRONG_CARDS[name]
    file = card(save(mean_colour(), tmp_path / "model.onnx"), **changes)
    with pytest.raises(DataError) as error:
        extractor(file)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"height": 16}, "the card .* states height 8"),
        ({"mean": [0.5, 0.5, 0.5]}, r"the card .* states mean \[0\.0, 0\.0, 0\.0\]"),
        ({"bgr": True}, "--bgr: the card .* states color RGB"),
    ],
)
def test_an_option_that_contradicts_the_card_is_refused(tmp_path, given, words):
    file = card(save(mean_colour(), tmp_path / "model.onnx"))
    extractor(file, {"height": 8, "mean": [0.0, 0.0, 0.0], "bgr": False})
    with pytest.raises(OptionError, match=words):
        extractor(file, given)


def test_a_free_size_is_asked_for_and_a_fixed_one_kept(tmp_path):
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, "height", "width"])
    file = save(mean_colour(), tmp_path / "model.onnx", inputs=[image])
    with pytest.raises(OptionError, match=r"takes images of any height.*Give --height and --width"):
        extractor(file)
    view = extractor(file, {"height": 12, "width": 6}).view
    assert (view.height, view.width) == (12, 6)
    with pytest.raises(OptionError, match="takes images of height 8 only"):
        extractor(save(mean_colour(), tmp_path / "fixed.onnx"), {"height": 12})


def test_mean_and_std_are_for_graphs_that_do_not_standardise_themselves(tmp_path):
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 3, 8, 4])
    nodes = [helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT), *mean_colour("floats")]
    file = save(nodes, tmp_path / "model.onnx", inputs=[pixels])
    np.testing.assert_allclose(features_of(file, {"bgr": True}, images=COLOUR)[0], [255, 102, 51])
    with pytest.raises(OptionError, match="standardises them itself"):
        extractor(file, {"mean": [0.5, 0.5, 0.5]})


@pytest.mark.parametrize("values", [[0.5], [0.5] * 4])
def test_mean_and_std_are_three_numbers(values):
    with pytest.raises(OptionError, match="expected three numbers"):
        GraphSettings.make(mean=values)


def test_what_a_graph_does_itself_is_not_done_twice_or_undone(tmp_path):
    """The graph normalises: (0.2, 0.4, 1) / sqrt(1.2)."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("LpNormalization", ["flat"], ["features"], axis=1, p=2),
    ]
    file = card(save(nodes, tmp_path / "model.onnx"), output={"flip": True, "normalize": True})
    for settings in ({}, {"flip": True, "normalize": True}):
        expected = np.array([0.2, 0.4, 1]) / np.sqrt(1.2)
        np.testing.assert_allclose(features_of(file, images=COLOUR, **settings)[0], expected, atol=1e-6)
    refused = {"flip": False, "normalize": False, "amp": "bf16", "weights": "best"}
    for name, value in refused.items():
        with pytest.raises(OptionError, match=f"--(no-)?{name}"):
            extractor(file, **{name: value})
    with pytest.raises(OptionError, match=r"--flip: .* normalises its features"):
        extractor(card(file, output={"normalize": True}), flip=True)


def test_a_graph_with_cameras_gets_the_row_of_each_image(tmp_path):
    """The feature is the mean colour plus the row: 0 and 1 for the two cameras of the card, 2 for any other."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Cast", ["camera"], ["row"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["row", "axis"], ["column"]),
        helper.make_node("Add", ["flat", "column"], ["features"]),
    ]
    inputs = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 4]),
        helper.make_tensor_value_info("camera", TensorProto.INT64, ["batch"]),
    ]
    axis = constant(np.array([1]), "axis")
    file = save(nodes, tmp_path / "model.onnx", inputs=inputs, initializer=[axis])
    names = [{"data": "lobby", "camera": 4}, {"data": "lobby", "camera": 1}]
    with_cameras = extractor(card(file, cameras={"input": "camera", "names": names}), batch_size=2)
    paths = []
    for number, data in enumerate(("lobby", "lobby", "lobby", "door")):
        paths.append(tmp_path / f"{data}{number}.png")
        Image.fromarray(COLOUR[0]).save(paths[-1])
    records = Records.make(paths, [0] * 4, [1, 4, 3, 1], source="lobby")
    records = replace(records, sources=np.array(["lobby", "lobby", "lobby", "door"], dtype=object))
    red = with_cameras.extract(records).matrix[:, 0]
    np.testing.assert_allclose(red, np.array([1, 0, 2, 2]) + 0.2, atol=1e-6)
    np.testing.assert_allclose(with_cameras.extract(COLOUR).matrix[:, 0], [2.2], atol=1e-6)
    with pytest.raises(OptionError, match="--no-cameras"):
        extractor(file, cameras=False)
    others = extractor(card(file, cameras={"input": "camera", "names": names[::-1]}))
    assert (
        fingerprint(with_cameras, records, "float32")["cameras"] != fingerprint(others, records, "float32")["cameras"]
    )


def test_the_fingerprint_and_thresholds_know_graph_colours_and_readout(tmp_path):
    file = save(mean_colour(), tmp_path / "model.onnx")
    image = tmp_path / "image.png"
    Image.fromarray(COLOUR[0]).save(image)
    records = Records.make([image], [0], [0], source="lobby")

    def parts(given: dict | None = None, **settings) -> dict[str, str]:
        return fingerprint(extractor(file, given, **settings), records, "float32")

    plain = parts()
    assert json.loads(plain["view"])["mean"] == [0.485, 0.456, 0.406]
    assert plain["weights"] == FeatureOrigin.of(extractor(file), "cosine").weights_digest == digest_graph(file)

    def changed(other: dict[str, str]) -> set[str]:
        return {part for part in plain if plain[part] != other[part]}

    assert changed(parts({"bgr": True})) == changed(parts({"mean": [0.5, 0.5, 0.5]})) == {"view"}
    assert changed(parts(flip=True)) == {"readout"}
    save([*mean_colour("same"), helper.make_node("Identity", ["images"], ["same"])][::-1], file)
    assert changed(parts()) == {"weights"}
