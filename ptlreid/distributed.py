"""The few things that several processes agree on; on one process each is a no-op.

Processes are started by `torchrun` or Slurm, which tell each its place by environment variables. Besides what trains
(NCCL on CUDA, gloo elsewhere), a gloo group on the CPU carries small decisions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from ptlreid.errors import PtlreidError

if TYPE_CHECKING:
    from torch import Tensor, nn

T = TypeVar("T")

# How long one process waits for another that neither answers nor ends: longer than scoring the largest dataset takes.
PATIENCE = timedelta(hours=1)


def world_size() -> int:
    """The number of processes that train together: 1 where none were started by `torchrun`."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's place among them, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Whether this is the process that writes files and tells what happens."""
    return rank() == 0


@contextmanager
def process_group(device_type: str) -> Iterator[None]:
    """Joins the processes for the length of the block; does nothing on one process.

    A process that ends early ends the others with a `PtlreidError` naming the likely cause.
    """
    if world_size() == 1:
        yield
        return
    import torch
    from torch import distributed

    if device_type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "cuda:nccl,cpu:gloo" if device_type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield
    except RuntimeError as error:
        if not _lost(error):
            raise
        raise PtlreidError(
            f"Process {rank()} of {world_size()} lost the others ({str(error).splitlines()[0][:200]}). One of them "
            "ended before its time: its own message, further up, says why. The same command goes on from the last "
            "checkpoint."
        ) from None
    finally:
        distributed.destroy_process_group()


def active() -> bool:
    """Whether the processes are joined."""
    if world_size() == 1:
        return False
    from torch import distributed

    return distributed.is_available() and distributed.is_initialized()


def all_reduce_mean(value: Tensor) -> Tensor:
    """The mean of `value` over all processes; `value` itself on one."""
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return value
    total = value.clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()


def broadcast_buffers(network: nn.Module) -> None:
    """Give every process the main one's buffers, such as batch norm's statistics, which each gathers for itself."""
    if not active():
        return
    from torch import distributed

    for buffer in network.buffers():
        distributed.broadcast(buffer, src=0)


def all_gather(value: Any) -> list[Any]:
    """The `value` of each process, by rank, on every process. Values are pickled: small or NumPy."""
    if not active():
        return [value]
    from torch import distributed

    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def run_on_main(make: Callable[[], T]) -> T:
    """What `make()` returns on the main process, on every process. Where it raises a `PtlreidError`, all raise it."""
    if not active():
        return make()
    from torch import distributed

    made: list[Any] = [None, None]
    if is_main():
        try:
            made[0] = make()
        except PtlreidError as error:
            made[1] = error
    distributed.broadcast_object_list(made, src=0)
    if made[1] is not None:
        raise made[1]
    return made[0]


def any_process(flags: list[bool]) -> list[bool]:
    """For each flag, whether any process raised it: the same answer everywhere."""
    if not active():
        return flags
    import torch
    from torch import distributed

    raised = torch.tensor(flags, dtype=torch.int32)  # on the CPU: gloo, which does not wait for a GPU
    distributed.all_reduce(raised, op=distributed.ReduceOp.MAX)
    return [bool(flag) for flag in raised.tolist()]


def _lost(error: RuntimeError) -> bool:
    words = ("connection", "peer", "nccl", "gloo", "timed out", "timeout", "store")
    return any(word in str(error).lower() for word in words)
