"""Distillation of an adapted network into one without camera statistics, from images that need no identities."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from ptlreid import datasets, losses
from ptlreid.adapt import source
from ptlreid.engine import history
from ptlreid.errors import OptionError
from ptlreid.features import Extractor
from ptlreid.images import load_batches
from ptlreid.models.camera_statistics import read_cameras, save_cameras
from ptlreid.models.weights import read_weights_header
from ptlreid.network_types import Output
from ptlreid.progress import Silent
from ptlreid.runs import RunFolder
from ptlreid.settings import AdaptSettings, DistillSettings, EvaluateSettings, FinetuneSettings
from ptlreid.transfer.distillation import distillation_objective, resolve_settings
from ptlreid.views import EvalView, standardize
from ptlreid.workflows.adapt import adapt
from ptlreid.workflows.distill import distill
from ptlreid.workflows.finetune import finetune

SMALL = {"batch_size": 8, "epochs": 1, "device": "cpu", "evaluate_every": 0, "report": False}


@pytest.fixture(scope="module")
def site(market_folder):
    return datasets.load("market:unlabelled", market_folder.parent)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory, market_folder, site):
    """A folder of runs: `home`, and `site`, which is `home` with the statistics of cameras."""
    runs = tmp_path_factory.mktemp("runs")
    size = {"backbone": "tiny", "init": "none", "height": 64, "width": 32}
    settings = FinetuneSettings.resolve(None, **SMALL | size)
    finetune(settings, datasets.load("market", market_folder.parent), RunFolder(runs / "home"), Silent())
    given = {"run": "home", "data": "market", "method_": "cameras", "device": "cpu", "report": False}
    adapt(
        source.resolve_settings(partial(AdaptSettings.resolve, None, **given), runs),
        site,
        RunFolder(runs / "site"),
        Silent(),
    )
    return runs


@pytest.fixture
def runs(tmp_path, adapted):
    shutil.copytree(adapted, tmp_path / "runs")
    return tmp_path / "runs"


def make_settings(runs, **changed) -> DistillSettings:
    given = SMALL | {"teacher": "site", "init": "none"} | changed
    return resolve_settings(partial(DistillSettings.resolve, None, **given), runs, Silent())


def weights(run: RunFolder) -> dict[str, torch.Tensor]:
    return read_weights_header(run.weights()).build().state_dict()


class Notes(Silent):
    def __init__(self) -> None:
        self.notes = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_teachers_features_are_those_of_the_statistics_of_each_images_camera(runs, site, mirrored):
    teacher = read_weights_header(runs / "site" / "weights.safetensors")
    rows = np.array([5, 0, 2, 15, 3])
    (batch,) = load_batches(site.train.paths, EvalView(64, 32), [rows], workers=0)
    images = standardize(batch.images)
    extractor = Extractor.from_weights(teacher, EvaluateSettings(device="cpu"))
    assert extractor.cameras is not None
    plain = replace(extractor, cameras=None).extract(site.train).matrix[rows]
    # Mirrored images have a centre of their own. The features of an image and its mirror image, summed:
    both = replace(extractor, readout=replace(extractor.readout, flip=True)).extract(site.train).matrix[rows]
    upright = extractor.extract(site.train).matrix[rows]
    expected = both - upright if mirrored else upright
    assert np.abs(expected - plain).max() > 0.01
    settings = make_settings(runs, flip=float(mirrored))
    objective = distillation_objective(settings, teacher, site.train)(torch.device("cpu"), losses.find("ce", {}))
    apart = objective(
        Output(torch.from_numpy(expected)), torch.from_numpy(rows), images.flip(3) if mirrored else images
    )
    assert list(apart) == ["l1"]
    assert apart["l1"].item() == pytest.approx(0, abs=1e-6)


def test_by_default_a_student_of_an_adapted_run_reads_no_identities(runs, site, market_folder):
    settings = make_settings(runs)
    assert (settings.data, settings.lambda_, settings.default_name) == (
        "market:unlabelled",
        1.0,
        "market-unlabelled-tiny-std1-s0",
    )
    assert make_settings(runs, data="market").lambda_ == 0.8
    assert make_settings(runs, teacher="home").data == "market"
    student, other = RunFolder(runs / "student"), RunFolder(runs / "other")
    metrics = distill(settings, site, student, Silent())
    assert 0 < metrics["mAP"] <= 1
    # A P×K recipe and a loss on identities change nothing.
    odd = make_settings(runs, images_per_identity=4, loss="ce+triplet")
    distill(odd, site, other, Silent())
    ours, theirs = weights(student), weights(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    steps = [line for line in history.read(student.history) if line["kind"] == "step"]
    assert [set(line["terms"]) for line in steps] == [{"l1"}] * 2
    assert not student.path.joinpath("cameras.safetensors").exists()
    assert set(student.read_manifest()["depends"]) == {"teacher", "teacher_cameras"}


def test_other_statistics_of_the_teachers_cameras_are_another_student(runs, site):
    student = RunFolder(runs / "student")
    distill(make_settings(runs), site, student, Silent())
    teacher = read_weights_header(runs / "site" / "weights.safetensors")
    cameras = read_cameras(teacher.path, teacher.digest)
    save_cameras(replace(cameras, centres=cameras.centres + 1), teacher.path)
    with pytest.raises(OptionError, match=r"holds another run \(the teacher's camera statistics changed\)"):
        distill(make_settings(runs), site, student, Silent())


@pytest.mark.parametrize("value", [0.0, 0.8])
def test_without_identities_nothing_but_features_can_be_learnt(runs, site, value):
    with pytest.raises(
        OptionError, match=rf"market: its training images have no identities, .* λ = {value:g}: expected λ = 1, .*Give"
    ):
        distill(make_settings(runs, lambda_=value), site, RunFolder(runs / "student"), Silent())
    assert not (runs / "student").exists()


def test_images_of_a_camera_without_statistics_are_noted(runs, site):
    train = replace(site.train, camids=np.where(np.arange(16) < 3, 9, site.train.camids))
    progress = Notes()
    distill(make_settings(runs), replace(site, train=train), RunFolder(runs / "student"), progress)
    assert any(note.startswith("no statistics of camera 9 of market: 3 of 16 images") for note in progress.notes)


def test_the_command_distils_an_adapted_run_and_plans_it(ptlreid, runs, market_folder):
    where = ("--root", market_folder.parent, "--runs", runs, "--device", "cpu", "--teacher", "site", "--init", "none")
    small = ("--batch-size", 8, "--epochs", 1)
    code, out, err = ptlreid("distill", *where, *small, "--dry-run", "--json")
    assert (code, '"lambda": 1.0' in out) == (0, True), err
    code, _, err = ptlreid("distill", *where, *small, "--sweep", "0.5,1")
    assert (code, "have no identities" in err) == (1, True)
    code, out, err = ptlreid("distill", *where, *small, "--sweep", "1", "--json")
    assert code == 0, err
    assert (runs / "market-unlabelled-tiny-std1-s0" / "report.html").is_file()
