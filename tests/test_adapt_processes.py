"""Adaptation on two processes, and runs that are killed, for real."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from test_adapt import assert_same, make_settings, root, source, weights_of  # noqa: F401 - two of them are fixtures
from test_processes import free_port

from ptlreid import datasets
from ptlreid.engine import history
from ptlreid.progress import Silent
from ptlreid.runs import RunFolder
from ptlreid.settings import FinetuneSettings
from ptlreid.workflows.adapt import adapt
from ptlreid.workflows.finetune import finetune

RANKS = 2


def adapt_one(rank: int, port: str, data: str, runs: str, name: str, settings: dict) -> None:
    """Adapt in one of two processes."""
    import conftest  # noqa: F401 - registers the tiny backbones in this process

    torch.set_num_threads(1)
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    os.environ |= environment | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS)}
    splits = datasets.load(f"{data}/site", Path(data))
    chosen = make_settings(Path(data), Path(runs), **settings)
    metrics = adapt(chosen, splits, RunFolder(Path(runs) / name), Silent())
    (Path(runs) / f"{name}.{rank}").write_text(f"{metrics['mAP']:.9f}")


def steps_of(run: Path) -> list[dict]:
    return [line for line in history.read(run / "history.jsonl") if line["kind"] == "step"]


def test_two_processes_adapt_as_one(root, tmp_path):  # noqa: F811 - the fixture
    size = {"height": 64, "width": 32, "batch_size": 12, "epochs": 1, "report": False, "ptl": False}
    home = FinetuneSettings.resolve(
        None, data=str(root / "home"), backbone="tiny-even", init="none", device="cpu", **size
    )
    finetune(home, datasets.load(home.data, root), RunFolder(tmp_path / "home"), Silent())
    metrics = adapt(
        make_settings(root, tmp_path),
        datasets.load(str(root / "site"), root),
        RunFolder(tmp_path / "one"),
        Silent(),
    )
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ptlreid.engine.training_run"])
    arguments = (free_port(), str(root), str(tmp_path), "two", {})
    processes = [context.Process(target=adapt_one, args=(rank, *arguments)) for rank in range(RANKS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    ends = [(tmp_path / f"two.{rank}").read_text() for rank in range(RANKS)]
    assert ends == [f"{metrics['mAP']:.9f}"] * RANKS
    ours, theirs = steps_of(tmp_path / "two"), steps_of(tmp_path / "one")
    assert [line["loss"] for line in ours] == pytest.approx([line["loss"] for line in theirs], rel=1e-4)
    torch.testing.assert_close(weights_of(tmp_path / "two"), weights_of(tmp_path / "one"), rtol=1e-4, atol=1e-6)


def killed(data: str, runs: str, updates: int, delay: float) -> None:
    """Adapts in its own process, which is killed some time after `updates` more updates."""
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

    settings = make_settings(Path(data), Path(runs), epochs=5, checkpoint_minutes=0.0)
    adapt(settings, datasets.load(settings.data, Path(data)), RunFolder(Path(runs) / "stopped"), Kill())


@pytest.mark.slow
def test_a_run_killed_at_any_instant_resumes_to_equal_weights(root, source, tmp_path):  # noqa: F811
    home = tmp_path / "home"
    home.mkdir()
    for file in (source.config, source.data, source.metrics, source.weights()):
        (home / file.name).write_bytes(file.read_bytes())
    settings = make_settings(root, tmp_path, epochs=5)
    adapt(settings, datasets.load(settings.data, root), RunFolder(tmp_path / "whole"), Silent())
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ptlreid.engine.training_run", "ptlreid.adapt.rounds", "conftest"])
    chance, kills = random.Random(0), 0
    while True:
        # Of 20 updates one to three are made before each kill: in an update, a checkpoint or the clustering.
        arguments = (str(root), str(tmp_path), chance.randint(2, 3), chance.uniform(0, 0.3))
        process = context.Process(target=killed, args=arguments)
        process.start()
        process.join(120)
        assert process.exitcode in (0, -signal.SIGKILL)
        if process.exitcode == 0:
            break
        kills += 1
        assert kills < 40, "no progress"
    assert kills >= 4
    assert_same(tmp_path / "stopped", tmp_path / "whole")
