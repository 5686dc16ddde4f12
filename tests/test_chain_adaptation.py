"""Chains with stages of adaptation, whose images have no identities."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ptlreid import datasets, files
from ptlreid.datasets import synthetic
from ptlreid.errors import DataError, OptionError
from ptlreid.evaluation import evaluate_run
from ptlreid.progress import Silent
from ptlreid.reports.chain_page import read_chain
from ptlreid.runs import RunFolder
from ptlreid.settings import AdaptSettings, ChainSettings, EvaluateSettings, FinetuneSettings, SyntheticSettings
from ptlreid.transfer.chain_folder import ChainFolder
from ptlreid.transfer.matrix import forgetting, forward_transfer
from ptlreid.transfer.stages import StageRunner, plan_stages
from ptlreid.workflows.chain import dry_run, run_chain

HOME, SITE = "synthetic-a", "synthetic-b"
LOBBY = f"{SITE}:unlabelled"
CLUSTERS = {"batch_size": 8, "images_per_identity": 2, "k1": 4, "k2": 2, "min_samples": 2, "epochs": 1}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sites")
    for site in (HOME, SITE):
        small = SyntheticSettings(identities=8, cameras=2, images_per_camera=2, height=64, width=32)
        synthetic.prepare(folder / site, site[-1], small)
    return folder


def make_settings(root, *stages, **changed) -> ChainSettings:
    small = {"backbone": "tiny", "init": "none", "height": 64, "width": 32, "batch_size": 4, "epochs": 1, "lr": 0.02}
    where = {"device": "cpu", "root": str(root), "evaluate_every": 0, "report": False}
    tables = [{"data": one} if isinstance(one, str) else one for one in stages]
    return ChainSettings.resolve(None, stage=tables, **small | where | changed)


class Notes(Silent):
    def __init__(self) -> None:
        self.notes = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory):
    """A chain from one site to the cameras of another and back, with its folder of runs and its result."""
    runs = tmp_path_factory.mktemp("whole")
    settings = make_settings(root, HOME, {"data": LOBBY, **CLUSTERS}, HOME)
    return settings, runs, run_chain(settings, ChainFolder(runs / "chain"), Silent())


def test_a_stage_without_identities_adapts_the_run_before_and_the_next_one_starts_from_it(whole):
    _, runs, result = whole
    first, second, third = (RunFolder(runs / stage["run"]) for stage in result["stages"])
    adapted = second.settings()
    assert isinstance(adapted, AdaptSettings)
    assert (adapted.run, adapted.data, adapted.method_, adapted.epochs) == (first.path.name, LOBBY, "cluster", 1)
    assert second.path.name.startswith(f"{SITE}-unlabelled-tiny-ptl-adapt-s0-")
    assert second.read_manifest()["depends"] == {"run": files.file_digest(first.weights())}
    assert third.settings().init == second.path.name
    assert [stage["method"] for stage in result["stages"]] == ["ptl", "ptl-adapt", "ptl"]


def test_each_test_set_is_scored_once_with_the_statistics_of_its_cameras(whole):
    settings, runs, result = whole
    assert read_chain(runs / "chain" / "chain.json") == result
    assert result["chain"] == [HOME, LOBBY, HOME]
    assert result["rows"] == ["start", HOME, LOBBY, HOME]
    assert result["data"] == [HOME, SITE]
    before, after = RunFolder(runs / result["stages"][0]["run"]), RunFolder(runs / result["stages"][1]["run"])
    splits = datasets.load(SITE, Path(settings.root))
    for run, row in ((before, 1), (after, 2)):
        scores = evaluate_run(run, splits, EvaluateSettings(device="cpu"), Silent())
        assert result["scores"][row][1]["mAP"] == pytest.approx(scores.mean_ap)
    assert after.path.joinpath("cameras.safetensors").is_file()
    maps = [[cell["mAP"] for cell in row] for row in result["scores"]]
    assert result["forward_transfer"] == {HOME: None, SITE: maps[1][1] - maps[0][1]}
    assert result["forgetting"] == {HOME: None, SITE: max(maps[1][1], maps[2][1]) - maps[3][1]}


def test_with_and_without_identities_it_is_one_dataset():
    assert forward_transfer(["a", "b:unlabelled"], [0.1, 0.3, 0.5], "b") == pytest.approx(0.3 - 0.1)
    assert forgetting(["a:unlabelled", "b"], [0.1, 0.5, 0.3], "a") == pytest.approx(0.5 - 0.3)
    assert forward_transfer(["x:1:unlabelled", "y"], [0.1, 0.3, 0.5], "x:1") is None


def test_the_page_of_the_chain_has_its_stages(whole):
    _, runs, result = whole
    page = (runs / "chain" / "report.html").read_text()
    assert all(stage["run"] in page for stage in result["stages"])
    assert LOBBY in page


def test_shuffled_identities_are_the_same_stage(whole, monkeypatch):
    settings, runs, result = whole
    read = datasets.find(SITE).module.read

    def shuffled(folder, variant, *given):
        splits = read(folder, variant, *given)
        if variant == "b":
            splits.train.pids[:] = np.random.default_rng(0).permutation(splits.train.pids)
        return splits

    monkeypatch.setattr(synthetic, "read", shuffled)
    with_identities = datasets.load(SITE, Path(settings.root))
    assert (with_identities.train.pids != read(Path(settings.root) / SITE, "b").train.pids).any()
    progress = Notes()
    assert run_chain(settings, ChainFolder(runs / "chain"), progress) == result
    assert sum("is finished: reused" in note for note in progress.notes) == 4


def test_an_adaptation_has_its_own_defaults_and_what_holds_for_every_kind_of_stage(root):
    table = {"data": LOBBY, "radius": 0.5}
    chain = make_settings(root, HOME, table, epochs=3, weight_decay=0.1, seed=4, amp="off", ptl=False)
    labelled, adapted = chain.stages()
    own = AdaptSettings.make(**table, backbone="tiny", ptl=False, seed=4, amp="off", device="cpu", root=str(root))
    assert (labelled.epochs, labelled.lr, labelled.weight_decay) == (3, 0.02, 0.1)
    assert adapted == own.model_copy(update={"report": False})
    cameras = make_settings(root, HOME, {"data": LOBBY, "method": "cameras"}).stages()[1]
    assert (cameras.method_, cameras.epochs, cameras.method) == ("cameras", 0, "ptl-adapt-cameras")


@pytest.mark.parametrize(
    ("table", "changed", "message"),
    [
        ({}, {}, "Stage 1, .*:unlabelled, has no identities: expected a trained run that it can adapt"),
        ({"recipe": "small"}, {"init": "x"}, "Stage 1: Unknown setting 'recipe'"),
        ({"loss": "triplet"}, {"init": "x"}, "Stage 1: loss = 'triplet': expected 'ce'"),
        ({"ptl": False}, {"init": "x"}, "Stage 1 sets ptl: expected nothing, as it adapts the network of the stage be"),
        ({"seed": 3}, {"init": "x"}, "Stage 1 sets seed, which must be the same for all stages"),
        ({"method": "cluster", "epochs": -1}, {"init": "x"}, "Stage 1: epochs = -1: expected"),
        ({}, {"init": "x", "std": True, "lambda_": 0.5}, "--lambda 0.5: expected 1, as the last stage has no id"),
    ],
)
def test_settings_that_an_adaptation_cannot_have_are_named(root, table, changed, message):
    with pytest.raises(OptionError, match=message):
        make_settings(root, {"data": LOBBY, **table}, **changed)


def test_a_chain_may_begin_with_the_adaptation_of_a_run(whole, root):
    _, runs, result = whole
    home = result["stages"][0]["run"]
    chain = make_settings(root, {"data": LOBBY, "method": "cameras"}, init=home)
    planned = dry_run(chain, ChainFolder(runs / "first"))["trainings"]
    assert [(one["method"], one["state"]) for one in planned] == [("ptl-adapt-cameras", "to do")]
    found = run_chain(chain, ChainFolder(runs / "first"), Silent())
    assert (found["start"], found["rows"], found["data"]) == (home, ["start", LOBBY], [SITE])
    assert found["scores"][0][0] == result["scores"][1][1]
    with pytest.raises(DataError, match="its training images have no identities"):
        run_chain(make_settings(root, f"{LOBBY}+{HOME}"), ChainFolder(runs / "other"), Silent())


def test_the_student_of_an_adapted_last_stage_has_no_camera_statistics(whole, root):
    settings, runs, result = whole
    tables = settings.stage[:2]
    chain = make_settings(root, *tables, std=True)
    assert chain.lambda_ == 1
    last = plan_stages(chain)[-1]
    assert (last.settings.data, last.settings.epochs, last.settings.lr, last.settings.ptl) == (LOBBY, 1, 0.02, False)
    assert last.teacher.key == plan_stages(settings)[1].key
    assert (last.init.settings.data, last.init.settings.ptl) == (HOME, False)
    found = run_chain(chain, ChainFolder(runs / "std"), Silent())
    assert found["rows"] == ["start", HOME, LOBBY, f"{LOBBY} (std)"]
    assert [stage["run"] for stage in found["stages"][:2]] == [stage["run"] for stage in result["stages"][:2]]
    student = RunFolder(runs / found["stages"][2]["run"])
    assert set(student.read_manifest()["depends"]) == {"init", "teacher", "teacher_cameras"}
    assert not student.path.joinpath("cameras.safetensors").exists()
    plain = make_settings(root, *tables, std=True, ptl=False)  # a plain network that was adapted has statistics, too
    assert plan_stages(plain)[-1].teacher.settings.method == "adapt"


def test_the_command_takes_an_unlabelled_dataset_and_lists_what_is_missing(whole, root, ptlreid):
    _, runs, _ = whole
    where = ("--config", runs / "chain" / "chain.toml", "--runs", runs, "--name", "chain")
    code, out, err = ptlreid("transfer-chain", *where, "--dry-run", "--json")
    assert code == 0, err
    assert [(one["epochs"], one["state"]) for one in json.loads(out)["trainings"]] == [(1, "finished")] * 3
    where = (
        "--root",
        root,
        "--runs",
        runs,
        "--device",
        "cpu",
        "--backbone",
        "tiny",
        "--init",
        "none",
        "--seeds",
        "0,1",
    )
    code, out, err = ptlreid("transfer-chain", HOME, "market:unlabelled", *where, "--dry-run", "--json")
    assert code == 0, err
    first, second = json.loads(out)["runs"]
    assert first["missing"] == second["missing"] == ["market"]
    assert [one["method"] for one in first["trainings"]] == ["ptl", "ptl-adapt"]


def test_a_dataset_that_is_trained_along_must_exist(whole, root):
    _, runs, _ = whole
    chain = make_settings(root, HOME, {"data": LOBBY, "with": "market"})
    assert dry_run(chain, ChainFolder(runs / "new"))["missing"] == ["market"]
    with pytest.raises(DataError, match="Market-1501 was not found"):
        run_chain(chain, ChainFolder(runs / "new"), Silent())
    along = StageRunner(runs, Silent()).images(make_settings(root, HOME, {"data": LOBBY, "with": HOME}).stages()[1])
    assert len(along.train) == 2 * len(datasets.load(HOME, root).train)


def test_stages_with_labels_are_what_they_were(root):
    assert type(make_settings(root, HOME, LOBBY).stages()[0]) is FinetuneSettings
