"""Ctrl-C, SIGTERM and SIGHUP while a command runs: an exception, or a quiet end where modules are being imported."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Windows has no SIGHUP.
STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def heeded() -> list[signal.Signals]:
    """The signals that stop this process: those of `STOPPING` that it does not ignore, as under `nohup`.

    None outside the main thread, where Python handles no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        return []
    return [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def interruptible() -> Iterator[None]:
    """In the block, these signals raise `KeyboardInterrupt` with their number, so that files and locks are released."""
    handlers = {number: signal.signal(number, _stop) for number in heeded()}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        # An exception in the middle of an import may reach C code that turns it into another one, and its traceback.
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os._exit(128 + number)
        frame = frame.f_back
    raise KeyboardInterrupt(number)
