"""Training on two processes, for real: gloo on this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from ptlreid import datasets, distributed
from ptlreid.engine import history
from ptlreid.errors import PtlreidError, Stopped
from ptlreid.features import Extractor
from ptlreid.models.weights import read_weights_header
from ptlreid.progress import Silent
from ptlreid.runs import RunFolder
from ptlreid.samplers import ShuffleSampler
from ptlreid.settings import FinetuneSettings
from ptlreid.workflows.finetune import finetune

RANKS = 2


def settings_of(**changes) -> FinetuneSettings:
    settings = {
        "backbone": "tiny-even",
        "ptl": False,
        "init": "none",
        "height": 64,
        "width": 32,
        "epochs": 3,
        "report": False,
    }
    return FinetuneSettings.resolve(None, device="cpu", evaluate_every=2, **{"batch_size": 4} | settings | changes)


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


class SignalAtUpdate(Silent):
    """Sends this process a signal when `update` updates are done."""

    def __init__(self, update: int, number: int) -> None:
        self.update, self.number = update, number

    @contextmanager
    def task(self, title, total):
        def advance(done, *, status="", total=None):
            if title.startswith("train") and done == self.update:
                os.kill(os.getpid(), self.number)

        yield advance


def train_one(rank: int, port: str, data: str, folder: str, settings: dict, ends: dict) -> None:
    """Train in one of two processes and write the outcome to `<folder>.<rank>`."""
    import conftest  # noqa: F401 - registers the tiny backbones in this process

    torch.set_num_threads(1)
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    os.environ |= environment | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS)}
    splits = datasets.load("market", Path(data))
    spy_on_extraction(Path(f"{folder}.extracted.{rank}"))
    progress = SignalAtUpdate(*ends[rank]) if rank in ends else Silent()
    try:
        metrics = finetune(settings_of(**settings), splits, RunFolder(Path(folder)), progress)
        outcome = f"mAP {metrics['mAP']:.9f}"
    except Stopped as stop:
        outcome = f"stopped {stop.code}"
    except PtlreidError as error:
        outcome = f"error {error}"
    Path(f"{folder}.{rank}").write_text(outcome)


def spy_on_extraction(file: Path) -> None:
    """Write a digest of the network to `file` whenever features are extracted during training."""
    extract = Extractor.extract

    def spied(extractor, *arguments, **options):
        sums = [value.double().sum().item() for value in extractor.network.state_dict().values()]
        with file.open("a") as stream:
            print(sums, file=stream)
        return extract(extractor, *arguments, **options)

    Extractor.extract = spied


def train_on_two(folder: Path, data: Path, settings: dict | None = None, ends: dict | None = None) -> list[str | None]:
    """The outcome of each of two processes; None for one that was killed.

    `ends`: by rank, the update after which it gets a signal, and the signal.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ptlreid.engine.training_run"])
    port = free_port()
    arguments = (port, str(data), str(folder), settings or {}, ends or {})
    processes = [context.Process(target=train_one, args=(rank, *arguments)) for rank in range(RANKS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode is not None, "the process hangs"
    files = [Path(f"{folder}.{rank}") for rank in range(RANKS)]
    return [file.read_text() if file.exists() else None for file in files]


def losses(run: RunFolder) -> list[float]:
    return [line["loss"] for line in history.read(run.history) if line["kind"] == "step"]


@pytest.fixture
def data(market_folder) -> Path:
    return market_folder.parent


def test_two_processes_train_as_one_with_twice_the_batch(tmp_path, data):
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    metrics = finetune(settings_of(batch_size=8), datasets.load("market", data), one, Silent())
    ended = train_on_two(two.path, data)
    assert ended[0] == ended[1] == f"mAP {metrics['mAP']:.9f}"
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    ours, theirs = (read_weights_header(run.weights()).build().state_dict() for run in (two, one))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_all_processes_evaluate_the_same_network_during_training(tmp_path, data):
    # With batch norm, of which each process gathers its own statistics.
    train_on_two(tmp_path / "run", data, {"backbone": "tiny", "ptl": True})
    networks = [(tmp_path / f"run.extracted.{rank}").read_text() for rank in range(RANKS)]
    assert networks[0] == networks[1]
    assert networks[0].count("\n") == 2  # query and gallery, after the second of three epochs


@pytest.mark.parametrize("settings", [{}, {"backbone": "tiny", "ptl": True, "accumulate": 2, "batch_size": 2}], ids=str)
@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_and_they_resume_to_the_same_weights(tmp_path, data, settings):
    whole, stopped = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "stopped")
    train_on_two(whole.path, data, settings)
    ended = train_on_two(stopped.path, data, settings, {1: (3, signal.SIGTERM)})
    assert ended[1] == f"stopped {128 + signal.SIGTERM}"
    assert ended[0].startswith("stopped")
    train_on_two(stopped.path, data, settings)
    ours, theirs = (read_weights_header(run.weights()).build().state_dict() for run in (stopped, whole))
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    assert losses(stopped) == losses(whole)


def test_a_process_that_dies_ends_the_other_with_a_message(tmp_path, data):
    ended = train_on_two(tmp_path / "run", data, {}, {1: (3, signal.SIGKILL)})
    assert ended[1] is None
    assert ended[0].startswith("error Process 0 of 2 lost the others")
    assert "The same command resumes from the last checkpoint." in ended[0]


def test_a_data_error_is_raised_by_every_process_and_none_waits(tmp_path, data):
    ended = train_on_two(tmp_path / "run", data, {"batch_size": 16})
    assert all(end.startswith("error 16 training images do not fill one batch of 32") for end in ended)


def test_every_image_of_an_epoch_is_seen_once():
    parts = [ShuffleSampler(103, 5, seed=1, rank=rank, ranks=2).epoch(3) for rank in range(2)]
    seen = [row for part in parts for batch in part for row in batch]
    assert len(seen) == len(set(seen)) == 100


@pytest.mark.slow
def test_torchrun_runs_the_same_command(tmp_path, data):
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port(), "-m", "ptlreid"]
    options = ["finetune", "--no-ptl", "--backbone", "mobilenet-v3-small", "--init", "none", "--device", "cpu"]
    sizes = ["--height", "64", "--width", "32", "--batch-size", "4", "--epochs", "1", "--name", "two", "--json"]
    result = subprocess.run(
        [sys.executable, *command, *options, *sizes, "--root", str(data), "--runs", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count('"mAP"') == 1  # only the main process prints the result
    assert (tmp_path / "two" / "metrics.json").is_file()


def test_with_one_process_nothing_is_exchanged():
    assert distributed.all_gather(7) == [7]
    assert distributed.run_on_main(lambda: 7) == 7
    assert distributed.any_process([False, True]) == [False, True]
    assert (distributed.rank(), distributed.world_size(), distributed.is_main(), distributed.active()) == (
        0,
        1,
        True,
        False,
    )
