"""Adaptation of a run to cameras without identities, from the command's workflow to the files of its run."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ptlreid as ptlreid_package
from ptlreid import datasets, models
from ptlreid.adapt.source import resolve_settings
from ptlreid.engine import history
from ptlreid.errors import DataError, OptionError
from ptlreid.models import weights
from ptlreid.models.weights import read_weights_header
from ptlreid.network_types import NetworkSpec
from ptlreid.progress import Silent
from ptlreid.records import Records, Splits
from ptlreid.runs import RunFolder
from ptlreid.samplers import sample_groups
from ptlreid.settings import AdaptSettings, FinetuneSettings
from ptlreid.workflows.adapt import adapt
from ptlreid.workflows.finetune import finetune

TIMES = {"images_per_second", "wait", "memory_bytes"}
# Of a site with 6 identities, 2 cameras and 3 images each.
SMALL = {"batch_size": 8, "images_per_identity": 2, "k1": 4, "k2": 2, "min_samples": 2, "pad": 2}


class Fault(Exception):
    """Any error that ends a run."""


class Watch(Silent):
    """Keeps the notes, and raises when this many updates have been reported."""

    def __init__(self, update: int = -1) -> None:
        self.update, self.notes = update, []

    def note(self, text: str) -> None:
        self.notes.append(text)

    @contextmanager
    def task(self, title, total):
        def advance(done, *, status="", total=None):
            if title.startswith("train") and done == self.update:
                raise Fault

        yield advance


def write_part(folder: Path, pids: range, shots: range) -> None:
    """Images of coarse colour blocks: alike for one identity, brighter in camera 2, with noise."""
    folder.mkdir(parents=True)
    for pid in pids:
        blocks = np.random.default_rng(pid).integers(0, 200, size=(8, 4, 3))
        for camid in (1, 2):
            for shot in shots:
                noise = np.random.default_rng((pid, camid, shot)).integers(-8, 9, size=(8, 4, 3))
                pixels = np.clip(blocks + noise + 20 * camid, 0, 255).astype(np.uint8)
                image = Image.fromarray(pixels).resize((32, 64), Image.Resampling.NEAREST)
                image.save(folder / f"{pid:04d}_c{camid}s1_{shot:06d}_00.jpg", quality=95)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Below it, the site `duke`, which is in Market-1501's layout: a folder given by path is read in it."""
    root = tmp_path_factory.mktemp("sites")
    for name, first in (("site", 1), ("home", 21)):
        write_part(root / name / "bounding_box_train", range(first, first + 6), range(1, 4))
        write_part(root / name / "query", range(first + 6, first + 10), range(1, 2))
        write_part(root / name / "bounding_box_test", range(first + 6, first + 10), range(2, 4))
    return root


@pytest.fixture(scope="module")
def source(root, tmp_path_factory) -> RunFolder:
    """A trained run, to be copied into the folder of a test's runs."""
    run = RunFolder(tmp_path_factory.mktemp("runs") / "home")
    size = {"height": 64, "width": 32, "batch_size": 12, "epochs": 1, "report": False}
    data = str(root / "home")
    settings = FinetuneSettings.resolve(None, data=data, backbone="tiny", init="none", device="cpu", **size)
    finetune(settings, datasets.load(data, root), run, Silent())
    return run


@pytest.fixture
def site(root) -> Splits:
    return datasets.load(str(root / "site"), root)


@pytest.fixture
def start(root, source, site, tmp_path):
    """Adapts the run `home` in a run of the test's folder; returns the metrics."""
    home = tmp_path / "home"
    home.mkdir()
    for file in (source.config, source.data, source.metrics, source.weights()):
        (home / file.name).write_bytes(file.read_bytes())

    def begin(name: str, progress=None, splits: Splits = site, **changes):
        settings = make_settings(root, tmp_path, **changes)
        return adapt(settings, splits, RunFolder(tmp_path / name), progress or Silent())

    return begin


def make_settings(root: Path, runs: Path, **changes) -> AdaptSettings:
    values = {"run": "home", "data": str(root / "site"), "device": "cpu", "report": False, **changes}
    values = values if values.get("method_") == "cameras" else {**SMALL, "epochs": 2, **values}
    return resolve_settings(partial(AdaptSettings.resolve, None, **values), runs)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return read_weights_header(folder / "weights.safetensors").build().state_dict()


def assert_same(one: Path, other: Path) -> None:
    ours, theirs = weights_of(one), weights_of(other)
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    assert (one / "cameras.safetensors").read_bytes() == (other / "cameras.safetensors").read_bytes()
    lines = [
        [
            {key: value for key, value in line.items() if key not in TIMES}
            for line in history.read(run / "history.jsonl")
        ]
        for run in (one, other)
    ]
    assert lines[0] == lines[1]


def test_cameras_alone_keep_the_weights_and_take_the_sites_statistics(start, tmp_path):
    metrics = start("run", method_="cameras")
    before, after = weights_of(tmp_path / "home"), weights_of(tmp_path / "run")
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed
    assert all("running" in name and "classifier" not in name for name in changed)
    assert (tmp_path / "run" / "cameras.safetensors").is_file()
    assert metrics["epochs"] == 0
    assert 0 < metrics["before"]["mAP"] <= 1
    assert 0 < metrics["mAP"] <= 1
    assert history.read(tmp_path / "run" / "history.jsonl") == []


def test_the_scores_before_are_those_of_the_source_as_it_is(start, site, tmp_path):
    from ptlreid.evaluation import evaluate_run
    from ptlreid.settings import EvaluateSettings

    metrics = start("run", method_="cameras")
    settings = EvaluateSettings(device="cpu")
    for scores, folder in ((metrics["before"], "home"), (metrics, "run")):
        found = evaluate_run(RunFolder(tmp_path / folder), site, settings, Silent())
        assert scores["mAP"] == pytest.approx(found.mean_ap)


def test_identities_are_not_used(start, site, tmp_path):
    start("run")
    pids = np.random.default_rng(0).permutation(site.train.pids)
    assert (pids != site.train.pids).any()
    start("shuffled", splits=replace(site, train=replace(site.train, pids=pids)))
    start("unlabelled", splits=site.without_identities())
    for name in ("shuffled", "unlabelled"):
        assert_same(tmp_path / name, tmp_path / "run")
        assert (tmp_path / name / "data.json").read_bytes() == (tmp_path / "run" / "data.json").read_bytes()


def test_training_moves_the_averaged_weights_and_not_the_classifier(start, tmp_path):
    start("run")
    before, after = weights_of(tmp_path / "home"), weights_of(tmp_path / "run")
    same = {name for name in after if "running" not in name and torch.equal(before[name], after[name])}
    assert same == {name for name in after if "classifier" in name and "running" not in name} - {
        name for name in after if "num_batches" in name
    } | {name for name in same if "num_batches" in name}


def test_each_epoch_has_its_clusters_in_a_file_and_in_the_history(start, site, tmp_path):
    progress = Watch()
    start("run", progress)
    lines = [line for line in history.read(tmp_path / "run" / "history.jsonl") if line["kind"] == "clusters"]
    assert [line["epoch"] for line in lines] == [0, 1]
    for line in lines:
        with np.load(tmp_path / "run" / "clusters" / f"{line['epoch']:03d}.npz") as file:
            found = dict(file)
        assert found["labels"].max() + 1 == line["clusters"] >= 2
        assert (found["labels"] < 0).sum() == line["outliers"]
        assert found["paths"].tolist() == [f"bounding_box_train/{path.name}" for path in site.train.paths]
        assert found["camids"].tolist() == site.train.camids.tolist()
        kept = found["labels"] >= 0
        assert ((found["similarities"][kept] > -1) & (found["similarities"][kept] <= 1 + 1e-6)).all()
        assert np.isnan(found["similarities"][~kept]).all()
    assert any(note.startswith(f"epoch 1: {lines[0]['clusters']} clusters of 36 images") for note in progress.notes)


@pytest.mark.parametrize("update", [2, 4, 5, 8])  # 4 updates an epoch
def test_a_stopped_run_resumes_to_equal_weights(start, tmp_path, update, monkeypatch):
    start("whole")
    with pytest.raises(Fault):
        start("stopped", Watch(update), checkpoint_minutes=0.0)
    clustered = []
    from ptlreid.adapt.rounds import Rounds

    cluster = Rounds._cluster
    monkeypatch.setattr(Rounds, "_cluster", lambda *given: clustered.append(given[-1]) or cluster(*given))
    start("stopped")
    # The checkpoint is of the update before: an epoch that it is in the middle of is not clustered again.
    assert clustered == {2: [1], 4: [1], 5: [1], 8: []}[update]
    assert_same(tmp_path / "stopped", tmp_path / "whole")


def test_a_finished_run_is_reused(start, tmp_path):
    metrics = start("run")
    written = (tmp_path / "run" / "weights.safetensors").stat().st_mtime_ns
    progress = Watch()
    assert start("run", progress) == metrics
    assert (tmp_path / "run" / "weights.safetensors").stat().st_mtime_ns == written
    assert any("is finished: reused" in note for note in progress.notes)


def test_without_its_statistics_of_cameras_a_run_is_not_finished(start, tmp_path):
    metrics = start("run")
    cameras = tmp_path / "run" / "cameras.safetensors"
    written = cameras.read_bytes()
    for damage in (None, written[:100]):
        cameras.unlink() if damage is None else cameras.write_bytes(damage)
        assert not RunFolder(tmp_path / "run").finished
        assert start("run") == metrics
        assert cameras.read_bytes() == written


def test_the_run_that_is_adapted_is_not_replaced(start, tmp_path):
    before = {file.name: file.read_bytes() for file in (tmp_path / "home").iterdir() if file.is_file()}
    with pytest.raises(OptionError, match=r"home is the run to adapt: expected another folder"):
        start("home", method_="cameras")
    assert {file.name: file.read_bytes() for file in (tmp_path / "home").iterdir() if file.is_file()} == before


def test_another_run_in_the_folder_is_refused(start, site, tmp_path):
    start("run", method_="cameras")
    with pytest.raises(OptionError, match=r"method: 'cameras' -> 'cluster'"):
        start("run")
    fewer = replace(site, train=site.train.select(np.arange(30)))
    with pytest.raises(OptionError, match="the training images changed"):
        start("run", method_="cameras", splits=fewer)
    cameras = replace(site, train=replace(site.train, camids=site.train.camids[::-1].copy()))
    with pytest.raises(OptionError, match="the training images changed"):
        start("run", method_="cameras", splits=cameras)
    (tmp_path / "home" / "weights.safetensors").write_bytes((tmp_path / "run" / "weights.safetensors").read_bytes())
    with pytest.raises(OptionError, match="the weights of the run to adapt changed"):
        start("run", method_="cameras")


def test_without_two_clusters_the_run_ends_as_cameras_alone_would(start, tmp_path):
    progress = Watch()
    metrics = start("run", progress, radius=0.01, min_samples=30)
    start("cameras", method_="cameras")
    assert metrics["epochs"] == 0
    assert "No two clusters to train on: training ends here, with the weights of the run" in " ".join(progress.notes)
    ours, theirs = weights_of(tmp_path / "run"), weights_of(tmp_path / "cameras")
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


def test_a_site_without_a_test_set_has_no_scores(start, site, tmp_path):
    nothing = Records.make([], [], [], source="")
    metrics = start("run", splits=replace(site, query=nothing, gallery=nothing))
    assert set(metrics) == {"run", "data", "epochs", "environment"}
    assert not any("mAP" in line for line in history.read(tmp_path / "run" / "history.jsonl"))


def test_without_a_test_set_the_command_says_which_weights_are_kept(start, root, tmp_path, ptlreid):
    options = ("--run", "home", "--data", f"{root / 'site'}+{root / 'home'}", "--device", "cpu", "--runs", tmp_path)
    small = ("--batch-size", 8, "--images-per-identity", 2, "--k1", 4, "--min-samples", 2, "--epochs", 1, "--no-report")
    for name, more, kept in (
        ("cameras", ("--method", "cameras", "--no-report"), "those of the run, with the statistics of the site."),
        ("cluster", small, "those after the last epoch."),
    ):
        code, out, err = ptlreid("adapt", *options, *map(str, more), "--name", name)
        assert code == 0, err
        assert f"no scores. The weights are {kept}" in " ".join(out.split())


def test_doubtful_cameras_are_noted_where_nothing_else_is_done(start, site, tmp_path):
    one = replace(site, train=replace(site.train, camids=np.ones_like(site.train.camids)))
    for name, splits, noted in (("one", one, True), ("two", site, False)):
        progress = Watch()
        start(name, progress, splits, method_="cameras")
        assert any(note.startswith("All images are from one camera") for note in progress.notes) == noted


def test_one_cluster_is_counted_as_one(start):
    progress = Watch()
    start("run", progress, radius=0.999, k1=30, k2=1, min_samples=1)
    assert "epoch 1: 1 cluster of 36 images, 0 outliers" in progress.notes


def test_epochs_are_scored_where_asked(start, tmp_path):
    start("run", evaluate_every=1)
    lines = [line for line in history.read(tmp_path / "run" / "history.jsonl") if line["kind"] == "epoch"]
    assert ["mAP" in line for line in lines] == [True, False]  # the last is in the metrics


def test_a_labelled_dataset_is_trained_along(start, root, tmp_path):
    start("run", with_=str(root / "home"), epochs=1)
    steps = [line for line in history.read(tmp_path / "run" / "history.jsonl") if line["kind"] == "step"]
    assert len(steps) == 72 // 8
    with np.load(tmp_path / "run" / "clusters" / "000.npz") as file:
        assert len(file["labels"]) == 36  # of the site alone
    with pytest.raises(OptionError, match=r"--with .*: has images of site: expected another dataset"):
        start("other", with_=str(root / "site"))
    with pytest.raises(DataError, match="36 training images do not fill one batch of 40"):  # 72 do, with the labelled
        start("large", with_=str(root / "home"), epochs=1, batch_size=40)


def test_outliers_may_be_trained_as_instances(start, tmp_path):
    start("run", outliers="instances", min_samples=3, radius=0.3, epochs=1)
    lines = history.read(tmp_path / "run" / "history.jsonl")
    assert lines[0]["outliers"] > 0
    assert len([line for line in lines if line["kind"] == "step"]) == 4


def test_too_few_images_for_a_batch_are_refused(start):
    with pytest.raises(DataError, match="36 training images do not fill one batch of 64"):
        start("run", batch_size=64)


def test_network_and_images_are_those_of_the_run(start, root, tmp_path):
    settings = make_settings(root, tmp_path)
    assert (settings.backbone, settings.ptl, settings.memory, settings.init) == ("tiny", True, "slot", "home")
    assert (settings.height, settings.width, settings.interpolation) == (64, 32, "bilinear")
    assert make_settings(root, tmp_path, height=96).height == 96
    assert make_settings(root, tmp_path, method_="cameras").epochs == 0
    assert settings.default_name == "site-tiny-ptl-adapt-s0"
    assert make_settings(root, tmp_path, method_="cameras").default_name == "site-tiny-ptl-adapt-cameras-s0"


def test_the_head_is_that_of_the_run(start, root, tmp_path):
    head = {"last_stride": 1, "neck": "bn", "pool": "max", "classifier": "linear", "feature_width": 24}
    spec = NetworkSpec("tiny", True, "slot", 6, 64, 32, **head)
    weights.save(models.build(spec, seed=0), spec, RunFolder(tmp_path / "home").weights())
    settings = make_settings(root, tmp_path)
    assert {name: getattr(settings, name) for name in head} == head
    assert 0 < start("run", method_="cameras")["mAP"] < 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run": None}, "No run given: expected a finished run to adapt"),
        ({"data": None}, "No dataset given"),
        ({"run": "nowhere"}, "Unknown run 'nowhere'"),
        ({"ptl": False}, "--no-ptl: expected cells, as the run home has them"),
        ({"backbone": "resnet18"}, "backbone = 'resnet18': expected 'tiny'"),
        ({"neck": "bn"}, "neck = 'bn': expected 'none', as the run home"),
        ({"loss": "triplet", "batch_size": 8}, "loss = 'triplet': expected 'ce', as adaptation does not use it"),
        ({"images_per_identity": 3}, "batch_size = 8: expected a multiple of images_per_identity, 3"),
        ({"method_": "cameras", "epochs": 3}, "epochs = 3 with method = 'cameras': expected none"),
        ({"memory_budget": "much"}, "memory_budget = 'much': expected a number and a unit"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_refused(start, root, tmp_path, changes, message):
    with pytest.raises(OptionError if "nowhere" not in changes.values() else Exception, match=message):
        make_settings(root, tmp_path, **changes)


def test_the_settings_of_an_adapted_run_read_back(start, root, tmp_path):
    start("run", with_=str(root / "home"), epochs=0)
    settings = RunFolder(tmp_path / "run").settings()
    assert isinstance(settings, AdaptSettings)
    assert (settings.run, settings.method_, settings.with_) == ("home", "cluster", str(root / "home"))


def test_the_command_shows_scores_before_and_after(start, root, tmp_path, ptlreid):
    options = ("--run", "home", "--data", root / "site", "--method", "cameras", "--device", "cpu", "--runs", tmp_path)
    code, out, err = ptlreid("adapt", *options)
    assert code == 0, err
    assert "before: home" in out
    assert "after: site-tiny-ptl-adapt-cameras-s0" in out
    code, out, err = ptlreid("adapt", *options, "--json")
    found = json.loads(out)
    assert code == 0, err
    assert ("No improvement" in err) == (found["mAP"] <= found["before"]["mAP"])
    assert (tmp_path / "site-tiny-ptl-adapt-cameras-s0" / "report.html").is_file()
    for command in (
        ("evaluate", "--run", "site-tiny-ptl-adapt-cameras-s0"),
        ("compare", "home", "site-tiny-ptl-adapt-cameras-s0", "--data", root / "site"),
    ):
        code, _, err = ptlreid(*command, "--runs", tmp_path, "--device", "cpu")
        assert code == 0, err


def test_a_seed_has_the_run_of_its_own_where_the_name_has_a_star(start, root, tmp_path, ptlreid):
    (tmp_path / "home").rename(tmp_path / "home-s0")
    shutil.copytree(tmp_path / "home-s0", tmp_path / "home-s1")
    (tmp_path / "mine.toml").write_text(f'method = "cameras"\ndata = "{root / "site"}"\nreport = false\n')
    options = ("--config", tmp_path / "mine.toml", "--device", "cpu", "--runs", tmp_path)
    code, out, err = ptlreid("adapt", "--run", "home-s*", "--seeds", "0,1", *options)
    assert code == 0, err
    assert all(f"{label}, seed {seed}" in out for label in ("before", "after") for seed in (0, 1))
    for seed in (0, 1):
        settings = RunFolder(tmp_path / f"site-tiny-ptl-adapt-cameras-s{seed}").settings()
        assert isinstance(settings, AdaptSettings)
        assert settings.run == f"home-s{seed}"


def test_a_notebook_adapts_as_the_command_does(start, root, tmp_path):
    expected = start("run", method_="cameras")
    options = {"method_": "cameras", "device": "cpu", "report": False}
    found = ptlreid_package.adapt_run("home", str(root / "site"), runs=tmp_path, name="other", **options)
    assert found == {**expected, "run": "other", "environment": found["environment"]}


def test_a_dry_run_trains_nothing(start, root, tmp_path, ptlreid):
    options = ("--run", "home", "--data", root / "site", "--batch-size", 8, "--device", "cpu", "--runs", tmp_path)
    code, out, err = ptlreid("adapt", *options, "--dry-run", "--json")
    assert code == 0, err
    assert json.loads(out)["steps"] == 10 * (36 // 8)
    assert not (tmp_path / "site-tiny-ptl-adapt-s0").exists()


def test_groups_are_sampled_again_until_the_batches_are_full():
    groups = [np.array([0, 1, 2]), np.array([3]), np.array([4, 5])]
    batches = sample_groups(groups, 3, 2, 2, np.random.default_rng(0))
    assert [len(batch) for batch in batches] == [4, 4, 4]
    pairs = np.concatenate(batches).reshape(6, 2)
    owners = [next(number for number, group in enumerate(groups) if set(pair) <= set(group)) for pair in pairs.tolist()]
    assert sorted(owners[:3]) == sorted(owners[3:]) == [0, 1, 2]
    assert all(pair[0] != pair[1] or owner == 1 for pair, owner in zip(pairs.tolist(), owners, strict=True))
