"""The public names, used as in a notebook, and loaded lazily."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import api_page
import numpy as np
import pytest
from conftest import tiny_network
from PIL import Image

import ptlreid as public
from ptlreid import datasets
from ptlreid.errors import OptionError
from ptlreid.models import weights
from ptlreid.network_types import NetworkSpec
from ptlreid.runs import RunFolder
from ptlreid.settings import FinetuneSettings

NAMES = [
    "Extractor",
    "Features",
    "PtlreidError",
    "Records",
    "Retrieval",
    "RunFolder",
    "Scores",
    "Splits",
    "adapt_run",
    "build_index",
    "build_network",
    "calibrate_run",
    "compare",
    "compare_methods",
    "distill",
    "embed",
    "evaluate",
    "evaluate_run",
    "find_threshold",
    "finetune",
    "load_dataset",
    "load_extractor",
    "load_network",
    "open_model",
    "open_run",
    "prepare_dataset",
    "read_features",
    "rerank",
    "search",
    "search_features",
    "summarize_seeds",
    "transfer_chain",
    "write_features",
    "write_report",
]

SMALL = {"backbone": "tiny", "init": "none", "height": 64, "width": 32, "batch_size": 8, "epochs": 1, "device": "cpu"}


@pytest.fixture
def root(market_folder):
    return market_folder.parent


@pytest.fixture
def run(tmp_path, root) -> RunFolder:
    """`runs/tiny`, with random weights."""
    folder = RunFolder(tmp_path / "runs" / "tiny")
    chosen = FinetuneSettings.resolve(None, data="market", **SMALL)
    folder.claim(chosen, datasets.load("market", root))
    weights.save(tiny_network(classes=4), NetworkSpec("tiny", True, "slot", 4, 64, 32), folder.weights())
    return folder


def test_the_public_names_are_these_and_each_exists():
    assert public.__all__ == NAMES == sorted(NAMES)
    assert all(getattr(public, name) for name in NAMES)
    assert set(NAMES) <= set(dir(public))
    with pytest.raises(AttributeError, match="'fine_tune'"):
        _ = public.fine_tune


def test_every_function_of_the_api_is_public():
    api = import_module("ptlreid.api")
    own = {name for name, value in vars(api).items() if getattr(value, "__module__", "") == "ptlreid.api"}
    assert {name for name in own if not name.startswith("_")} <= set(NAMES)


def test_importing_the_package_loads_neither_torch_nor_numpy():
    code = "import ptlreid, sys; dir(ptlreid); sys.exit(any(name in sys.modules for name in ('torch', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_page_is_made_from_the_docstrings():
    assert api_page.PAGE.read_text(encoding="utf-8") == api_page.page(), "run `python tests/api_page.py --write`"


def test_a_run_is_evaluated_step_by_step_as_in_one_call(root, run):
    splits = public.load_dataset("market", root=root)
    extractor = public.load_extractor("tiny", runs=run.path.parent, device="cpu", batch_size=3)
    query, gallery = extractor.extract(splits.query), extractor.extract(splits.gallery)
    scores = public.evaluate(query, gallery)
    whole = public.evaluate_run("tiny", runs=run.path.parent, root=str(root), device="cpu")
    assert scores.mean_ap == pytest.approx(whole.mean_ap)
    assert public.evaluate(query, gallery, ap="trapezoid").mean_ap < scores.mean_ap
    mean_ap, cmc1 = public.compare(scores, whole, query, bootstrap=20)
    assert (mean_ap.value, cmc1.value) == (pytest.approx(0, abs=1e-6), 0)


def test_re_ranked_distances_are_those_that_are_scored(root, run):
    splits = public.load_dataset("market", root=root)
    extractor = public.load_extractor(run, device="cpu")
    query, gallery = extractor.extract(splits.query), extractor.extract(splits.gallery)
    distances = public.rerank(query, gallery, rerank_k1=4, rerank_k2=2)
    assert distances.shape == (6, 8)
    assert np.isinf(distances[:, gallery.pids == -1]).all()
    scores = public.evaluate(query, gallery, rerank=True, rerank_k1=4, rerank_k2=2)
    hidden = (gallery.pids == query.pids[0]) & (gallery.camids == query.camids[0])
    order = np.argsort(np.where(hidden, np.inf, distances[0]), kind="stable")
    assert scores.first_match_rank[0] == 1 + np.argmax(gallery.pids[order] == query.pids[0])


def test_weights_and_networks_are_loaded_from_a_run_or_a_file(root, run):
    image = Image.open(public.load_dataset("market", root=root).query.paths[0])
    expected = tiny_network(classes=4).state_dict()
    for source in (run, run.path, run.weights(), str(run.weights())):
        network = public.load_network(source)
        assert all((network.state_dict()[name] == value).all() for name, value in expected.items())
        assert public.load_extractor(source, device="cpu").extract([image]).matrix.shape == (1, 32)


def test_a_new_network_has_the_settings_of_finetune():
    ptl = public.build_network("tiny", 5, init="none", height=64, width=32, seed=3)
    plain = public.build_network("tiny", 5, init="none", height=64, width=32, ptl=False)
    assert len(list(ptl.parameters())) > len(list(plain.parameters()))
    with pytest.raises(OptionError, match="Did you mean 'height'"):
        public.build_network("tiny", 5, hight=64)


def test_training_and_a_report_as_the_commands_do_them(tmp_path, root, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chosen = {**SMALL, "root": str(root), "report": False}
    teacher = public.finetune("market", runs=tmp_path / "r", name="teacher", **chosen)
    assert teacher["run"] == "teacher"
    again = public.finetune("market", runs=tmp_path / "r", name="teacher", **chosen)
    assert again == teacher
    shared = {key: chosen[key] for key in ("init", "batch_size", "epochs", "device", "root", "report")}
    student = public.distill("teacher", runs=tmp_path / "r", name="student", lambda_=0.5, **shared)
    assert 0 <= student["mAP"] <= 1
    page = public.write_report(["teacher", "student"], runs=tmp_path / "r", out="both.html", root=str(root))
    assert "student" in page.read_text()


def test_two_methods_of_two_seeds_each(tmp_path, root, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results, scores = {}, {}
    for ptl in (False, True):
        settings = {**SMALL, "root": str(root), "ptl": ptl, "report": False}
        results[ptl] = [public.finetune("market", seed=seed, **settings) for seed in (0, 1)]
        scores[ptl] = [public.evaluate_run(one["run"], root=str(root), device="cpu") for one in results[ptl]]
    found = public.summarize_seeds(results[True])
    assert found["mean"]["mAP"] == pytest.approx(sum(one["mAP"] for one in results[True]) / 2)
    query = public.load_extractor(results[True][0]["run"], device="cpu").extract(
        public.load_dataset("market", root=root).query
    )
    mean_ap, _ = public.compare_methods(scores[False], scores[True], query, bootstrap=100)
    plain = public.summarize_seeds(results[False])["mean"]["mAP"]
    assert mean_ap.value == pytest.approx(found["mean"]["mAP"] - plain)
    with pytest.raises(OptionError, match=r"2 and 1 scores: expected one of each seed for both methods"):
        public.compare_methods(scores[False], scores[True][:1], query)


def test_a_chain_as_the_command_does_it(tmp_path, root):
    result = public.transfer_chain("market", runs=tmp_path, **SMALL, root=str(root), report=False)
    assert result["chain"] == ["market"]


def test_datasets_are_prepared(tmp_path):
    splits = public.prepare_dataset(
        "synthetic-b", root=tmp_path, identities=4, cameras=2, images_per_camera=2, height=64, width=32
    )
    assert splits.name == "synthetic-b"
    own = public.prepare_dataset("folder", tmp_path / "synthetic-b", root=tmp_path, name="lobby")
    assert (own.name, len(own.train)) == ("lobby", len(splits.train))
    with pytest.raises(OptionError, match="identities: apply to synthetic datasets"):
        public.prepare_dataset("market", root=tmp_path, identities=4)


def test_feature_files_round_trip(tmp_path):
    values = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    ids, paths = np.arange(1, 6), np.array(list("abcde"), dtype=object)
    public.write_features(public.Features(values, ids, ids, paths), tmp_path / "f.h5")
    np.testing.assert_array_equal(public.read_features(tmp_path / "f.h5").matrix, values)
