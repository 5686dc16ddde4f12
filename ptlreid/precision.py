"""The precision that `amp` and `channels_last` stand for on this machine; imports torch only where a GPU may be."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Literal, TypeVar

from ptlreid import distributed
from ptlreid.settings import FinetuneSettings

S = TypeVar("S", bound=FinetuneSettings)

# Exist where a driver of NVIDIA (natively, under WSL) or AMD is loaded.
_DRIVERS = ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")


def resolve_precision(settings: S) -> S:
    """The settings with the precision and the memory format that training uses here, instead of `auto` and None.

    Joined processes all get that of the main one.
    """
    settings = resolve_amp(settings)
    channels_last = settings.channels_last
    if channels_last is None:
        # On a CPU it is faster, or as fast (docs/performance.md); bf16 and fp16 there are those of a run from a GPU.
        mps = settings.device.startswith("mps") or (settings.device == "auto" and sys.platform == "darwin")
        cpu = settings.device.startswith("cpu") or (settings.device == "auto" and not has_gpu_driver())
        channels_last = not mps and (cpu or settings.amp in ("bf16", "fp16"))
    return settings.model_copy(update={"channels_last": channels_last})


def resolve_amp(settings: S) -> S:
    """The same for the precision alone."""
    if settings.amp != "auto":
        return settings
    return settings.model_copy(update={"amp": distributed.run_on_main(lambda: _find_amp(settings.device))})


def _find_amp(device: str) -> Literal["off", "bf16", "fp16"]:
    """The choice of `auto` on the device called `device`: mixed precision on CUDA, otherwise off."""
    if device.startswith(("cpu", "mps")) or not has_gpu_driver():
        return "off"
    from ptlreid.devices import choose_device, choose_mixed_precision

    return choose_mixed_precision(choose_device(device))


def has_gpu_driver() -> bool:
    """Whether the driver of a GPU is installed that torch calls `cuda`; where not, torch need not be asked."""
    if any(Path(path).exists() for path in _DRIVERS):
        return True
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True
