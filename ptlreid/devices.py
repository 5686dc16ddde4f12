"""Where the work is done: the device, and the processes that feed it."""

from __future__ import annotations

import os

import torch

from ptlreid.errors import OptionError


def choose_device(name: str) -> torch.device:
    """The device called `name`; `auto` is a GPU where there is one. `OptionError` for one that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(f"--device {name} is not to be had here ({reason}). Use auto or cpu.") from None


def check_amp(amp: str, device: torch.device) -> None:
    """Raise `OptionError` where `amp` (off, bf16 or fp16) cannot be trusted on `device`.

    On CPUs with AMX, torch computes some bf16 convolutions wrongly, and finite (pytorch issue 169688; seen with 2.14.1
    for 512 channels at stride 2 on a map of 6×2). Neither format is faster enough there to be worth a doubt.
    """
    if amp != "off" and device.type == "cpu":
        raise OptionError(f"--amp {amp} is for GPUs: on a CPU its results cannot be trusted. Use --amp off.")


def choose_workers(workers: int | None, device: torch.device) -> int:
    """The number of loader processes: as asked, else none on a CPU, which they would take from the network."""
    if workers is not None:
        return workers
    return 0 if device.type == "cpu" else min(8, os.cpu_count() or 1)
