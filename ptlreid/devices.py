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


def choose_workers(workers: int | None, device: torch.device) -> int:
    """The number of loader processes: as asked, else none on a CPU, which they would take from the network."""
    if workers is not None:
        return workers
    return 0 if device.type == "cpu" else min(8, os.cpu_count() or 1)
