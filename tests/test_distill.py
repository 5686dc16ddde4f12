"""Student-teacher distillation: what the student learns from, the teacher's integrity, and what is refused."""

from __future__ import annotations

import json
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from test_resume import At, Fault, fault

from ptlreid import datasets, models
from ptlreid.engine import history
from ptlreid.errors import CheckpointError, OptionError
from ptlreid.evaluation import evaluate_run, load_retrieval
from ptlreid.models.bconv import memory_state
from ptlreid.models.weights import WeightsFile, read_weights_header
from ptlreid.models.weights import save as save_weights
from ptlreid.network_types import NetworkSpec
from ptlreid.progress import Silent
from ptlreid.records import Records, Splits
from ptlreid.runs import RunFolder
from ptlreid.settings import DistillSettings, EvaluateSettings, FinetuneSettings, recipes
from ptlreid.transfer.distillation import resolve_settings
from ptlreid.workflows.distill import distill
from ptlreid.workflows.finetune import finetune

SMALL = {"init": "none", "height": 64, "width": 32, "batch_size": 8, "epochs": 2, "device": "cpu", "evaluate_every": 0}


@pytest.fixture(scope="module")
def splits(market_folder):
    return datasets.load("market", market_folder.parent)


@pytest.fixture(scope="module")
def taught(tmp_path_factory, splits):
    """A folder of runs with a PTL run called `ptl`."""
    runs = tmp_path_factory.mktemp("runs")
    finetune(FinetuneSettings.resolve(None, backbone="tiny", **SMALL), splits, RunFolder(runs / "ptl"), Silent())
    return runs


@pytest.fixture
def runs(tmp_path, taught):
    shutil.copytree(taught, tmp_path / "runs")
    return tmp_path / "runs"


def make_settings(runs, **changed) -> DistillSettings:
    return complete_settings(runs, **SMALL | {"teacher": "ptl"} | changed)


def complete_settings(runs, progress=None, **given) -> DistillSettings:
    return resolve_settings(partial(DistillSettings.resolve, None, **given), runs, progress or Silent())


def weights(run: RunFolder) -> dict[str, torch.Tensor]:
    return read_weights_header(run.weights()).build().state_dict()


def features(run: RunFolder, splits: Splits) -> np.ndarray:
    return load_retrieval(run, splits, EvaluateSettings.resolve(None, device="cpu"), Silent()).query.matrix


def test_lambda_0_is_plain_fine_tuning_bit_for_bit_and_runs_no_teacher(runs, splits, monkeypatch):
    plain, student = RunFolder(runs / "plain"), RunFolder(runs / "student")
    finetune(FinetuneSettings.resolve(None, backbone="tiny", ptl=False, **SMALL), splits, plain, Silent())
    built, build = [], WeightsFile.build
    monkeypatch.setattr(WeightsFile, "build", lambda self: built.append(self.path) or build(self))
    distill(make_settings(runs, lambda_=0.0), splits, student, Silent())
    assert RunFolder(runs / "ptl").weights() not in built
    ours, theirs = weights(student), weights(plain)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_lambda_1_learns_nothing_from_labels(runs, splits):
    order = np.random.default_rng(0).permutation(len(splits.train))
    train = splits.train
    mixed = Records(train.paths, train.pids[order], train.camids, train.sources)
    other = Splits(splits.name, mixed, splits.query, splits.gallery, splits.protocol)
    one, two = RunFolder(runs / "one"), RunFolder(runs / "two")
    distill(make_settings(runs, lambda_=1.0), splits, one, Silent())
    distill(make_settings(runs, lambda_=1.0), other, two, Silent())
    ours, theirs = weights(one), weights(two)
    learnt = [name for name in ours if "classifier" not in name]
    assert len(learnt) > 30
    assert all(torch.equal(ours[name], theirs[name]) for name in learnt)


def test_the_teachers_folder_is_not_touched(runs, splits):
    teacher = RunFolder(runs / "ptl")
    before = {path: path.read_bytes() for path in teacher.path.rglob("*") if path.is_file()}
    distill(make_settings(runs), splits, RunFolder(runs / "student"), Silent())
    assert {path: path.read_bytes() for path in teacher.path.rglob("*") if path.is_file()} == before


def test_the_teacher_in_memory_keeps_weights_statistics_mode_and_zero_state(runs, splits, monkeypatch):
    built, build = [], WeightsFile.build
    monkeypatch.setattr(WeightsFile, "build", lambda self: built.append((build(self), self)) or built[-1][0])
    distill(make_settings(runs), splits, RunFolder(runs / "student"), Silent())
    network, source = built[0]
    assert source.path == RunFolder(runs / "ptl").weights()
    theirs = build(source).state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in network.state_dict().items())
    assert not any(module.training for module in network.modules())
    assert memory_state(network) == {}
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in network.parameters())


def test_teacher_and_student_see_the_same_images(runs, splits):
    # A network without batch norm has the same features in both modes: a student initialised as its own teacher
    # has an L1 term of 0, unless only one of the two saw a mirrored image, for example.
    settings = FinetuneSettings.resolve(None, **SMALL | {"backbone": "tiny-even", "ptl": False})
    finetune(settings, splits, RunFolder(runs / "even"), Silent())
    changed = {"lr": 1e-12, "flip": 0.5, "pad": 4, "erase": 0.5}
    student = RunFolder(runs / "student")
    distill(make_settings(runs, teacher="even", init="even", **changed), splits, student, Silent())
    assert history.read(student.history)[0]["terms"]["l1"] == pytest.approx(0, abs=1e-7)
    assert history.read(student.history)[0]["terms"]["ce"] > 0.1


def test_a_student_gets_closer_to_its_teacher(runs, splits):
    teacher, student, plain = RunFolder(runs / "ptl"), RunFolder(runs / "student"), RunFolder(runs / "plain")
    longer = {"epochs": 10, "lr": 0.05}
    distill(make_settings(runs, lambda_=0.8, **longer), splits, student, Silent())
    distill(make_settings(runs, lambda_=0.0, **longer), splits, plain, Silent())
    theirs = features(teacher, splits)
    apart = [np.abs(features(run, splits) - theirs).mean() for run in (student, plain)]
    assert apart[0] < 0.5 * apart[1]


def test_teacher_and_student_may_have_different_numbers_of_identities(runs, splits):
    def with_identities(number: int) -> Splits:
        """One image per identity: those of the small dataset, repeated."""
        train, some = splits.train, np.arange(number) % len(splits.train)
        paths = [train.paths[row] for row in some]
        records = Records(paths, np.arange(1, number + 1), train.camids[some], train.sources[some])
        return Splits(splits.name, records, splits.query, splits.gallery, splits.protocol)

    # Market-1501 has 751 training identities, MSMT17 1,041.
    small = {"batch_size": 64, "epochs": 1}
    teacher, student = RunFolder(runs / "teacher"), RunFolder(runs / "student")
    finetune(FinetuneSettings.resolve(None, backbone="tiny", **SMALL | small), with_identities(751), teacher, Silent())
    distill(make_settings(runs, teacher="teacher", **small), with_identities(1041), student, Silent())
    assert [read_weights_header(run.weights()).spec.num_classes for run in (teacher, student)] == [751, 1041]


def test_a_stopped_run_resumes_to_equal_weights_and_a_finished_one_is_reused(runs, splits):
    whole, stopped = RunFolder(runs / "whole"), RunFolder(runs / "stopped")
    settings = make_settings(runs, loss="ce+xbm+centre", xbm_start=1, centre_weight=0.5)  # losses with a state
    expected = distill(settings, splits, whole, Silent())
    with pytest.raises(Fault):
        distill(settings, splits, stopped, At(3, fault))
    resumed = distill(settings, splits, stopped, Silent())
    assert {**resumed, "environment": None} == {**expected, "run": "stopped", "environment": None}  # it has seconds
    assert all(torch.equal(weights(whole)[name], tensor) for name, tensor in weights(stopped).items())
    progress = At(1, fault)
    assert distill(settings, splits, whole, progress) == expected
    assert progress.notes == [f"{whole.path} is finished: reused, nothing trained"]


def test_another_teacher_of_the_same_name_is_noticed(runs, splits):
    student = RunFolder(runs / "student")
    distill(make_settings(runs), splits, student, Silent())
    assert set(student.read_manifest()["depends"]) == {"teacher"}
    shutil.rmtree(runs / "ptl")
    settings = FinetuneSettings.resolve(None, backbone="tiny", **SMALL | {"seed": 7})
    finetune(settings, splits, RunFolder(runs / "ptl"), Silent())
    with pytest.raises(OptionError, match="the teacher's weights changed"):
        distill(make_settings(runs), splits, student, Silent())


def test_settings_that_are_not_given_are_the_teachers(runs, splits, market_folder):
    full = complete_settings(runs, teacher="ptl", epochs=3)
    assert (full.data, full.backbone, full.height, full.width) == ("market", "tiny", 64, 32)
    assert (full.ptl, full.epochs, full.lambda_) == (False, 3, 0.8)
    assert full.default_name == "market-tiny-std0.8-s0"


def test_a_head_that_is_not_given_is_the_teachers(runs):
    head = {"last_stride": 1, "neck": "bn", "pool": "gem", "classifier": "linear", "feature_width": 24}
    spec = NetworkSpec("tiny", True, "slot", 4, 64, 32, **head)
    save_weights(models.build(spec, seed=0), spec, RunFolder(runs / "ptl").weights())
    settings = complete_settings(runs, teacher="ptl", pool="max")
    assert {name: getattr(settings, name) for name in head} == head | {"pool": "max"}


def test_the_newest_ptl_run_is_the_default_teacher_and_reported(runs):
    progress = At(-1, fault)
    full = complete_settings(runs, progress)
    assert full.teacher == "ptl"
    assert progress.notes == [f"teacher run: {runs / 'ptl'}, the newest finished PTL run"]


@pytest.mark.parametrize("given", [{}, {"backbone": "tiny"}, {"height": 64}])
def test_the_recipe_of_the_teachers_backbone_applies_except_for_the_image_size(runs, tmp_path, monkeypatch, given):
    (tmp_path / "tiny.toml").write_text('height = 128\nwidth = 64\ninterpolation = "bicubic"\nerase = 0.25\nlr = 0.5\n')
    monkeypatch.setattr(recipes, "_FOLDER", tmp_path)
    progress = At(-1, fault)
    full = complete_settings(runs, progress, teacher="ptl", lr=0.1, **given)
    assert (full.erase, full.lr, full.height, full.width, full.interpolation) == (0.25, 0.1, 64, 32, "bilinear")
    assert progress.notes == ["recipe tiny, that of the backbone; --recipe chooses another"]
    (tmp_path / "none.toml").write_text("# none\n")
    assert complete_settings(runs, teacher="ptl", recipe="none", **given).erase == 0


@pytest.mark.parametrize(
    ("size", "given"),
    [
        ({"height": 128}, r"128×32 \(bilinear\)"),
        ({"width": 64}, r"64×64 \(bilinear\)"),
        ({"interpolation": "bicubic"}, r"64×32 \(bicubic\)"),
    ],
)
def test_another_image_size_than_the_teachers_is_refused(runs, size, given):
    with pytest.raises(
        OptionError,
        match=rf"Image size {given}: expected 64×32 \(bilinear\), the size of the teacher ptl.*Leave out --h",
    ):
        make_settings(runs, **size)


def test_features_of_another_width_are_refused_with_alternatives(runs, splits):
    with pytest.raises(
        OptionError, match=r"tiny-even have width 8: expected 32, the width of the teacher \(tiny\).*--backbone tiny"
    ):
        distill(make_settings(runs, backbone="tiny-even"), splits, RunFolder(runs / "student"), Silent())
    assert not (runs / "student").exists()


def test_a_sweep_that_cannot_finish_does_not_start(ptlreid, runs, market_folder, small):
    where = ("--config", small, "--root", market_folder.parent, "--runs", runs, "--device", "cpu", "--teacher", "ptl")
    code, _, err = ptlreid("distill", "--sweep", "0,0.8", "--backbone", "tiny-even", *where)
    assert (code, "have width 8" in err) == (1, True)
    assert [path.name for path in runs.iterdir()] == ["ptl"]


def test_with_lambda_0_another_teacher_is_the_same_run():
    one, two = (DistillSettings.resolve(None, teacher=name, lambda_=0.0) for name in ("one", "two"))
    assert one.differences(two) == []
    assert DistillSettings.resolve(None, teacher="one").differences(DistillSettings.resolve(None, teacher="two")) == [
        "teacher: 'one' -> 'two'"
    ]


@pytest.mark.parametrize("value", ["-0.1", "1.01"])
def test_lambda_outside_0_to_1_is_refused(ptlreid, value):
    code, _, err = ptlreid("distill", "--lambda", value)
    assert code == 1
    assert f"--lambda {value}: expected a number in [0, 1]." in err


def test_an_unknown_teacher_gets_a_suggestion(runs):
    with pytest.raises(CheckpointError, match=r"Unknown run 'pt'\. Did you mean 'ptl'"):
        complete_settings(runs, teacher="pt")


@pytest.fixture
def small(tmp_path):
    file = tmp_path / "small.toml"
    file.write_text("batch_size = 8\nepochs = 1\ninit = 'none'\nevaluate_every = 0\n")
    return file


def test_the_command_prints_the_scores_of_evaluate(ptlreid, runs, splits, market_folder, small):
    where = ("--root", market_folder.parent, "--runs", runs, "--device", "cpu")
    code, out, err = ptlreid("distill", "--config", small, *where, "--json")
    assert code == 0
    assert "teacher run:" in err
    metrics = json.loads(out)
    assert metrics["run"] == "market-tiny-std0.8-s0"
    run = RunFolder(runs / metrics["run"])
    scores = evaluate_run(run, splits, EvaluateSettings.resolve(None, device="cpu"), Silent())
    assert metrics["mAP"] == pytest.approx(scores.mean_ap, abs=1e-9)


@pytest.mark.parametrize("sweep", ["0.8,0.80", "0,-0.0", "0.8,0.80000001,1"])
@pytest.mark.parametrize("name", [(), ("--name", "mine")])
def test_a_sweep_that_gives_two_runs_one_name_is_refused(ptlreid, runs, sweep, name):
    code, out, err = ptlreid("distill", "--sweep", sweep, *name, "--runs", runs, "--teacher", "ptl")
    assert (code, out) == (1, "")
    assert f"--sweep {sweep}: two of its runs would be called " in err


def test_a_sweep_is_a_run_for_each_lambda_and_one_table(ptlreid, runs, market_folder, small):
    where = ("--config", small, "--root", market_folder.parent, "--runs", runs, "--device", "cpu", "--teacher", "ptl")
    code, out, _ = ptlreid("distill", "--sweep", "0,0.3,1", *where, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["teacher"] == "ptl"
    assert [(row["lambda"], row["run"]) for row in found["runs"]] == [
        (share, f"market-tiny-std{share:g}-s0") for share in (0.0, 0.3, 1.0)
    ]
    assert len({(runs / row["run"] / "weights.safetensors").read_bytes() for row in found["runs"]}) == 3
    code, out, err = ptlreid("distill", "--sweep", "0,0.3,1", *where)
    assert err.count("is finished: reused") == 3
    assert [line for line in out.splitlines() if "λ = " in line][1].startswith("│ λ = 0.3 │")
    for wrong in (("--sweep", "0,x"), ("--sweep", "0", "--lambda", "1"), ("--sweep", "0,2")):
        code, _, err = ptlreid("distill", *wrong, *where)
        assert code == 1, err


def test_a_dry_run_trains_nothing_and_reports_what_would_fail(ptlreid, runs, market_folder, small):
    where = ("--config", small, "--root", market_folder.parent, "--runs", runs, "--device", "cpu", "--dry-run")
    code, out, _ = ptlreid("distill", *where, "--json")
    assert code == 0
    plan = json.loads(out)
    assert (plan["steps"], plan["train"]) == (2, {"images": 16, "identities": 4})
    assert (plan["settings"]["teacher"], plan["settings"]["lambda"]) == ("ptl", 0.8)
    assert plan["time"]["hours"] >= 0
    # The teacher's weights and its batch norm's statistics, and the labels of 16 images.
    taught = weights(RunFolder(runs / "ptl")).values()
    assert plan["memory_bytes"]["teacher"] == sum(tensor.nbytes for tensor in taught) + 8 * 16
    assert [path.name for path in runs.iterdir()] == ["ptl"]
    out = ptlreid("distill", *where, "--lambda", "0")[1]
    assert "memory.teacher = 0 MiB" in out
    assert "The times were measured at this moment" in out
    code, _, err = ptlreid("distill", "--backbone", "tiny-even", *where)
    assert code == 1
    assert "have width 8" in err
