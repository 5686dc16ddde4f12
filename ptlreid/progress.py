"""Progress reporting: the core calls a `Progress`, and only the command line displays it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Advance(Protocol):
    """Reports the steps of a task done so far, with a short status, and the total if it has changed."""

    def __call__(self, done: int, *, status: str = "", total: int | None = None) -> None: ...


class Progress(Protocol):
    """The receiver of progress reports."""

    def task(self, title: str, total: int | None) -> AbstractContextManager[Advance]:
        """A context manager that yields the `Advance` of a task of `total` steps (None: not known yet)."""
        ...

    def note(self, text: str) -> None:
        """Show a line that stays on the screen, such as which run is reused."""
        ...


class Silent:
    """A `Progress` that shows nothing: the default of every function that takes one."""

    @contextmanager
    def task(self, title: str, total: int | None) -> Iterator[Advance]:
        yield lambda done, *, status="", total=None: None

    def note(self, text: str) -> None:
        pass
