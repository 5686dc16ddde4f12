"""Ctrl-C, SIGTERM and SIGHUP during an update: recorded, and handled when the update is complete."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self

from ptlreid import signals


class Interrupts:
    """A context manager in which the first stopping signal is only recorded; a second one has its usual effect.

    `received`: the signal's number, None until then. Signals that the process ignores, and all of them outside the
    main thread, are not recorded.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._handlers = {number: signal.signal(number, self._record) for number in signals.heeded()}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore()

    def _record(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
