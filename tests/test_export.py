"""`ptlreid export`, as a user meets it: graphs that give the run's features, or no graph."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import ptlreid as package
from ptlreid import datasets, models
from ptlreid.adapt.camera_pass import collect_cameras
from ptlreid.export import formats
from ptlreid.features import Extractor
from ptlreid.files import file_digest
from ptlreid.json_files import write_json
from ptlreid.models.camera_statistics import save_cameras
from ptlreid.models.graph_file import read_graph
from ptlreid.models.weights import save
from ptlreid.network_types import NetworkSpec
from ptlreid.progress import Silent
from ptlreid.runs import RunFolder
from ptlreid.settings import EvaluateSettings, GraphSettings


@pytest.fixture
def export(ptlreid, run, market_folder):
    """Runs `ptlreid export --run tiny ... --json`; returns its exit code, document and standard error."""

    def export_with(*arguments: object):
        given = ("--run", "tiny", "--root", market_folder.parent, "--device", "cpu", "--no-speed", "--json")
        code, out, err = ptlreid("export", *arguments, *given)
        return code, json.loads(out) if out else None, err

    return export_with


def graph_features(file: str, records, **settings) -> np.ndarray:
    graph = read_graph(Path(file), GraphSettings.make(), Silent())
    return Extractor.from_graph(graph, EvaluateSettings.make(device="cpu", **settings)).extract(records).matrix


@pytest.mark.parametrize(
    ("options", "readout", "error"),
    [
        ([], {}, 1e-5),
        (["--with-preprocessing", "--flip", "--normalize"], {"flip": True, "normalize": True}, 1e-5),
        (["--with-preprocessing", "--planar", "--normalize"], {"normalize": True}, 1e-5),
        (["--half"], {}, 1e-2),
    ],
)
def test_a_graph_has_the_features_of_the_run(export, run, market_folder, options, readout, error):
    code, card, err = export("--out", "m.onnx", *options)
    assert code == 0, err
    assert card["files"] == ["m.json", "m.md", "m.onnx"]
    images = datasets.load("market", market_folder.parent).gallery
    expected = package.load_extractor(run, device="cpu", **readout).extract(images).matrix
    np.testing.assert_allclose(graph_features("m.onnx", images), expected, rtol=error, atol=error)
    onnx.checker.check_model("m.onnx", full_check=True)


def test_the_card_says_how_the_graph_is_used_and_where_it_is_from(export, run, ptlreid, market_folder):
    code, _, err = ptlreid("calibrate", "--run", "tiny", "--root", market_folder.parent, "--device", "cpu")
    assert code == 0, err
    code, card, err = export("--out", "m.onnx", "--with-preprocessing")
    assert code == 0, err
    written = json.loads(Path("m.json").read_text())
    assert {name: value for name, value in written.items() if name != "content"} == {
        name: value for name, value in card.items() if name != "files"
    }
    assert card["input"] == {
        "name": "images",
        "layout": "NHWC",
        "dtype": "uint8",
        "height": 64,
        "width": 32,
        "color": "RGB",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "interpolation": "bilinear",
        "preprocessing": "graph",
    }
    assert card["output"] == {"name": "features", "width": 32, "flip": False, "normalize": False}
    assert (card["digest"], card["cameras"]) == (file_digest(Path("m.onnx")), None)
    assert card["weights"]["digest"] == file_digest(run.weights())
    assert "random weights" in card["weights"]["licence"]
    assert (card["training"]["data"], card["training"]["images"], card["training"]["identities"]) == ("market", 16, 4)
    assert card["gate"]["images"] == 14  # all of the query and the gallery
    assert list(card["gate"]["batches"]) == ["1", "7", "64"]
    thresholds = json.loads(run.thresholds.read_text())["calibrations"][0]
    assert card["thresholds"] == thresholds
    names = {one["name"] for one in thresholds["operating_points"] if one["threshold"] is not None}
    assert names
    assert names <= set(card["gate"]["decisions_changed"])
    images = datasets.load("market", market_folder.parent)
    query, gallery = images.query.paths[0], images.gallery.paths[0].parent
    search = ("search", query, "--gallery", gallery, "--threshold", "eer", "--device", "cpu", "--json")
    found = [json.loads(ptlreid(*search, *one)[1]) for one in (("--run", "tiny"), ("--model", "m.onnx"))]
    assert found[0]["threshold"] == found[1]["threshold"]
    page = Path("m.md").read_text()
    assert "(batch, 64, 32, 3) uint8" in page
    assert card["digest"] in page


def test_an_onnx_file_holds_its_facts_and_no_path_of_this_machine(export, tmp_path):
    assert export("--out", "m.onnx")[0] == 0
    model = onnx.load("m.onnx")
    facts = {one.key: one.value for one in model.metadata_props}
    assert json.loads(facts["input"])["mean"] == [0.485, 0.456, 0.406]
    assert json.loads(facts["scores"])["data"] == "market"
    assert [one.version for one in model.opset_import if not one.domain] == [formats.OPSET]
    content = Path("m.onnx").read_bytes()
    for place in (tmp_path, Path(package.__file__).parent):
        assert str(place).encode() not in content
    # Latent states of the cells are zero in evaluation: no tensor has more to do with them than the gates.
    assert not [one.name for one in model.graph.initializer if "state" in one.name]
    sizes = [one.dim_param for one in model.graph.input[0].type.tensor_type.shape.dim]
    assert sizes[0] == "batch"


@pytest.mark.parametrize("name", ["m.pt2", "m.xml"])
def test_other_formats_pass_the_same_gate_in_their_own_runtime(export, name):
    code, card, err = export("--out", name)
    assert code == 0, err
    assert card["gate"]["features"]["min_cosine"] > 0.999999
    assert name in card["files"]
    assert ("m.bin" in card["files"]) == (name == "m.xml")


def damage(file: Path) -> None:
    """Change one weight of the graph by 1%."""
    model = onnx.load(file)
    tensor = next(one for one in model.graph.initializer if one.name.endswith("conv_weight") or "0_weight" in one.name)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] *= 1.01
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    file.write_bytes(model.SerializeToString())


def test_a_graph_with_one_weight_changed_gets_no_name(export, monkeypatch, tmp_path):
    write = formats.write

    def write_damaged(program, file, metadata, *, half):
        write(program, file, metadata, half=half)
        damage(file)

    monkeypatch.setattr(formats, "write", write_damaged)
    before = sorted(tmp_path.iterdir())
    code, _, err = export("--out", "m.onnx")
    assert code == 1
    assert "1 of its tensors are not those of the run" in err
    assert sorted(tmp_path.iterdir()) == before


@pytest.fixture
def made(export) -> Path:
    """A graph whose pixels the caller standardises."""
    assert export("--out", "m.onnx")[0] == 0
    return Path("m.onnx")


def edit_card(file: Path, **image: object) -> None:
    card = json.loads(file.with_suffix(".json").read_text())
    card.pop("content")
    write_json(file.with_suffix(".json"), card | {"input": card["input"] | image})


@pytest.mark.parametrize("image", [{"mean": [0.229, 0.224, 0.225], "std": [0.485, 0.456, 0.406]}, {"color": "BGR"}, {}])
def test_the_gate_of_an_existing_graph_notices_another_preprocessing(export, made, image):
    edit_card(made, **image)
    code, found, err = export("--gate", "m.onnx")
    assert code == (1 if image else 0), err
    assert ("does not agree with runs/tiny: " in err) == bool(image)
    if found:
        assert found["files"] == []


def test_the_gate_notices_weights_that_another_program_changed(export, made):
    model = onnx.load(made)
    weights = [one for one in model.graph.initializer if one.name.endswith("weight") and len(one.dims) == 4]
    values = numpy_helper.to_array(weights[-1]) * np.float32(1.05)
    weights[-1].CopyFrom(numpy_helper.from_array(values, weights[-1].name))
    onnx.save(model, "other.onnx")
    code, _, err = export("--gate", "other.onnx")
    assert (code, "features differ by up to" in err) == (1, True), err


def test_features_of_another_runtime_pass_the_gate_if_they_are_those_of_the_run(export, run, market_folder):
    splits = datasets.load("market", market_folder.parent)
    both = splits.query.join(splits.gallery)
    features = package.load_extractor(run, device="cpu").extract(both)
    package.write_features(features, "engine.h5")
    code, found, err = export("--gate", "engine.h5")
    assert code == 0, err
    assert found["gate"]["features"]["min_cosine"] == pytest.approx(1)
    package.write_features(features.select(np.arange(1, len(both))), "fewer.h5")
    code, _, err = export("--gate", "fewer.h5")
    assert (code, f"1 of {len(splits.query)} test images" in err) == (1, True)
    swapped = features.matrix[[2, 1, 0, *range(3, len(both))]]
    package.write_features(type(features)(swapped, *(getattr(features, name) for name in NAMES)), "swapped.h5")
    assert export("--gate", "swapped.h5")[0] == 1


NAMES = ("pids", "camids", "paths", "clothes")


@pytest.fixture
def adapted(run, market_folder) -> RunFolder:
    """The run with statistics of its two cameras."""
    splits = datasets.load("market", market_folder.parent)
    extractor = Extractor.from_run(run, EvaluateSettings.resolve(None, device="cpu"))
    save_cameras(collect_cameras(extractor, splits.train), run.weights())
    return run


def test_a_run_with_cameras_has_their_numbers_as_a_second_input(export, adapted, market_folder):
    code, card, err = export("--out", "m.onnx")
    assert code == 0, err
    assert card["cameras"] == {"input": "camera", "names": [{"data": "market", "camera": one} for one in (1, 2)]}
    images = datasets.load("market", market_folder.parent).gallery
    expected = package.load_extractor(adapted, device="cpu").extract(images).matrix
    np.testing.assert_allclose(graph_features("m.onnx", images), expected, atol=1e-5)
    assert "1: camera 2 of market; 2: any other" in Path("m.md").read_text()


@pytest.mark.parametrize(("camera", "number"), [("2", 2), ("market:1", 1), ("site", -1)])
def test_a_graph_of_one_camera_has_its_statistics_for_all_images(export, adapted, market_folder, camera, number):
    code, card, err = export("--out", "m.onnx", "--camera", camera)
    assert code == 0, err
    assert (card["cameras"], card["camera"]) == (None, camera)
    images = datasets.load("market", market_folder.parent).gallery
    vars(images)["camids"] = np.full_like(images.camids, number)  # as if that camera had taken all
    expected = package.load_extractor(adapted, device="cpu").extract(images).matrix
    np.testing.assert_allclose(graph_features("m.onnx", images), expected, atol=1e-5)


def test_a_camera_that_is_not_known_is_one_message(export, run, adapted):
    code, _, err = export("--out", "m.onnx", "--camera", "7")
    assert (code, "expected one of market:1, market:2, 1, 2, site" in err) == (1, True)
    (run.path / "cameras.safetensors").unlink()
    code, _, err = export("--out", "m.onnx", "--camera", "2")
    assert (code, "the run has no statistics of cameras" in err) == (1, True)


def test_a_bundle_is_a_run_to_evaluate_and_to_go_on_from(export, ptlreid, run, market_folder):
    code, card, err = export("--bundle", "hub", "--with-preprocessing")
    assert code == 0, err
    assert "hub/README.md" in card["files"]
    text = "".join((Path("hub") / name).read_text() for name in ("config.toml", "README.md", "model.json"))
    assert str(market_folder.parent) not in text
    root = ("--root", market_folder.parent, "--device", "cpu", "--json")
    scores = [json.loads(ptlreid("evaluate", "--run", name, *root)[1]) for name in ("tiny", "hub")]
    assert scores[0]["mAP"] == scores[1]["mAP"]
    options = (
        "--data",
        "market",
        "--backbone",
        "tiny",
        "--height",
        64,
        "--width",
        32,
        "--epochs",
        0,
        "--batch-size",
        8,
    )
    code, _, err = ptlreid("finetune", *options, "--no-report", "--init", "hub", "--name", "on", *root)
    assert code == 0, err
    assert "initialised from hub" in err
    code, _, err = export("--bundle", "hub")
    assert (code, "exists already" in err) == (1, True)


def test_the_example_of_a_bundle_needs_only_onnxruntime_numpy_and_pillow(export, run, market_folder):
    assert export("--bundle", "hub")[0] == 0
    images = [str(path) for path in datasets.load("market", market_folder.parent).query.paths[:2]]
    only = (
        "import sys, runpy\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'ptlreid', 'torchvision', 'onnx', 'scipy'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    command = [sys.executable, "-c", only, "hub/example.py", *images]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second = package.load_extractor(run, device="cpu").extract(images).matrix.astype(np.float64)
    assert float(done.stdout) == pytest.approx(np.linalg.norm(first - second), rel=1e-4)
    lines = [line for line in Path("hub/example.py").read_text().splitlines() if line and not line.startswith('"""')]
    assert len(lines) < 30


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "expected --run RUN and one of --out FILE, --bundle DIR and --gate FILE"),
        (["--out", "a.onnx", "--bundle", "b"], "expected --run RUN and one of"),
        (["--out", "model.engine"], "unknown format, expected a name that ends in .onnx, .pt2, .xml"),
        (["--gate", "missing.onnx"], "missing.onnx"),
        (["--out", "m.onnx", "--planar"], "Add --with-preprocessing, or leave --planar out"),
    ],
)
def test_wrong_use_is_one_message(export, arguments, text):
    code, _, err = export(*arguments)
    assert (code, err.count("error:")) == (1, 1)
    assert text in " ".join(err.split())


def test_the_licence_of_the_first_weights_is_followed_from_run_to_run(export, run, tmp_path):
    from ptlreid.export.card import find_licence

    second = RunFolder(tmp_path / "runs" / "second")
    shutil.copytree(run.path, second.path)
    for init, text in (("tiny", "random weights"), ("imagenet", "torchvision"), ("gone/w.pth", "not known")):
        settings = run.settings().model_copy(update={"init": init})
        second.config.write_text(settings.to_toml())
        assert text in find_licence(second)


def test_a_card_and_a_bundle_name_datasets_without_their_folders(export, run, market_folder):
    settings = run.settings().model_copy(update={"data": f"{market_folder}+duke", "init": "/home/me/weights.pth"})
    run.config.write_text(settings.to_toml())
    code, card, err = export("--bundle", "hub", "--data", "market")
    assert code == 0, err
    assert (card["training"]["data"], card["training"]["init"]) == ("market+duke", "weights.pth")
    written = Path("hub/config.toml").read_text()
    assert 'data = "market+duke"' in written
    assert "/home/me" not in written


def test_other_weights_of_a_run_are_exported_with_their_scores(export, ptlreid, run, market_folder):
    spec = NetworkSpec("tiny", True, "slot", 4, 64, 32)
    save(models.build(spec, seed=5), spec, run.weights("best"))
    last = {"run": "tiny", "weights": "last", "weights_digest": "0" * 32, "mAP": 0.1, "averaged": {"mAP": 0.2}}
    write_json(run.metrics, last)
    code, card, err = export("--out", "m.onnx", "--weights", "best")
    assert code == 0, err
    assert card["gate"]["features"]["min_cosine"] > 0.999999
    code, _, err = export("--gate", "m.onnx", "--weights", "best")
    assert code == 0, err
    code, card, err = export("--bundle", "hub", "--weights", "best")
    assert code == 0, err
    metrics = json.loads(Path("hub/metrics.json").read_text())
    assert (metrics["mAP"], metrics["weights"], "averaged" in metrics) == (card["scores"]["mAP"], "last", False)
    root = ("--root", market_folder.parent, "--device", "cpu", "--json")
    scores = json.loads(ptlreid("evaluate", "--run", "hub", *root)[1])
    assert scores["mAP"] == metrics["mAP"]
    assert scores["weights_digest"] == metrics["weights_digest"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.json", '{"my": "notes"}', "m.json exists and is no card of a graph"),
        ("m.json", "not json", "m.json exists and is no card of a graph"),
        ("m.json", '{"file": "m.pt2"}', "m.json exists and is the card of m.pt2"),
        ("m.md", "# mine", "would replace m.md"),
    ],
)
def test_no_other_file_is_replaced(export, name, content, message):
    Path(name).write_text(content)
    code, _, err = export("--out", "m.onnx")
    assert (code, message in err) == (1, True), err
    assert Path(name).read_text() == content
    assert not Path("m.onnx").exists()


def test_the_same_graph_is_written_again(export):
    for _ in range(2):
        code, _, err = export("--out", "m.onnx")
        assert code == 0, err
