"""What can be wrong with a dataset, as a value that names the file, the fault and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ptlreid.errors import DataError


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong. `kind`: one word for programs. Not `serious`: results can be trusted all the same."""

    kind: str
    file: Path
    fault: str
    remedy: str
    serious: bool = True

    def __str__(self) -> str:
        return f"{self.file}: {self.fault}. {self.remedy}"


class FaultError(DataError):
    """A `DataError` that keeps its fault, so that a check can list it beside others."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


# What a reader does with a file that it cannot use: stop, or let a check note it and go on without that file.
Reject = Callable[[Fault], None]


def refuse(fault: Fault) -> None:
    """The `Reject` of every command that needs the images: raises `FaultError`."""
    raise FaultError(fault)
