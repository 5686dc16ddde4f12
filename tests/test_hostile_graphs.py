"""ONNX files that are damaged, or made to do harm: one message each, and nothing outside their folder is touched."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from damage import damage_examples, damaged, within_seconds
from graphs import constant, mean_colour, save
from hypothesis import given
from onnx import TensorProto, helper

from ptlreid.errors import DataError, PtlreidError
from ptlreid.models import graph_file, graph_trial
from ptlreid.models.graph_file import GraphFile, read_graph
from ptlreid.progress import Silent
from ptlreid.settings import GraphSettings

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 4, 3), dtype=np.uint8)
node = helper.make_node


def read(path: Path) -> GraphFile:
    return read_graph(path, GraphSettings(), Silent())


def refusal(path: Path) -> str:
    """The message on reading the file, which is of one line and says what to do."""
    with pytest.raises(DataError) as error:
        read(path)
    message = str(error.value)
    assert "\n" not in message
    assert "expected" in message
    assert message.endswith((".", ")"))
    return message


def run(path: Path) -> np.ndarray:
    return read(path).open(1, "cpu").run(IMAGES)


@pytest.fixture
def without_trial(monkeypatch) -> None:
    """Graphs of mean colours are loaded without a trial, which takes half a second."""
    monkeypatch.setattr(graph_file, "try_graph", lambda spec: replace(spec, width=3))


def flatten() -> list[onnx.NodeProto]:
    """The mean of each channel as `flat`."""
    return [mean_colour()[0], node("Flatten", ["pooled"], ["flat"])]


def tensor(name: str, kind: int, shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html>log in</html>", "an HTML page"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "a PNG image"),
        (b"PK\x03\x04" + bytes(100), "a ZIP archive"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path, content, what):
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    assert what in refusal(file)


def test_a_folder_a_pipe_and_a_missing_file_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.onnx")
    for path in (tmp_path, tmp_path / "pipe.onnx", tmp_path / "missing.onnx"):
        assert "expected an ONNX file" in refusal(path)


def test_a_file_that_was_cut_off_is_refused(tmp_path):
    content = save(mean_colour(), tmp_path / "model.onnx").read_bytes()
    for size in range(1, len(content), 7):
        (tmp_path / "part.onnx").write_bytes(content[:size])
        refusal(tmp_path / "part.onnx")


def test_damage_gives_a_graph_or_one_message(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage")
    content = save(mean_colour(), folder / "model.onnx").read_bytes()

    @damage_examples()
    @given(damaged(content))
    def check(changed: bytes) -> None:
        (folder / "damaged.onnx").write_bytes(changed)
        with within_seconds(), suppress(PtlreidError):
            read(folder / "damaged.onnx")

    check()


def outside(tmp_path: Path) -> dict[str, str]:
    """Locations that lead out of the folder `model`, or to no file."""
    (tmp_path / "secret.bin").write_bytes(bytes(12))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "link.bin").symlink_to(tmp_path / "secret.bin")
    (tmp_path / "model" / "*" / "_ORT_MEM_ADDR_").mkdir(parents=True)
    (tmp_path / "model" / "*" / "_ORT_MEM_ADDR_" / "*").write_bytes(bytes(12))
    return {
        "absolute": str(tmp_path / "secret.bin"),
        "parent": "../secret.bin",
        "back": "../model/../secret.bin",
        "own folder by its parent": "../model/model.onnx",
        "link": "link.bin",
        "missing": "missing.bin",
        "folder": ".",
        "address": "*/_ORT_MEM_ADDR_/*",
        "control": "a\x00b",
    }


def external(location: str) -> TensorProto:
    weights = constant(np.ones(3, dtype=np.float32), "weights")
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "12")):
        weights.external_data.add(key=key, value=value)
    return weights


def test_weights_outside_the_folder_of_the_model_are_refused(tmp_path):
    nodes = [*flatten(), node("Mul", ["flat", "weights"], ["features"])]
    for name, location in outside(tmp_path).items():
        file = save(nodes, tmp_path / "model" / "model.onnx", initializer=[external(location)])
        assert "expected a file in its own folder" in refusal(file), name


def test_weights_in_the_folder_of_the_model_are_used_and_belong_to_its_digest(without_trial, tmp_path):
    nodes = [*flatten(), node("Mul", ["flat", "weights"], ["features"])]
    plain = run(save(mean_colour(), tmp_path / "plain.onnx"))
    file = save(nodes, tmp_path / "model.onnx", initializer=[external("weights.bin")])
    digests = set()
    for factor in (1, 2):
        np.full(3, factor, dtype=np.float32).tofile(tmp_path / "weights.bin")
        np.testing.assert_allclose(run(file), factor * plain, rtol=1e-6)
        digests.add(read(file).digest)
    assert len(digests) == 2
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "linked.onnx").symlink_to(file)  # the folder is that of the file itself
    np.testing.assert_allclose(run(tmp_path / "elsewhere" / "linked.onnx"), 2 * plain, rtol=1e-6)


def body(nodes, name="body", outputs=("inner",)) -> onnx.GraphProto:
    return helper.make_graph(nodes, name, [], [tensor(one, TensorProto.FLOAT, None) for one in outputs])


def nested(depth: int) -> onnx.NodeProto:
    """An If in an If ..."""
    inner = [node("Identity", ["flat"], [f"inner{depth}"])] if depth == 0 else [nested(depth - 1)]
    branches = body(inner, f"branch{depth}", (inner[0].output[0],))
    return node("If", ["condition"], [f"out{depth}"], then_branch=branches, else_branch=branches)


OPERATORS = {
    "custom": (node("Steal", ["images"], ["features"], domain="evil.ops"), "evil.ops:Steal of another program"),
    "python": (node("PythonOp", ["images"], ["features"], domain="com.microsoft"), "PythonOp of another program"),
    "context": (node("EPContext", ["images"], ["features"], domain="com.microsoft"), "EPContext of another program"),
    "loop": (node("Loop", ["n", "", "images"], ["features"], body=body([])), r"has a loop (Loop)"),
    "scan": (node("Scan", ["images"], ["features"], body=body([]), num_scan_inputs=1), "has a loop (Scan)"),
    "sequence": (node("SequenceMap", ["images"], ["features"], body=body([])), "has a loop (SequenceMap)"),
    "subgraph": (
        node("BeamSearch", ["images"], ["features"], domain="com.microsoft", decoder=body([])),
        "has a loop (com.microsoft:BeamSearch)",
    ),
    "hidden": (
        node("If", ["c"], ["features"], then_branch=body([node("Loop", ["n"], ["inner"], body=body([]))])),
        "has a loop (Loop)",
    ),
    "deep": (nested(9), "branches more than 8 deep"),
    "training": (
        node("BatchNormalization", ["images", "a", "b", "c", "d"], ["features"], training_mode=1),
        "BatchNormalization is in training mode",
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_what_no_plain_graph_has_is_refused(tmp_path, name):
    operator, words = OPERATORS[name]
    assert words in refusal(save([operator], tmp_path / "model.onnx"))


def test_functions_are_refused(tmp_path):
    function = helper.make_function(
        "own", "Mean", ["x"], ["y"], [node("GlobalAveragePool", ["x"], ["y"])], [helper.make_opsetid("", 18)]
    )
    nodes = [node("Mean", ["images"], ["pooled"], domain="own"), mean_colour()[1]]
    assert "defines functions of its own (Mean)" in refusal(save(nodes, tmp_path / "model.onnx", functions=[function]))


def test_a_branch_is_run(without_trial, tmp_path):
    nodes = [*flatten(), nested(1)]
    nodes[-1].output[0] = "features"
    file = save(nodes, tmp_path / "model.onnx", initializer=[constant(np.array(True), "condition")])
    np.testing.assert_allclose(run(file), run(save(mean_colour(), tmp_path / "plain.onnx")))


HUGE = 1 << 20


def huge() -> dict[str, tuple[list[onnx.NodeProto], dict]]:
    """Graphs that would take terabytes, or years: what is added is zero times something huge."""
    flat = flatten()
    size = constant(np.array([HUGE, HUGE], dtype=np.int64), "size")
    end = [node("ReduceSum", ["big"], ["sum"], keepdims=0), node("Add", ["flat", "sum"], ["features"])]
    one = constant(np.ones((1, 1), dtype=np.float32), "one")
    return {
        "constant": ([*flat, node("ConstantOfShape", ["size"], ["big"]), *end], {"initializer": [size]}),
        "five gigabytes": (
            [*flat, node("ConstantOfShape", ["size"], ["big"]), *end],
            {"initializer": [constant(np.array([1_250_000_000], dtype=np.int64), "size")]},
        ),
        "expand": ([*flat, node("Expand", ["one", "size"], ["big"]), *end], {"initializer": [size, one]}),
        "tile": ([*flat, node("Tile", ["flat", "size"], ["big"]), *end], {"initializer": [size]}),
        "pad": (
            [*flat, node("Pad", ["flat", "pads"], ["big"]), *end],
            {"initializer": [constant(np.array([0, 0, HUGE, HUGE], dtype=np.int64), "pads")]},
        ),
        "range": (
            [*flat, node("Range", ["a", "b", "c"], ["big"]), *end],
            {"initializer": [constant(np.float32(one), name) for name, one in (("a", 0), ("b", 1e15), ("c", 1))]},
        ),
    }


@pytest.mark.parametrize("name", huge())
def test_a_graph_that_takes_all_memory_is_one_message(tmp_path, name):
    nodes, changes = huge()[name]
    file = save(nodes, tmp_path / "model.onnx", **changes)
    words = "more than 4294967296 bytes" if name == "tile" else "needs more than 4 GB for two images"
    with pytest.raises(DataError, match=rf"cannot be run by onnxruntime \(.*{words}"):
        read(file).open(1, "cpu")


def test_weights_that_are_said_to_be_huge_or_negative_are_refused(tmp_path):
    weights = constant(np.ones(3, dtype=np.float32), "weights")
    weights.dims[0] = 1 << 40
    assert "states weights of 4.4e+12 bytes" in refusal(save(mean_colour(), tmp_path / "m.onnx", initializer=[weights]))
    weights.dims[0] = -3
    assert "has a negative size" in refusal(save(mean_colour(), tmp_path / "m.onnx", initializer=[weights]))


FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64
SHAPES = {
    "two inputs": (
        {"inputs": [tensor("a", FLOAT, [1, 3, 8, 4]), tensor("b", FLOAT, [1, 3, 8, 4])]},
        "has 2 image inputs (a float32 (1, 3, 8, 4); b float32 (1, 3, 8, 4)): expected one",
    ),
    "no input": ({"inputs": []}, "has 0 image inputs"),
    "two outputs": (
        {"outputs": [tensor("a", FLOAT, ["n", 3]), tensor("b", FLOAT, ["n", 3])]},
        "has 2 outputs (a float32 (?, 3); b float32 (?, 3)): expected one",
    ),
    "maps": ({"outputs": [tensor("features", FLOAT, ["n", 3, 1, 1])]}, "features float32 (?, 3, 1, 1)"),
    "classes": ({"outputs": [tensor("features", INT, ["n", 3])]}, "expected floating-point features"),
    "vectors": ({"inputs": [tensor("images", FLOAT, ["n", 3])]}, "expected images, (batch, 3, height, width)"),
    "grey": ({"inputs": [tensor("images", FLOAT, ["n", 1, 8, 4])]}, "expected 3 channels"),
    "text": ({"inputs": [tensor("images", TensorProto.STRING, ["n", 3, 8, 4])]}, "expected images"),
    "large": ({"inputs": [tensor("images", FLOAT, ["n", 3, 100_000, 4])]}, "of height 100,000: expected at most 2,048"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_inputs_and_outputs_of_another_kind_are_named(tmp_path, name):
    changes, words = SHAPES[name]
    assert words in refusal(save(mean_colour(), tmp_path / "model.onnx", **changes))


def test_another_width_than_the_stated_one_is_refused(tmp_path):
    file = save(mean_colour(), tmp_path / "model.onnx", outputs=[tensor("features", FLOAT, ["n", 4])])
    with pytest.raises(DataError, match="returned features of width 3, but states 4"):
        run(file)


def test_weights_among_the_inputs_and_sizes_of_minus_1_are_those_of_other_programs(without_trial, tmp_path):
    images = tensor("images", FLOAT, [-1, 3, -1, -1])
    file = save(
        [*flatten(), node("Mul", ["flat", "weights"], ["features"])],
        tmp_path / "model.onnx",
        inputs=[images, tensor("weights", FLOAT, [3])],
        outputs=[tensor("features", FLOAT, [-1, 3])],
        initializer=[constant(np.full(3, 2, dtype=np.float32), "weights")],
    )
    graph = read_graph(file, GraphSettings.make(height=8, width=4), Silent())
    assert (graph.batch, graph.width) == (None, 3)
    expected = 2 * run(save(mean_colour(), tmp_path / "plain.onnx"))
    np.testing.assert_allclose(graph.open(1, "cpu").run(IMAGES), expected, rtol=1e-6)


def test_a_graph_that_depends_on_chance_is_refused(tmp_path):
    nodes = [
        *flatten(),
        node("RandomNormalLike", ["flat"], ["features"]),
    ]
    with pytest.raises(DataError, match="other features of the same image the second time"):
        run(save(nodes, tmp_path / "model.onnx"))


def test_images_that_influence_one_another_are_run_one_at_a_time(tmp_path):
    """The mean over the batch is added, or the batch is taken for one image: with one image, both do no harm."""
    flat = flatten()
    axis, shape = constant(np.array([0]), "axis"), constant(np.array([1, 3]), "shape")
    mean = [node("ReduceMean", ["flat", "axis"], ["mean"], keepdims=1), node("Add", ["flat", "mean"], ["features"])]
    reshape = [node("Reshape", ["flat", "shape"], ["features"])]
    expected = run(save(mean_colour(), tmp_path / "plain.onnx"))
    for end, factor in ((mean, 2), (reshape, 1)):
        session = read(save([*flat, *end], tmp_path / "model.onnx", initializer=[axis, shape])).open(1, "cpu")
        assert session.spec.batch == 1
        np.testing.assert_allclose(session.run(IMAGES), factor * expected, rtol=1e-5)


def test_images_that_influence_one_another_in_a_fixed_batch_are_refused(tmp_path):
    nodes = [
        *flatten(),
        node("CumSum", ["flat", "axis"], ["features"]),
    ]
    changes = {"inputs": [tensor("images", FLOAT, [4, 3, 8, 4])], "initializer": [constant(np.array(0), "axis")]}
    with pytest.raises(DataError, match="change with its place in the batch of 4"):
        run(save(nodes, tmp_path / "model.onnx", **changes))


def test_a_trial_that_takes_too_long_or_crashes_is_one_message(tmp_path, monkeypatch):
    file = save(mean_colour(), tmp_path / "model.onnx")
    monkeypatch.setattr(graph_trial, "TRIAL_SECONDS", 0.001)
    with pytest.raises(DataError, match=r"after 0\.001 seconds"):
        run(file)
    monkeypatch.setattr(graph_trial, "TRIAL_SECONDS", 60)
    monkeypatch.setattr(graph_trial.sys, "executable", "/bin/false")
    with pytest.raises(DataError, match="ended onnxruntime"):
        run(file)


def test_what_onnxruntime_refuses_is_one_message(tmp_path):
    with pytest.raises(PtlreidError, match="cannot be run by onnxruntime") as error:
        run(save([node("NoSuchOperator", ["images"], ["features"])], tmp_path / "model.onnx"))
    assert "\n" not in str(error.value)
