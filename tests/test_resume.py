"""Runs that were stopped by an error, a signal or a kill, and resumed."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ptlreid import datasets, signals
from ptlreid.engine import epochs, history
from ptlreid.errors import DataError, PtlreidError, Stopped
from ptlreid.models.weights import read_weights_header
from ptlreid.progress import Silent
from ptlreid.runs import RunFolder
from ptlreid.settings import FinetuneSettings
from ptlreid.workflows.finetune import finetune

# The values in a line of the history that depend on the machine.
TIMES = {"images_per_second", "wait", "memory_bytes"}


def make_settings(**changed) -> FinetuneSettings:
    settings = {
        "backbone": "tiny",
        "init": "none",
        "height": 64,
        "width": 32,
        "batch_size": 4,
        "epochs": 4,
        "report": False,
    }
    return FinetuneSettings.resolve(
        None, **({"device": "cpu", "decay_every": 2, "evaluate_every": 2} | settings | changed)
    )


@pytest.fixture
def splits(market_folder):
    return datasets.load("market", market_folder.parent)


def read_history(run: RunFolder) -> list[dict]:
    return [{key: value for key, value in line.items() if key not in TIMES} for line in history.read(run.history)]


def assert_same(one: RunFolder, other: RunFolder) -> None:
    ours, theirs = (read_weights_header(run.weights()).build().state_dict() for run in (one, other))
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    assert read_history(one) == read_history(other)
    assert one.has_average == other.has_average
    if one.has_average:
        assert one.weights("averaged").read_bytes() == other.weights("averaged").read_bytes()
        assert one.weights("averaged").read_bytes() != one.weights().read_bytes()


class Fault(Exception):
    """Any error that ends a run."""


class At(Silent):
    """Calls `act` when this many updates have been reported, and keeps the notes."""

    def __init__(self, update: int, act) -> None:
        self.update, self.act, self.notes = update, act, []

    def note(self, text: str) -> None:
        self.notes.append(text)

    @contextmanager
    def task(self, title, total):
        def advance(done, *, status="", total=None):
            if title.startswith("train") and done == self.update:
                self.act()

        yield advance


def fault():
    raise Fault


@pytest.mark.parametrize(
    "settings",
    [
        {"ptl": True},
        {"ptl": True, "memory": "mean", "schedule": "cosine", "warmup_epochs": 1},
        {"ptl": False, "freeze_epochs": 1, "new_lr_factor": 5.0, "layer_decay": 0.5},
        {"backbone": "tiny-dropout", "optimizer": "adam", "amsgrad": True, "ema_decay": 0.9},
        {"images_per_identity": 2, "loss": "ce+triplet", "label_smoothing": 0.1, "clip_grad": 0.5},
        {"loss": "ce+xbm+centre", "xbm_start": 3, "xbm_size": 6, "centre_weight": 0.5},
        {"pad": 4, "erase": 0.5, "batch_size": 2, "accumulate": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("minutes", [0, 99], ids=["after every update", "after every epoch"])
def test_a_stopped_run_resumes_to_equal_weights(tmp_path, splits, settings, minutes):
    whole, stopped = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "stopped")
    expected = finetune(make_settings(**settings), splits, whole, Silent())
    updates = sum(line["kind"] == "step" for line in read_history(whole))
    torch.rand(3)  # the state of the global generator makes no difference
    settings |= {"checkpoint_minutes": float(minutes)}
    for update in (2, updates // 2 + 1, updates):
        with pytest.raises(Fault):
            finetune(make_settings(**settings), splits, stopped, At(update, fault))
    metrics = finetune(make_settings(**settings), splits, stopped, Silent())
    assert metrics == {**expected, "run": "stopped", "environment": metrics["environment"]}
    assert_same(stopped, whole)


def test_updates_before_the_last_checkpoint_are_not_repeated(tmp_path, splits):
    run = RunFolder(tmp_path / "run")  # 4 updates an epoch
    with pytest.raises(Fault):
        finetune(make_settings(checkpoint_minutes=0.0), splits, run, At(7, fault))
    progress = At(-1, fault)
    finetune(make_settings(), splits, run, progress)
    assert progress.notes[0] == f"{run.path}: resuming after epoch 1 and 2 of 4 updates"


@pytest.mark.parametrize("number", signals.STOPPING)
def test_a_signal_stops_the_run_after_the_update_with_a_checkpoint(tmp_path, splits, number, heeded):
    whole, stopped = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "stopped")
    finetune(make_settings(), splits, whole, Silent())
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match=f"{number.name}: stopped after update 3 of 4 in epoch 2 of 4") as stop:
        # The signal comes while update 7 is reported, which is completed: 7 = 4 + 3.
        finetune(make_settings(), splits, stopped, At(7, lambda: signal.raise_signal(number)))
    assert stop.value.code == 128 + number
    assert signal.getsignal(number) is before
    progress = At(-1, fault)
    finetune(make_settings(), splits, stopped, progress)
    assert progress.notes[0].endswith("resuming after epoch 1 and 3 of 4 updates")
    assert_same(stopped, whole)


def test_a_second_signal_acts_at_once(tmp_path, splits, heeded):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        finetune(make_settings(), splits, RunFolder(tmp_path / "run"), At(2, twice))


def test_a_kill_while_scoring_repeats_no_update(tmp_path, splits, monkeypatch):
    run = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr("ptlreid.engine.scoring.evaluate", lambda *_: fault())
        with pytest.raises(Fault):
            finetune(make_settings(), splits, run, Silent())
    progress = At(8, fault)  # the last update before the evaluation, reported already
    finetune(make_settings(), splits, run, progress)
    assert progress.notes[0].endswith("resuming after epoch 1 and 4 of 4 updates")


def killed(root: str, folder: str, updates: int, delay: float) -> None:
    """Trains in its own process, which is killed some time after `updates` more updates."""
    from conftest import backbones  # noqa: F401 - makes the tiny backbone known here

    torch.set_num_threads(1)
    left = [updates]

    class Kill(Silent):
        @contextmanager
        def task(self, title, total):
            def advance(done, *, status="", total=None):
                left[0] -= title.startswith("train")
                if left[0] == 0:
                    threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

            yield advance

    splits = datasets.load("market", Path(root))
    settings = make_settings(epochs=8, checkpoint_minutes=0.0, ema_decay=0.9)
    finetune(settings, splits, RunFolder(Path(folder)), Kill())


@pytest.mark.slow
def test_a_run_killed_at_any_instant_resumes_to_equal_weights(tmp_path, splits, market_folder):
    whole, stopped = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "stopped")
    finetune(make_settings(epochs=8, ema_decay=0.9), splits, whole, Silent())
    context = multiprocessing.get_context("forkserver")  # torch is imported once, and each process is cheap
    context.set_forkserver_preload(["ptlreid.engine.training_run", "conftest"])
    chance, kills = random.Random(0), 0
    while True:
        # Of 32 updates one to three are made before each kill, which comes in an update, a checkpoint or an evaluation.
        arguments = (str(market_folder.parent), str(stopped.path), chance.randint(2, 3), chance.uniform(0, 0.03))
        process = context.Process(target=killed, args=arguments)
        process.start()
        process.join(120)
        assert process.exitcode in (0, -signal.SIGKILL)
        if process.exitcode == 0:
            break
        kills += 1
        assert kills < 60, "no progress"
    assert kills >= 10
    assert_same(stopped, whole)
    leftovers = [path.name for path in stopped.path.rglob("*.part")]
    assert (
        len(leftovers) <= kills
    )  # a kill while writing leaves a temporary file, never an incomplete one with the right name


def test_a_stop_after_the_last_update_of_an_epoch_keeps_the_cell_statistics(tmp_path, splits, monkeypatch):
    def stopped_in_evaluation(*given, before):
        before()
        raise Fault

    whole, stopped = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "stopped")
    finetune(make_settings(), splits, whole, Silent())
    with monkeypatch.context() as patched, pytest.raises(Fault):
        patched.setattr("ptlreid.engine.scoring.score_epoch", stopped_in_evaluation)
        finetune(make_settings(), splits, stopped, Silent())
    finetune(make_settings(), splits, stopped, Silent())
    assert "cells" in read_history(whole)[-1]
    assert_same(stopped, whole)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_update_and_terms(tmp_path, splits, monkeypatch):
    run = RunFolder(tmp_path / "run")
    calls = []

    def broken(output, labels, images):
        calls.append(1)
        value = output.embedding.square().mean()
        return {"good": value, "bad": value * (float("nan") if len(calls) == 6 else 1)}

    with pytest.raises(
        PtlreidError, match=r"Update 2 of epoch 2: the loss is not finite \(good = .*, bad = nan\)\. Last checkpoint"
    ):
        finetune(make_settings(), splits, run, Silent(), objective=lambda device, loss: broken)
    checkpoint = torch.load(run.checkpoint, weights_only=True)
    assert (checkpoint["epoch"], checkpoint["step"]) == (1, 0)
    assert all(tensor.isfinite().all() for tensor in checkpoint["network"].values())


def test_a_loader_that_dies_during_an_update_is_reported(tmp_path, splits):
    def lose():
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    with pytest.raises(DataError, match=r"A DataLoader worker died .* fewer --workers"):
        finetune(make_settings(), splits, RunFolder(tmp_path / "run"), At(2, lose))


@pytest.mark.parametrize("stop", [None, 6])
def test_the_same_loaders_serve_all_epochs_and_end_with_the_run(tmp_path, splits, stop):
    alone, run = RunFolder(tmp_path / "alone"), RunFolder(tmp_path / "run")
    seen = []

    class Watch(Silent):
        @contextmanager
        def task(self, title, total):
            def advance(done, *, status="", total=None):
                if title.startswith("train"):
                    seen.append({child.pid for child in multiprocessing.active_children()})
                    if done == stop:
                        raise Fault

            yield advance

    with nullcontext() if stop is None else pytest.raises(Fault):
        finetune(make_settings(workers=2, pad=2, accumulate=2, batch_size=2), splits, run, Watch())
    assert multiprocessing.active_children() == []
    assert len(seen) == (stop or 16)
    assert len(set.intersection(*seen)) == len(set.union(*seen)) == 2
    finetune(make_settings(workers=0, pad=2, accumulate=2, batch_size=2), splits, run, Silent())
    finetune(make_settings(workers=0, pad=2, accumulate=2, batch_size=2), splits, alone, Silent())
    assert_same(run, alone)


def test_weights_that_are_not_finite_are_never_saved(tmp_path, splits):
    run = RunFolder(tmp_path / "run")

    def steep(output, labels, images):
        return {"steep": (output.embedding * 1e37).mean()}  # finite, and its gradient overflows the weights

    settings = make_settings(lr=1000.0, checkpoint_minutes=0.0, epochs=1)
    with pytest.raises(PtlreidError, match=r"After update 1 of epoch 1, .* is not finite: .* No checkpoint yet"):
        finetune(settings, splits, run, Silent(), objective=lambda device, loss: steep)
    assert not run.weights().exists()


def test_training_stops_early_without_a_better_map(tmp_path, splits, monkeypatch):
    run = RunFolder(tmp_path / "run")
    progress = At(-1, fault)
    found = iter([0.3, 0.2, 0.5, 0.5, 0.4])
    monkeypatch.setattr(
        "ptlreid.engine.scoring.evaluate", lambda *_: SimpleNamespace(mean_ap=next(found), summary=dict)
    )
    metrics = finetune(make_settings(epochs=20, evaluate_every=1, patience=2), splits, run, progress)
    assert metrics["epochs"] == 5  # the third evaluation is the best, and the two after it are not better
    assert "early stop after epoch 5: 2 evaluations without a better mAP" in progress.notes


def test_patience_without_evaluations_is_noted(tmp_path, splits):
    without = replace(splits, query=splits.query.select(np.arange(0)))
    for number, (every, part, noted) in enumerate(((1, splits, False), (1, without, True), (0, splits, True))):
        progress = At(-1, fault)
        run = RunFolder(tmp_path / str(number))
        finetune(make_settings(epochs=2, evaluate_every=every, patience=2), part, run, progress)
        assert ("patience = 2 has no effect: no epoch but the last is evaluated" in progress.notes) == noted


def test_the_history_has_loss_terms_speed_memory_and_cells(tmp_path, splits):
    run = RunFolder(tmp_path / "run")
    finetune(make_settings(images_per_identity=2, loss="ce+triplet", epochs=2), splits, run, Silent())
    lines = history.read(run.history)
    step = lines[0]
    assert step["loss"] == pytest.approx(step["terms"]["ce"] + step["terms"]["triplet"])
    assert step["images"] == 4
    assert step["images_per_second"] > 0
    assert 0 <= step["wait"] <= 1
    assert step["memory_bytes"] > 10**7
    (first, _) = (line for line in lines if line["kind"] == "epoch")
    assert len(first["cells"]) == 5
    for cell in first["cells"].values():
        assert cell["state_norm"] > 0
        assert all(0 < cell[gate] < 1 for gate in ("input", "forget", "output"))


def test_frozen_weights_do_not_change_until_they_are_unfrozen(tmp_path, splits):
    weights = {}
    for count in (0, 1, 2):
        run = RunFolder(tmp_path / f"run{count}")
        finetune(make_settings(epochs=count, freeze_epochs=1), splits, run, Silent())
        state = read_weights_header(run.weights()).build().state_dict()
        weights[count] = {name: state[name] for name in state if name.endswith("0.weight") and "backbone" in name}
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not any(torch.equal(weights[1][name], weights[2][name]) for name in weights[1])


def test_tensorboard_events_are_written_or_the_package_is_reported_missing(tmp_path, splits):
    run = RunFolder(tmp_path / "run")
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        with pytest.raises(PtlreidError, match=r"pip install 'ptlreid\[tensorboard\]'"):
            finetune(make_settings(tensorboard=True), splits, run, Silent())
    else:
        finetune(make_settings(tensorboard=True), splits, run, Silent())
        assert list((run.path / "events").glob("events.out.tfevents.*"))


def test_a_long_update_is_followed_by_a_checkpoint(tmp_path, splits, monkeypatch):
    times = iter(range(0, 10**6, 45))  # each look at the clock finds it 45 seconds later
    monkeypatch.setattr(epochs.time, "monotonic", lambda: next(times))
    run = RunFolder(tmp_path / "run")
    with pytest.raises(Fault):
        finetune(make_settings(checkpoint_minutes=1.0), splits, run, At(4, fault))
    # Looks: the epoch's start, then one an update. 90 seconds after the start, so after update 2.
    content = torch.load(run.checkpoint, weights_only=True)
    assert (content["epoch"], content["step"]) == (0, 2)
    assert time is epochs.time


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(tmp_path, splits, monkeypatch):
    plain, compiled = RunFolder(tmp_path / "plain"), RunFolder(tmp_path / "compiled")
    finetune(make_settings(epochs=2), splits, plain, Silent())
    # torch's own tracing, without its code generator, which takes a minute
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    finetune(make_settings(epochs=2, compile=True), splits, compiled, Silent())
    assert_same(compiled, plain)


@pytest.mark.parametrize("number", signals.STOPPING)
@pytest.mark.slow
def test_a_signal_to_a_command_and_its_loaders_ends_in_one_message(tmp_path, market_folder, number, heeded):
    settings = tmp_path / "settings.toml"
    settings.write_text("checkpoint_minutes = 0.0\n")
    options = "finetune --backbone mobilenet-v3-small --init none --height 64 --width 32 --batch-size 4 --epochs 500"
    command = [*options.split(), "--device", "cpu", "--workers", "2", "--name", "run", "--config", str(settings)]
    places = ["--root", str(market_folder.parent), "--runs", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "ptlreid", *command, *places],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a group of its own, as a terminal gives each command
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    while not checkpoint.is_file():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.killpg(process.pid, number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in stderr
    (error,) = (line for line in stderr.splitlines() if line.startswith("error:"))
    assert error.startswith(f"error: {number.name}: stopped after update")
    assert "To resume: ptlreid finetune --backbone mobilenet-v3-small" in error
    assert torch.load(checkpoint, weights_only=True)["epoch"] >= 0
