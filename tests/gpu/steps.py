"""The steps of the check in their order, each run in a process of its own with a limit of time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

# What the processes of a check on a CPU import only once. None uses a GPU: CUDA does not survive a fork, so a check on
# one starts every process from nothing.
PRELOADED = ["torch", "torchvision", "ptlreid.engine.training_run", "ptlreid.workflows.finetune"]
GRACE_SECONDS = 5  # for torchrun, which ends its processes itself


@dataclass(frozen=True)
class Step:
    """`correct`: decides the exit code. `seconds`: the limit. `same_as`: the step that does the same if small."""

    name: str
    correct: bool
    seconds: int
    same_as: str = ""


# The most valuable first: what comes last is left out when time is short.
STEPS = [
    Step("machine", False, 60),
    Step("features", True, 90),
    Step("losses", True, 90),
    Step("precision", True, 60),
    Step("resnet50", False, 90),
    Step("densenet161", False, 120, same_as="resnet50"),
    Step("resume", True, 90),
    Step("two-processes", True, 90),
    Step("out-of-memory", True, 60),
    Step("extraction", False, 90),
    Step("mgn", False, 100, same_as="resnet50"),
    Step("compile", True, 120),
    Step("resnet50-compiled", False, 120),
    Step("densenet161-compiled", False, 150, same_as="resnet50-compiled"),
    Step("mgn-compiled", False, 120, same_as="resnet50-compiled"),
]


def run(name: str, device: str, small: bool, folder: str, found: str, log: str) -> None:
    """Run a step in this process: its findings go to the file `found`, what it prints to the end of `log`."""
    if hasattr(os, "setsid"):
        os.setsid()  # so that a limit ends the processes that the step started, too
    with open(log, "a") as stream:  # noqa: PTH123 - a descriptor, for what libraries print
        for descriptor in (1, 2):
            os.dup2(stream.fileno(), descriptor)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    print(f"\n==== {name}")
    from record import Record

    record = Record(Path(found))
    try:
        _run(name, device, small, Path(folder), record)
    except BaseException as error:  # noqa: BLE001 - recorded
        traceback.print_exc()
        lines = str(error).strip().splitlines() or [""]
        record.error(f"{type(error).__name__}: {lines[0]}"[:400])
        raise SystemExit(1) from None


def _run(name: str, device: str, small: bool, folder: Path, record: object) -> None:
    import correctness
    import extraction
    import inputs
    import runs
    import speed
    import torch

    torch.set_num_threads(1 if small else os.cpu_count() or 1)
    inputs.register_tiny_backbones()
    size = inputs.Size(device, small, folder)
    functions = {
        "machine": speed.machine,
        "features": correctness.features,
        "losses": correctness.losses,
        "precision": correctness.precision,
        "resume": runs.resume,
        "two-processes": runs.two_processes,
        "out-of-memory": runs.out_of_memory,
        "extraction": extraction.extraction,
        "compile": correctness.compiled,
    }
    if name in functions:
        functions[name](size, record)
    else:
        backbone, _, compiled = name.partition("-")
        speed.training(size, record, "tiny" if small else backbone, compile_network=bool(compiled))


def start(arguments: tuple[str, str, bool, str, str, str]) -> BaseProcess:
    """The process of a step."""
    on_cpu = arguments[1] == "cpu"
    context = multiprocessing.get_context("forkserver" if on_cpu else "spawn")
    if on_cpu:
        context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=run, args=arguments)
    process.start()
    return process


def wait(process: BaseProcess, seconds: float) -> str:
    """How the process ended: "" if it did well; it is ended after `seconds`."""
    process.join(seconds)
    if process.exitcode is None:
        end(process)
        return f"not finished after {seconds:.0f} seconds"
    if process.exitcode < 0:
        return f"ended by signal {-process.exitcode}"
    return f"exit code {process.exitcode}" if process.exitcode else ""


def end(process: BaseProcess) -> None:
    """End the process and those that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid or 0, number)
        deadline = time.monotonic() + GRACE_SECONDS
        while process.is_alive() and time.monotonic() < deadline:
            process.join(0.1)
    process.join()
