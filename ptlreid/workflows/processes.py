"""The processes that `torchrun` started, joined for the length of a command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ptlreid import distributed


@contextmanager
def join_processes(device: str) -> Iterator[None]:
    """Joins the processes that work on `device`, by name; with one process does nothing and imports no torch.

    Within another such block it does nothing: what trains several runs joins around all of them, as processes that have
    parted find one another again with trouble.
    """
    if distributed.world_size() == 1 or distributed.active():
        yield
        return
    from ptlreid.devices import choose_device

    with distributed.process_group(choose_device(device).type):
        yield
