"""How long work reports its progress: the core calls a `Progress`, and only the command line shows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Advance(Protocol):
    """Called within a task: `done` steps so far, a few words about them, and the total where it has changed."""

    def __call__(self, done: int, *, status: str = "", total: int | None = None) -> None: ...


class Progress(Protocol):
    """What work reports to."""

    def task(self, title: str, total: int | None) -> AbstractContextManager[Advance]:
        """A context manager that yields the `Advance` of a task of `total` steps (None: not known yet)."""
        ...

    def note(self, text: str) -> None:
        """One line that stays on the screen, such as what was reused."""
        ...


class Silent:
    """A `Progress` that shows nothing: the default of every function that takes one."""

    @contextmanager
    def task(self, title: str, total: int | None) -> Iterator[Advance]:
        yield lambda done, *, status="", total=None: None

    def note(self, text: str) -> None:
        pass
