"""ONNX models in the place of a run, through the commands: scores, features, searches, thresholds, comparisons."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import write_image
from graphs import save, write_model
from onnx import TensorProto, helper

import ptlreid as public
from ptlreid import datasets
from ptlreid.image_files import read_image
from ptlreid.models import graph_file
from ptlreid.models.graph_session import GraphSpec
from ptlreid.models.graph_trial import try_graph
from ptlreid.retrieval.types import Features


@pytest.fixture(scope="module")
def site(tmp_path_factory, market_folder) -> Path:
    """A folder with `data/market` and two models: `colours.onnx`, and `reds.onnx`, which knows red alone."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(market_folder, folder / "data" / "market")
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 64, 32])
    write_model(folder / "colours.onnx")
    red = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Split", ["flat"], ["features", "green", "blue"], axis=1, num_outputs=3),
    ]
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 1])
    save(red, folder / "reds.onnx", inputs=[image], outputs=[features])
    return folder


@pytest.fixture(autouse=True)
def one_trial(monkeypatch) -> None:
    """Each graph is tried once in all of these tests: a trial takes half a second."""

    def remember(spec: GraphSpec) -> GraphSpec:
        known = TRIED[spec.path] = TRIED.get(spec.path) or try_graph(spec)
        return replace(spec, width=known.width, batch=known.batch)

    monkeypatch.setattr(graph_file, "try_graph", remember)


TRIED: dict[Path, GraphSpec] = {}


@pytest.fixture
def command(site, ptlreid, monkeypatch):
    """Runs a command in the site's folder; returns its JSON document."""

    def run(*arguments: object, fails: bool = False):
        monkeypatch.chdir(site)
        code, out, err = ptlreid(*arguments, *([] if fails else ["--json"]))
        assert code == (1 if fails else 0), err
        return err if fails else json.loads(out)

    return run


def colours(records, order=(0, 1, 2)) -> Features:
    """The mean colours of images, standardised by ImageNet's numbers, in the given order of the channels."""
    means = np.array([np.asarray(read_image(path)).mean(axis=(0, 1)) / 255 for path in records.paths])
    matrix = ((means - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225])[:, list(order)]
    return Features(matrix.astype(np.float32), records.pids, records.camids, records.paths.astype(str).astype(object))


def expected_map(site: Path) -> float:
    splits = datasets.load("market", site / "data")
    return public.evaluate(colours(splits.query), colours(splits.gallery)).mean_ap


ON_MARKET = ("--data", "market", "--device", "cpu")


def test_a_model_is_scored_and_its_features_are_kept_below_the_runs(command, site):
    before = {path.name for path in site.iterdir()}
    found = command("evaluate", "--model", "colours.onnx", *ON_MARKET)
    assert found["mAP"] == pytest.approx(expected_map(site))
    assert (found["run"], found["readout"]) == ("colours.onnx", {"flip": False, "normalize": False})
    folder = site / "runs" / "models" / f"colours-{found['weights_digest'][:8]}"
    assert sorted(path.name for path in (folder / "features").iterdir()) == [
        "market.gallery.last.h5",
        "market.query.last.h5",
    ]
    assert {path.name for path in site.iterdir()} == before | {"runs"}
    stamp = (folder / "features" / "market.query.last.h5").stat().st_mtime_ns
    assert command("evaluate", "--model", "colours.onnx", *ON_MARKET) == found
    assert (folder / "features" / "market.query.last.h5").stat().st_mtime_ns == stamp


def test_other_colours_are_another_score(command, site):
    found = command("evaluate", "--model", "colours.onnx", "--bgr", "--mean", "0,0,0", "--std", "1,1,1", *ON_MARKET)
    plain = command("evaluate", "--model", "colours.onnx", "--mean", "0,0,0", "--std", "1,1,1", *ON_MARKET)
    assert found["mAP"] == pytest.approx(plain["mAP"])  # Euclidean distances know no order of the channels
    other = command("evaluate", "--model", "colours.onnx", "--std", "1,1,0.01", *ON_MARKET)
    assert other["mAP"] != pytest.approx(plain["mAP"])


def test_models_are_compared_before_runs(command, site):
    given = ("--model", "colours.onnx", "--model", "reds.onnx")
    found = command("compare", *given, *ON_MARKET, "--bootstrap", 20)
    assert [one["run"] for one in found["runs"]] == ["colours.onnx", "reds.onnx"]
    (difference,) = found["differences"]
    assert (difference["run"], difference["against"]) == ("reds.onnx", "colours.onnx")
    first, second = (one["mAP"] for one in found["runs"])
    assert first == pytest.approx(expected_map(site))
    assert difference["mAP"]["difference"] == pytest.approx(second - first)


def test_a_search_and_a_feature_file_of_a_model_agree(command, site):
    write_image(site / "crops" / "a.jpg", 50)
    written = command(
        "embed", "market", "--part", "gallery", "--model", "colours.onnx", "--out", "g.h5", "--device", "cpu"
    )
    assert (written["run"], written["files"][0]["width"]) == ("colours.onnx", 3)
    answers = [
        command("search", "crops/a.jpg", "--model", "colours.onnx", "--gallery", gallery, "--device", "cpu")["queries"]
        for gallery in ("market", "g.h5")
    ]
    ranks = [[(hit["path"], round(hit["distance"], 5)) for hit in one[0]["hits"]] for one in answers]
    assert ranks[0] == ranks[1]
    query = colours(public.Records.make([site / "crops" / "a.jpg"], [0], [0], source="")).matrix
    gallery = colours(datasets.load("market", site / "data").gallery)
    distances = np.sort(np.linalg.norm(gallery.matrix - query, axis=1))
    np.testing.assert_allclose([distance for _, distance in ranks[0]], distances, atol=2e-2)
    message = command("search", "crops/a.jpg", "--model", "reds.onnx", "--gallery", "g.h5", fails=True)
    assert "extracted with other weights than those of this run" in message


def test_thresholds_of_a_model_are_saved_and_found(command, site):
    saved = command("calibrate", "--model", "colours.onnx", *ON_MARKET, "--bootstrap", 10)
    assert Path(saved["thresholds"]).parent.parent == Path("runs") / "models"
    applied = command("evaluate", "--model", "colours.onnx", *ON_MARKET, "--thresholds", "colours.onnx")
    assert applied["thresholds"]["data"] == "market"
    model = public.open_model(site / "colours.onnx", runs=site / "runs")
    assert public.find_threshold(model, "eer", device="cpu") == saved["operating_points"][0]["threshold"]
    message = command("evaluate", "--model", "reds.onnx", *ON_MARKET, "--thresholds", "reds.onnx", fails=True)
    assert "ptlreid calibrate --model reds.onnx" in message


def test_check_prints_the_facts_and_where_they_come_from(command, site):
    found = command("check", "--model", "colours.onnx", "--bgr")
    assert (found["input"]["color"], found["origins"]["color"]) == ("BGR", "--bgr")
    assert (found["origins"]["mean"], found["origins"]["height"]) == ("default", "graph")
    assert (found["output"]["width"], found["batch"], found["opset"]) == (3, None, 18)


def test_the_python_functions_take_a_model(site, monkeypatch):
    monkeypatch.chdir(site)
    model = public.open_model("colours.onnx", bgr=True)
    scores = public.evaluate_run(model, "market", device="cpu")
    assert 0 < scores.mean_ap <= 1
    splits = public.load_dataset("market")
    extracted = public.load_extractor(model, device="cpu").extract(splits.query)
    np.testing.assert_allclose(extracted.matrix, colours(splits.query, (2, 1, 0)).matrix, atol=1e-4)
    plain = public.load_extractor("colours.onnx", device="cpu").extract(splits.query)
    np.testing.assert_allclose(plain.matrix, colours(splits.query).matrix, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("evaluate", "--model", "colours.onnx"),
            "does not state a dataset, expected that to use. Name it with --data",
        ),
        (("evaluate", "--model", "colours.onnx", "--run", "x"), "Nothing to evaluate"),
        (("evaluate", "--run", "x", "--bgr"), "--bgr: for a --model only"),
        (("evaluate", "--query", "q.npz", "--gallery", "g.npz", "--mean", "0,0,0"), "--mean: for a --model only"),
        (("compare", "--model", "colours.onnx", "--data", "market"), "Runs and models given: 1, expected two"),
        (("compare", "--methods", "a-s*", "--model", "colours.onnx"), "--model with --methods"),
        (("check",), "Nothing to check"),
        (("check", "market", "--model", "colours.onnx"), "Nothing to check"),
        (("check", "market", "--std", "1,1,1"), "--std: for a --model only"),
        (("check", "--model", "missing.onnx"), "missing.onnx: cannot be read"),
        (("embed", "crops", "--out", "x.h5"), "Nothing to embed"),
        (("evaluate", "--model", "colours.onnx", "--height", 0, "--data", "market"), "--height 0: expected an integer"),
        (("evaluate", "--model", "colours.onnx", "--std", "1,1", "--data", "market"), "expected three numbers"),
    ],
)
def test_what_does_not_go_together_is_refused(command, arguments, words):
    assert words in " ".join(command(*arguments, fails=True).split())


def test_without_onnxruntime_the_message_says_what_to_install(command, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "pip install 'ptlreid[export]'" in command("check", "--model", "colours.onnx", fails=True)
