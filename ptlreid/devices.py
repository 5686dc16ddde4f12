"""The device, the number of loader processes that feed it, and the precision that is reliable on it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal

import torch

from ptlreid.cores import available_cores
from ptlreid.errors import OptionError
from ptlreid.file_kinds import printable

_TYPES = ("cpu", "cuda", "mps")

# The dtype of autocast, by choice of `amp`: none for float32, in IEEE arithmetic or in TF32.
AUTOCAST = {"off": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

_TENSOR_CORES = (8, 0)  # the compute capability from which on GPUs have TF32 and compute bf16 natively


def choose_device(name: str) -> torch.device:
    """The device called `name`; `auto` is a GPU if there is one. `OptionError` for a device that is not available.

    With several processes on one machine, each gets the GPU of its local rank.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        if torch.device(name).type not in _TYPES:
            raise RuntimeError(f"expected {', '.join(_TYPES)} or a GPU's number")
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = printable((str(error).splitlines() or [type(error).__name__])[0])
        raise OptionError(f"--device {name} is not available on this machine ({reason}). Use auto or cpu.") from None


def choose_amp(amp: str, device: torch.device) -> torch.dtype | None:
    """The dtype of autocast in training, None for float32; checked by `check_amp`."""
    amp = choose_mixed_precision(device) if amp == "auto" else amp
    check_amp(amp, device)
    return AUTOCAST[amp]


def choose_mixed_precision(device: torch.device) -> Literal["off", "bf16", "fp16"]:
    """The precision of training that `auto` stands for: off, except on CUDA.

    There bf16, or fp16 with scaled gradients where the GPU is older than bf16 (compute capability below 8.0).
    """
    if device.type != "cuda":
        return "off"
    return "bf16" if torch.cuda.get_device_capability(device) >= _TENSOR_CORES else "fp16"


def check_amp(amp: str, device: torch.device) -> None:
    """Raise `OptionError` if `amp` (off, tf32, bf16 or fp16) is not reliable or has no effect on `device`.

    On CPUs with AMX, torch computes some bf16 convolutions wrongly, with finite results (pytorch issue 169688; seen
    with 2.14.1 for 512 channels at stride 2 on a 6×2 map). Neither precision is enough of a gain there to risk it.
    """
    if amp != "off" and device.type == "cpu":
        raise OptionError(f"--amp {amp} needs a GPU: on a CPU its results are not reliable. Use --amp off.")
    if amp == "tf32" and (device.type != "cuda" or torch.cuda.get_device_capability(device) < _TENSOR_CORES):
        raise OptionError(
            f"--amp tf32: {device} has no TF32, expected a GPU of compute capability 8.0 or later. Use --amp off."
        )


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context in which products and convolutions keep the type of their operands, for values that need float32.

    Tensors without data (device `meta`), on which a dry run counts, have no autocast, and torch refuses to switch it.
    """
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


# What torch sets apart since 2.9: each may have its own `fp32_precision`.
_ARITHMETIC = ("cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul", "mkldnn.conv")


@contextmanager
def float32_arithmetic(*, tf32: bool) -> Iterator[None]:
    """For the block, convolutions and matrix products of float32 are IEEE float32; with `tf32`, TF32 on CUDA.

    By default torch has TF32 in cuDNN's convolutions. Its flags are set back after the block, also after an error.
    """
    known = hasattr(torch.backends, "fp32_precision")
    parts = [attrgetter(name)(torch.backends) for name in _ARITHMETIC] if known else []
    products = convolutions = None
    with suppress(RuntimeError):  # torch refuses to read older flags that contradict newer ones
        products = torch.get_float32_matmul_precision()
    with suppress(RuntimeError):
        convolutions = torch.backends.cudnn.allow_tf32
    before = [part.fp32_precision for part in parts]
    try:
        _set_arithmetic("high" if tf32 else "highest", tf32, dict.fromkeys(parts, "tf32" if tf32 else "ieee"))
        yield
    finally:
        _set_arithmetic(products, convolutions, dict(zip(parts, before, strict=True)))


def _set_arithmetic(products: str | None, convolutions: bool | None, parts: dict[Any, str]) -> None:
    """Set torch's flags, the older ones first: they set some of the newer ones, and must agree with them."""
    if products is not None:
        torch.set_float32_matmul_precision(products)
    if convolutions is not None:
        torch.backends.cudnn.allow_tf32 = convolutions
    for part, precision in parts.items():
        part.fp32_precision = precision


@dataclass(frozen=True)
class Placement:
    """Where a network runs: its device, and how many processes load images for it."""

    device: torch.device
    workers: int


def choose_placement(device: str, *, amp: str, workers: int | None) -> Placement:
    """The device called `device` and its loader processes; `OptionError` if it is not available or unfit for `amp`."""
    chosen = choose_device(device)
    check_amp(amp, chosen)
    return Placement(chosen, choose_workers(workers, chosen))


def choose_workers(workers: int | None, device: torch.device) -> int:
    """The number of loader processes: `workers` if given; otherwise none on a CPU, where they slow down the network.

    With a GPU, one for each CPU core, which the processes on this machine share, at least 1 and at most 8.
    """
    if workers is not None or device.type == "cpu":
        return workers or 0
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by `torchrun`
    return max(1, min(8, available_cores() // processes))


@contextmanager
def fixed_sizes(device: torch.device) -> Iterator[None]:
    """A context for batches of one size: on CUDA, cuDNN times its algorithms for that size and keeps the fastest.

    Which one is fastest may change from run to run, and the rounding of results with it.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or device.type == "cuda"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def peak_bytes(device: torch.device) -> int:
    """The peak memory use so far, in bytes: of tensors on a GPU, of this process elsewhere; 0 if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0  # no such counter
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # KiB on Linux
