"""The steps that run the program: a resumed run, two processes on one GPU, and too little memory."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import inputs
import torch
from inputs import Size
from record import Record

from ptlreid import datasets
from ptlreid.engine import history
from ptlreid.models.weights import read_weights_header
from ptlreid.progress import Silent
from ptlreid.runs import RunFolder
from ptlreid.settings import FinetuneSettings
from ptlreid.workflows.finetune import finetune

PROGRAM = Path(__file__).with_name("program.py")
LIMIT_BYTES = 2**30  # of the GPU; on a CPU a quarter of it
ROUNDING = 1e-6  # ‖difference‖ / ‖weights‖: far below that of a run with other latent states or images
STOP_AT = 6  # of 8 updates: in the middle of the second epoch


class Fault(Exception):
    """Ends a run."""


class StopAt(Silent):
    """Ends the run after this many updates."""

    def __init__(self, update: int) -> None:
        self.update = update

    @contextmanager
    def task(self, title, total):
        def advance(done, *, status="", total=None):
            if title.startswith("train") and done == self.update:
                raise Fault

        yield advance


def resume(size: Size, record: Record) -> None:
    """A run that was stopped in the middle of an epoch ends with the weights of one that was not."""
    data = write_small_dataset(size)
    for amp in ("off", "auto") if size.cuda else ("off",):
        first, again, stopped = (RunFolder(size.folder / f"{name}-{amp}") for name in ("first", "again", "stopped"))
        for run in (first, again):
            train(size, data, run, Silent(), amp)
        try:
            train(size, data, stopped, StopAt(STOP_AT), amp)
        except Fault:
            train(size, data, stopped, Silent(), amp)
        # A GPU's kernels may round differently from run to run: ten times the difference of two runs is the bound.
        usual, found = difference(again, first), difference(stopped, first)
        bound = max(10 * usual, ROUNDING) if size.cuda else 0.0
        record.check(f"amp {amp}: weights of the resumed run", found, at_most=bound)
        record.row(amp=amp, between_two_runs=usual, resumed=found)


def train(size: Size, data: Path, run: RunFolder, progress: Silent, amp: str) -> None:
    """Two epochs of four updates each, with a checkpoint after every update."""
    height, width = (64, 32) if size.small else (256, 128)
    settings = {"backbone": size.network, "amp": amp, "height": height, "width": width, "lr": 1e-3}
    finetune(make_settings(size, data, **settings), datasets.load("market", data), run, progress)


def make_settings(size: Size, data: Path, **changed: Any) -> FinetuneSettings:
    """The settings of a short run on the small dataset."""
    settings = {"data": "market", "root": str(data), "device": size.device, "init": "none", "report": False}
    settings |= {"epochs": 2, "batch_size": size.batch_size, "evaluate_every": 0, "checkpoint_minutes": 0.0}
    return FinetuneSettings.resolve(None, **{**settings, **changed})


def difference(run: RunFolder, other: RunFolder) -> float:
    """‖weights − others‖ / ‖others‖; 0 if they are equal."""
    one, two = (read_weights_header(each.weights()).build().state_dict() for each in (run, other))
    vectors = [torch.cat([state[name].double().flatten() for name in two]) for state in (one, two)]
    return inputs.distance(*vectors)


def write_small_dataset(size: Size) -> Path:
    """The root of a dataset that makes four batches."""
    inputs.write_dataset(size.folder / "small" / "market", train=size.batch_size, test=4, height=64, width=32)
    return size.folder / "small"


def two_processes(size: Size, record: Record) -> None:
    """Two processes on one GPU, over gloo, train as one does on the same batches. No batch norm: each sees a part."""
    data = write_small_dataset(size)
    for memory in ("slot",) if size.small else ("slot", "mean"):
        one, two = (RunFolder(size.folder / f"{name}-{memory}") for name in ("one", "two"))
        # A GPU that is named is that of all processes.
        device = "cuda:0" if size.device == "cuda" else size.device
        settings = make_settings(
            size, data, backbone="tiny-even", memory=memory, amp="off", height=64, width=32, device=device
        )
        finetune(settings, datasets.load("market", data), one, Silent())
        result = train_on_two(settings, two, size.folder / f"{memory}.toml")
        record.expect(f"{memory}: exit code", result.returncode, 0)
        if result.returncode:
            record.note(result.stderr[-1000:])
            continue
        ours, theirs = ([line for line in history.read(run.history) if line["kind"] == "step"] for run in (two, one))
        record.expect(f"{memory}: updates of two processes", len(ours), len(theirs))
        record.expect(f"{memory}: images of an update", {line["images"] for line in ours}, {size.batch_size})
        errors = [abs(our["loss"] - their["loss"]) / their["loss"] for our, their in zip(ours, theirs, strict=False)]
        record.check(f"{memory}: losses of two processes against those of one", max(errors), at_most=1e-4)
        record.check(f"{memory}: weights of two processes against those of one", difference(two, one), at_most=1e-4)


def train_on_two(settings: FinetuneSettings, run: RunFolder, config: Path) -> subprocess.CompletedProcess[str]:
    """Run `ptlreid finetune` with these settings, saved as `config`, in two processes that torchrun starts."""
    config.write_text(settings.to_toml(), encoding="utf-8")
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    torchrun += ["--master-port", free_port(), str(PROGRAM), "finetune", "--config", str(config)]
    return call([*torchrun, "--name", run.path.name, "--runs", str(run.path.parent)])


def out_of_memory(size: Size, record: Record) -> None:
    """A batch that does not fit ends with the program's one message and exit code 1."""
    data = write_small_dataset(size)
    network, height = ("resnet50", 512) if size.cuda else ("mobilenet-v3-small", 1024)
    options = ["finetune", "--backbone", network, "--no-ptl", "--init", "none", "--device", size.device]
    options += ["--height", str(height), "--width", str(height // 2), "--epochs", "1", "--workers", "0"]
    options += ["--batch-size", str(size.batch_size * 4), "--root", str(data), "--runs", str(size.folder)]
    limit = LIMIT_BYTES if size.cuda else LIMIT_BYTES // 4
    result = call([str(PROGRAM), *options], CHECK_MEMORY_BYTES=str(limit))
    messages = re.findall("^error: out of memory .*$", result.stderr, re.MULTILINE)
    record.expect("exit code", result.returncode, 1)
    record.expect("messages", len(messages), 1)
    record.expect("tracebacks", result.stderr.count("Traceback"), 0)
    record.row(message=messages[0] if messages else result.stderr[-300:])


def call(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments; what it prints is also in the log."""
    loopback = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | loopback | environment,
    )
    print(result.stdout, result.stderr, sep="\n", flush=True)
    return result


def free_port() -> str:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
