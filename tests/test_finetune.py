"""A training run: the files in its folder, reuse, refusal and resuming."""

from __future__ import annotations

import multiprocessing
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from conftest import write_image

from ptlreid import datasets, views
from ptlreid.engine import epochs, history
from ptlreid.engine.fit import train_epoch
from ptlreid.errors import CheckpointError, DataError, OptionError
from ptlreid.evaluation import evaluate_run
from ptlreid.models.bconv import memory_state
from ptlreid.models.weights import read_weights_header
from ptlreid.precision import resolve_precision
from ptlreid.progress import Silent
from ptlreid.runs import RunFolder, find_run
from ptlreid.settings import EvaluateSettings, FinetuneSettings
from ptlreid.workflows.finetune import finetune


def make_settings(**changed) -> FinetuneSettings:
    settings = {
        "backbone": "tiny",
        "init": "none",
        "height": 64,
        "width": 32,
        "batch_size": 8,
        "epochs": 4,
        "report": False,
    }
    defaults = {"device": "cpu", "decay_every": 2, "evaluate_every": 2}
    return FinetuneSettings.resolve(None, **defaults | settings | changed)


@pytest.fixture
def splits(market_folder):
    return datasets.load("market", market_folder.parent)


class Stop(Exception):
    """Stands for a kill."""


class StoppedAt(Silent):
    """A progress that raises at one update of training, and keeps the notes."""

    def __init__(self, step: int) -> None:
        self.step, self.notes = step, []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def task(self, title, total):
        @contextmanager
        def task():
            def advance(done, *, status="", total=None):
                if title.startswith("train") and done == self.step:
                    raise Stop

            yield advance

        return task()


def weights_of(run: RunFolder) -> dict[str, torch.Tensor]:
    return read_weights_header(run.weights()).build().state_dict()


def test_a_run_writes_all_its_files_and_its_scores_are_those_of_evaluate(tmp_path, splits):
    run = RunFolder(tmp_path / "run")
    metrics = finetune(make_settings(), splits, run, Silent())
    assert metrics == run.read_metrics()
    assert FinetuneSettings.resolve(run.config) == resolve_precision(make_settings())
    entries = history.read(run.history)
    epochs = [entry for entry in entries if entry["kind"] == "epoch"]
    assert [(entry["epoch"], "mAP" in entry) for entry in epochs] == [(1, False), (2, True), (3, False), (4, False)]
    # 16 images in batches of 8 for 4 epochs; the rate is divided by ten after epoch 2.
    assert [entry["lr"] for entry in entries if entry["kind"] == "step"] == pytest.approx([0.01] * 4 + [0.001] * 4)
    shutil.rmtree(run.features)
    scores = evaluate_run(run, splits, EvaluateSettings.resolve(None, device="cpu"), Silent())
    assert scores.mean_ap == pytest.approx(metrics["mAP"], abs=1e-9)
    best = evaluate_run(run, splits, EvaluateSettings.resolve(None, device="cpu", weights="best"), Silent())
    assert best.mean_ap >= scores.mean_ap
    written = {path.name for path in run.path.iterdir()}
    weights = {"checkpoint.pt", "weights.safetensors", "best.safetensors"}
    assert written == weights | {"config.toml", "data.json", "history.jsonl", "metrics.json", "features"}


def test_training_and_every_evaluation_of_a_run_see_images_as_its_settings_say(tmp_path, splits, monkeypatch):
    run, seen = RunFolder(tmp_path / "run"), []
    monkeypatch.setattr("ptlreid.images.resize", lambda images, view: seen.append(view) or views.resize(images, view))
    augmentation = {"crop": 0.5, "flip": 0.25, "pad": 3, "erase": 0.75}
    finetune(make_settings(interpolation="bicubic", **augmentation), splits, run, Silent())
    assert set(seen) == {views.TrainView(64, 32, "bicubic", **augmentation), views.EvalView(64, 32, "bicubic")}
    assert read_weights_header(run.weights()).spec.interpolation == "bicubic"


def test_a_report_is_written_at_the_end(tmp_path, splits):
    run = RunFolder(tmp_path / "run")
    finetune(make_settings(epochs=1, report=True), splits, run, Silent())
    assert "<html" in (run.path / "report.html").read_text()


def test_every_epoch_starts_from_the_zero_state(tmp_path, splits, monkeypatch):
    begun, ended = [], []

    def spy(training, *arguments, **settings):
        begun.append(len(memory_state(training.network)))
        yield from train_epoch(training, *arguments, **settings)
        ended.append(len(memory_state(training.network)))

    monkeypatch.setattr(epochs, "train_epoch", spy)
    finetune(make_settings(epochs=3), splits, RunFolder(tmp_path / "run"), Silent())
    assert begun == [0, 0, 0]
    assert ended == [5, 5, 5]


def test_a_finished_run_is_reused_untouched(tmp_path, splits):
    run = RunFolder(tmp_path / "run")
    first = finetune(make_settings(epochs=1), splits, run, Silent())
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    progress = StoppedAt(1)  # raises if an update is made
    assert finetune(make_settings(epochs=1), splits, run, progress) == first
    assert progress.notes == [f"{run.path} is finished: reused, nothing trained"]
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before


def test_a_finished_run_is_scored_again_if_the_test_set_has_changed(tmp_path, market_folder):
    root = tmp_path / "data"
    shutil.copytree(market_folder, root / market_folder.name)
    run, before = RunFolder(tmp_path / "run"), datasets.load("market", root)
    first = finetune(make_settings(epochs=1, report=True), before, run, Silent())
    page, ended = run.report.read_bytes(), run.metrics.stat().st_mtime_ns
    before.gallery.paths[-1].unlink()
    splits, progress = datasets.load("market", root), StoppedAt(-1)
    metrics = finetune(make_settings(epochs=1, report=True), splits, run, progress)
    assert run.report.read_bytes() != page
    assert run.metrics.stat().st_mtime_ns == ended  # by which the newest run is found
    assert any("the test set has changed, scoring again" in note for note in progress.notes)
    now = evaluate_run(run, splits, EvaluateSettings(device="cpu"), Silent()).summary()
    assert {key: metrics[key] for key in now} == now
    assert run.read_metrics() == metrics
    assert metrics["test_images"] != first["test_images"]
    progress = StoppedAt(-1)
    assert finetune(make_settings(epochs=1), splits, run, progress) == metrics
    assert not any("scoring again" in note for note in progress.notes)


def test_damaged_weights_are_rewritten_from_the_checkpoint(tmp_path, splits):
    run = RunFolder(tmp_path / "run")
    metrics = finetune(make_settings(), splits, run, Silent())
    whole = run.weights().read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:5], b""):
        run.weights().write_bytes(damaged)
        assert not run.finished
        assert finetune(make_settings(), splits, run, Silent()) == metrics
        assert run.weights().read_bytes() == whole


def test_a_missing_report_is_written(tmp_path, splits):
    run = RunFolder(tmp_path / "run")
    finetune(make_settings(epochs=1, report=True), splits, run, Silent())
    page = run.path / "report.html"
    page.unlink()
    finetune(make_settings(epochs=1, report=True), splits, run, Silent())
    assert page.is_file()


def wait_in_training(root: str, folder: str, begun) -> None:
    """Trains in its own process, and waits for ever after its first update."""
    from conftest import backbones  # noqa: F401 - makes the tiny backbone known here

    class Wait(Silent):
        @contextmanager
        def task(self, title, total):
            def advance(done, *, status="", total=None):
                if title.startswith("train"):
                    begun.set()
                    threading.Event().wait()

            yield advance

    torch.set_num_threads(1)
    finetune(make_settings(workers=1), datasets.load("market", Path(root)), RunFolder(Path(folder)), Wait())


def test_one_process_at_a_time_trains_a_run_and_a_kill_leaves_no_lock(tmp_path, splits, market_folder):
    run = RunFolder(tmp_path / "run")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ptlreid.engine.training_run", "conftest"])
    begun = context.Event()
    other = context.Process(target=wait_in_training, args=(str(market_folder.parent), str(run.path), begun))
    other.start()
    try:
        assert begun.wait(120)
        with pytest.raises(CheckpointError, match=r"run: another process is training this run.* another --name"):
            finetune(make_settings(), splits, run, Silent())
    finally:
        other.kill()
        other.join()
    finetune(make_settings(), splits, run, Silent())
    steps = [(line["epoch"], line["step"]) for line in history.read(run.history) if line["kind"] == "step"]
    assert len(steps) == len(set(steps)) == 8
    assert not run.lock.exists()


def test_metrics_that_are_no_object_are_reported(tmp_path, splits):
    run = RunFolder(tmp_path / "run")
    finetune(make_settings(epochs=1), splits, run, Silent())
    run.metrics.write_text("[]")
    with pytest.raises(DataError, match=r"metrics\.json: found \[\], expected a JSON object\. Remove it"):
        finetune(make_settings(epochs=1), splits, run, Silent())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"data\.json: cannot be read \(No such file or directory\)\. Restore the file"),
        ("[]", r"found \[\], expected a JSON object\. Restore the file"),
        ('{"depends": []}', r"name is missing\. Restore the file"),
    ],
)
def test_a_run_without_its_training_manifest_is_reported(tmp_path, splits, content, message):
    run = RunFolder(tmp_path / "run")
    finetune(make_settings(epochs=1), splits, run, Silent())
    run.data.unlink()
    if content is not None:
        run.data.write_text(content)
    with pytest.raises(DataError, match=message):
        finetune(make_settings(epochs=1), splits, run, Silent())


def test_other_settings_or_images_are_refused_and_nothing_is_lost(tmp_path, market_folder):
    shutil.copytree(market_folder, tmp_path / "market")
    splits = datasets.load("market", tmp_path)
    run = RunFolder(tmp_path / "run")
    finetune(make_settings(epochs=1), splits, run, Silent())
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    with pytest.raises(OptionError, match=r"another run \(lr: 0.01 -> 0.02\). Give this one another --name"):
        finetune(make_settings(epochs=1, lr=0.02), splits, run, Silent())
    write_image(splits.train.paths[0], seed=777)
    with pytest.raises(OptionError, match="the training images changed"):
        finetune(make_settings(epochs=1), splits, run, Silent())
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before


def test_a_run_that_failed_at_its_start_leaves_its_folder_free(tmp_path, splits):
    run = RunFolder(tmp_path / "run")
    with pytest.raises(CheckpointError, match="Unknown run 'gone'"):
        finetune(make_settings(init="gone"), splits, run, Silent())
    assert not run.path.exists()
    with pytest.raises(Stop):
        finetune(make_settings(), splits, run, StoppedAt(1))
    assert finetune(make_settings(epochs=1), splits, run, Silent())["epochs"] == 1


def test_a_run_can_start_from_another(tmp_path, splits):
    finetune(make_settings(epochs=1), splits, RunFolder(tmp_path / "first"), Silent())
    progress = StoppedAt(-1)
    finetune(make_settings(epochs=0, init="first", seed=5), splits, RunFolder(tmp_path / "second"), progress)
    assert progress.notes[0].startswith("initialised from first: ")
    first, second = weights_of(RunFolder(tmp_path / "first")), weights_of(RunFolder(tmp_path / "second"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_damaged_checkpoint_is_named(tmp_path, splits):
    run = RunFolder(tmp_path / "run")
    with pytest.raises(Stop):
        finetune(make_settings(), splits, run, StoppedAt(5))
    run.checkpoint.write_bytes(run.checkpoint.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: cannot be read"):
        finetune(make_settings(), splits, run, Silent())


def test_too_few_images_for_a_batch_are_refused_before_anything_is_written(tmp_path, splits):
    with pytest.raises(DataError, match="16 training images do not fill one batch of 32"):
        finetune(make_settings(batch_size=32), splits, RunFolder(tmp_path / "run"), Silent())
    assert not (tmp_path / "run").exists()


def test_an_unknown_run_gets_a_suggestion(tmp_path):
    with pytest.raises(CheckpointError, match="contains no runs"):
        find_run(tmp_path, "run")
    (tmp_path / "market-tiny-ptl-s0").mkdir()
    (tmp_path / "market-tiny-ptl-s0" / "config.toml").touch()
    with pytest.raises(CheckpointError, match="Did you mean 'market-tiny-ptl-s0'"):
        find_run(tmp_path, "market-tiny-s0")
    assert find_run(Path("nowhere"), str(tmp_path / "market-tiny-ptl-s0")).path.name == "market-tiny-ptl-s0"


def test_the_metrics_say_what_the_run_was_trained_with(tmp_path, splits):
    run = RunFolder(tmp_path / "run")
    finetune(make_settings(), splits, run, Silent())
    found = run.read_metrics()["environment"]
    assert (found["device"], found["processes"], found["images_per_update"]) == ("cpu", 1, 8)
    updates = [line for line in history.read(run.history) if line["kind"] == "step"]
    images = sum(line["images"] for line in updates)
    # Speeds are rounded, and seconds to a thousandth, which is much of them on a fast machine.
    rounding = 0.001 * found["images_per_second"]
    assert found["images_per_second"] * found["seconds"] == pytest.approx(images, abs=0.01 * images + rounding)
    total = sum(8 / line["images_per_second"] for line in updates)
    assert found["seconds"] == pytest.approx(total, abs=0.01 * total + 0.001)


def test_a_run_that_was_continued_under_other_conditions_says_so(tmp_path, splits, monkeypatch):
    run = RunFolder(tmp_path / "run")
    with monkeypatch.context() as changed, pytest.raises(Stop):
        changed.setattr(torch, "__version__", "2.7.0")
        finetune(make_settings(), splits, run, StoppedAt(7))
    found = finetune(make_settings(), splits, run, Silent())["environment"]
    assert [one["torch"] for one in found["sessions"]] == ["2.7.0", found["torch"]] != [found["torch"]] * 2
    assert sum(one["seconds"] for one in found["sessions"]) == pytest.approx(found["seconds"], abs=0.002)


def test_a_run_that_version_0_1_began_says_so(tmp_path, splits):
    run = RunFolder(tmp_path / "run")
    with pytest.raises(Stop):
        finetune(make_settings(), splits, run, StoppedAt(7))
    checkpoint = torch.load(run.checkpoint, weights_only=True)
    done = sum(session["updates"] for session in checkpoint["sessions"])
    torch.save(checkpoint | {"sessions": []}, run.checkpoint)  # as its checkpoints are translated
    first, last = finetune(make_settings(), splits, run, Silent())["environment"]["sessions"]
    assert (first["device"], last["device"]) == ("unknown", "cpu") and done


def test_scores_that_are_made_again_keep_the_environment_of_the_training(tmp_path, market_folder):
    copy = shutil.copytree(market_folder, tmp_path / "data" / "market")
    run = RunFolder(tmp_path / "run")
    first = finetune(make_settings(), datasets.load("market", copy.parent), run, Silent())
    write_image(copy / "query" / "0005_c1s1_000001_00.jpg", 99)
    again = finetune(make_settings(), datasets.load("market", copy.parent), run, Silent())
    assert again["test_images"] != first["test_images"] and again["environment"] == first["environment"]
