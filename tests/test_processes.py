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
from torch import nn

from ptlreid import datasets, distributed
from ptlreid.engine import epochs, history
from ptlreid.engine.checkpoint import Training
from ptlreid.engine.fit import Precision
from ptlreid.engine.job import TrainingJob, build_sampler, note_other_parts
from ptlreid.engine.training_run import prepare_training
from ptlreid.errors import OptionError, PtlreidError, Stopped
from ptlreid.features import Extractor
from ptlreid.models.bconv import memory_state
from ptlreid.models.weights import read_weights_header
from ptlreid.progress import Silent
from ptlreid.runs import RunFolder
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
    return FinetuneSettings.resolve(None, device="cpu", evaluate_every=2, **{"batch_size": 8} | settings | changes)


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


class Notes(Silent):
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


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


def lines_of(run: RunFolder, kind: str) -> list[dict]:
    return [line for line in history.read(run.history) if line["kind"] == kind]


def losses(run: RunFolder) -> list[float]:
    return [line["loss"] for line in lines_of(run, "step")]


@pytest.fixture
def data(market_folder) -> Path:
    return market_folder.parent


TRIPLETS = {"loss": "ce+triplet", "images_per_identity": 2, "margin": 1.0}
STATES = {"loss": "ce+xbm+centre", "xbm_start": 1, "xbm_size": 10, "centre_weight": 0.5, "clip_grad": 0.5}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ptl": True, "batch_size": 4, "accumulate": 2, "ema_decay": 0.9, **TRIPLETS},
        # Parts of 3 images: an identity has its images in both processes.
        {"ptl": True, "memory": "mean", "batch_size": 6, **TRIPLETS},
        STATES,
    ],
    ids=[
        "cross-entropy",
        "triplets, slot states and accumulate",
        "triplets across processes and a mean state",
        "losses with a state",
    ],
)
def test_two_processes_train_the_run_of_one(tmp_path, data, settings):
    splits = datasets.load("market", data)
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    metrics = finetune(settings_of(**settings), splits, one, Silent())
    ended = train_on_two(two.path, data, settings)
    assert ended[0] == ended[1] == f"mAP {metrics['mAP']:.9f}"
    assert two.config.read_text() == one.config.read_text()
    recipes = [[(line["images"], line["lr"]) for line in lines_of(run, "step")] for run in (two, one)]
    assert recipes[0] == recipes[1]
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    cells = [[line["cells"]["cell"] for line in lines_of(run, "epoch") if "cells" in line] for run in (two, one)]
    assert len(cells[0]) == (3 if settings.get("ptl") else 0)
    for ours, theirs in zip(*cells, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    for which in ("last", *(["averaged"] if settings.get("ema_decay") else [])):
        ours, theirs = (read_weights_header(run.weights(which)).build().state_dict() for run in (two, one))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    # The run of two is the finished run of one.
    reused = Notes()
    assert finetune(settings_of(**settings), splits, two, reused)["mAP"] == pytest.approx(metrics["mAP"], abs=1e-9)
    assert any("is finished: reused" in note for note in reused.notes)
    assert any(note.startswith(f"{two.path}: trained by 2 processes") for note in reused.notes)


@pytest.mark.parametrize("writers", [1, 2])
def test_a_run_of_one_process_resumes_on_two_and_the_reverse(tmp_path, data, writers):
    splits = datasets.load("market", data)
    settings = {"ptl": True, "batch_size": 4, "epochs": 2, **TRIPLETS, **STATES, "loss": "ce+triplet+xbm+centre"}
    whole, run = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "run")
    finetune(settings_of(**settings), splits, whole, Silent())
    stop, notes = (3, signal.SIGTERM), Notes()  # within the second epoch, with latent states
    if writers == 1:
        with pytest.raises(Stopped):
            finetune(settings_of(**settings), splits, run, SignalAtUpdate(*stop))
        assert all(end.startswith("mAP") for end in train_on_two(run.path, data, settings))
    else:
        assert all(end.startswith("stopped") for end in train_on_two(run.path, data, settings, {0: stop}))
        finetune(settings_of(**settings), splits, run, notes)
        assert any(
            "trained by 2 processes with 2 images of a batch each, not by 1 process with 4" in note
            for note in notes.notes
        )
    assert len(losses(run)) == len(losses(whole)) == 4
    assert losses(run) == pytest.approx(losses(whole), rel=1e-5)
    ours, theirs = (read_weights_header(folder.weights()).build().state_dict() for folder in (run, whole))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_all_processes_evaluate_the_same_network_during_training(tmp_path, data):
    # With batch norm, of which each process gathers its own statistics.
    train_on_two(tmp_path / "run", data, {"backbone": "tiny", "ptl": True, "ema_decay": 0.9})
    networks = [(tmp_path / f"run.extracted.{rank}").read_text() for rank in range(RANKS)]
    assert networks[0] == networks[1]
    # Query and gallery, after the second of three epochs, of the last and the averaged weights.
    assert networks[0].count("\n") == 2 * 2


@pytest.mark.parametrize("settings", [{}, {"backbone": "tiny", "ptl": True, "accumulate": 2, "batch_size": 4}], ids=str)
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
    ended = train_on_two(tmp_path / "run", data, {"batch_size": 32})
    assert all(end.startswith("error 16 training images do not fill one batch of 32") for end in ended)


@pytest.mark.parametrize(("batch_size", "processes"), [(6, 4), (9, 2), (4, 4), (2, 2)])
def test_batches_that_do_not_divide_into_parts_of_two_images_are_refused(data, monkeypatch, batch_size, processes):
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    message = rf"batch_size = {batch_size} .* {processes} processes: expected a multiple of {processes} from "
    with pytest.raises(OptionError, match=rf"{message}{2 * processes} on\. Give"):
        build_sampler(settings_of(batch_size=batch_size), datasets.load("market", data))


@pytest.mark.parametrize("settings", [{}, TRIPLETS], ids=["any", "P×K"])
def test_processes_divide_each_batch_in_its_order(tmp_path, data, monkeypatch, settings):
    """With 1 process: rows 0..7 of a batch. With 4: two rows each, in the same order."""
    splits = datasets.load("market", data)

    def batches(processes: int, rank: int) -> list[list[int]]:
        monkeypatch.setenv("WORLD_SIZE", str(processes))
        monkeypatch.setenv("RANK", str(rank))
        chosen = settings_of(**settings)
        job = TrainingJob(chosen, splits, build_sampler(chosen, splits), RunFolder(tmp_path / "run"), Silent())
        assert job.images_per_process == 8 // processes
        return [batch.tolist() for batch in job.batches(epoch=2, first_update=0)]

    parts = [batches(4, rank) for rank in range(4)]
    together = [[row for part in batch for row in part] for batch in zip(*parts, strict=True)]
    assert together == batches(1, 0)
    assert {len(batch) for part in parts for batch in part} == {2}


@pytest.mark.slow
def test_torchrun_runs_the_same_command(tmp_path, data):
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port(), "-m", "ptlreid"]
    options = ["finetune", "--no-ptl", "--backbone", "mobilenet-v3-small", "--init", "none", "--device", "cpu"]
    sizes = ["--height", "64", "--width", "32", "--batch-size", "8", "--epochs", "1", "--name", "two", "--json"]
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


def begin(folder: Path, data: Path, **settings) -> tuple[TrainingJob, Training]:
    """A run before its first update."""
    splits, chosen = datasets.load("market", data), settings_of(**settings)
    job = TrainingJob(chosen, splits, build_sampler(chosen, splits), RunFolder(folder / "run"), Silent())
    return job, prepare_training(job, torch.device("cpu"), Precision(None, False))


def test_dropout_of_another_number_of_processes_has_a_seed_for_each_process_and_update(tmp_path, data, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    job, training = begin(tmp_path, data, ptl=True)
    training.network(torch.randn(4, 3, 64, 32))

    def seed_of(rank: int, step: int) -> int:
        monkeypatch.setenv("RANK", str(rank))
        training.step = step  # of a checkpoint without generators for these processes
        epochs._start_epoch(job, training, torch.device("cpu"))
        return torch.initial_seed()

    with torch.random.fork_rng():
        seeds = [seed_of(rank, step) for rank in (0, 1) for step in (1, 2)]
        assert len(set(seeds)) == 4
        assert seeds[:2] == [seed_of(0, 1), seed_of(0, 2)]
        assert list(memory_state(training.network)) == ["cell"]  # as in the checkpoint
        seed_of(0, 0)
        assert memory_state(training.network) == {}


@pytest.mark.parametrize(
    ("settings", "processes", "expected"),
    [
        ({}, [1], []),
        (
            {},
            [1, 2, 4],
            ["by 2 processes with 4 images of a batch each and by 4 processes with 2 images of a batch each"],
        ),
        ({"sync_bn": True}, [2], []),
    ],
)
def test_another_number_of_processes_is_noted_as_batch_norm_depends_on_it(settings, processes, expected):
    notes = Notes()
    sessions = [{"processes": number} for number in processes]
    note_other_parts(RunFolder(Path("run")), settings_of(**settings), sessions, notes)
    texts = [f"run: trained {text}, not by 1 process with 8 images of a batch. Batch norm" for text in expected]
    assert [note.startswith(text) for note, text in zip(notes.notes, texts, strict=True)] == [True] * len(texts)


def test_sync_bn_on_cpus_is_refused_by_every_process(tmp_path, data):
    ended = train_on_two(tmp_path / "run", data, {"sync_bn": True})
    assert all(end.startswith("error sync_bn = true with 2 processes on cpu: expected CUDA") for end in ended)


def test_sync_bn_replaces_every_batch_norm_and_keeps_names_and_weights(tmp_path, data, monkeypatch):
    """Its forward pass needs CUDA; here, what is trained and saved."""
    monkeypatch.setattr(distributed, "active", lambda: True)
    monkeypatch.setattr(epochs, "DistributedDataParallel", lambda network, **_: network)
    job, training = begin(tmp_path, data, backbone="tiny", ptl=True, sync_bn=True)
    network = training.network
    parameters, state = list(network.parameters()), dict(network.state_dict())
    norms = sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
    wrapped = epochs._wrap_network(job, training)
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in wrapped.modules()) == norms > 0
    assert all(mine is theirs for mine, theirs in zip(network.parameters(), parameters, strict=True))
    assert list(network.state_dict()) == list(state)
    torch.testing.assert_close(dict(network.state_dict()), state, rtol=0, atol=0)


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
