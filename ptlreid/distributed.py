"""Multi-process training: joining and leaving the process group, and the few values that are exchanged.

`torchrun` or Slurm starts the processes and numbers them in environment variables. Tensors on a GPU are exchanged by
NCCL, everything else by gloo. With one process every function here is a no-op.
"""

from __future__ import annotations

import gc
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from ptlreid.errors import PtlreidError, Stopped, is_out_of_memory

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    A = TypeVar("A", Tensor, np.ndarray)

T = TypeVar("T")

# How long a process waits for one that neither answers nor ends: longer than scoring the largest dataset takes.
TIMEOUT = timedelta(hours=1)


def world_size() -> int:
    """The number of processes that train together; 1 if neither `torchrun` nor Slurm started any."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Whether this is the process that writes files and prints."""
    return rank() == 0


def own_part(batch: A) -> A:
    """This process's part of a batch over all processes: contiguous, by rank, and as long as any other's."""
    size = len(batch) // world_size()
    return batch[rank() * size : (rank() + 1) * size]


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """Joins the processes in a group for the block. `device`: the setting of that name.

    With one process it does nothing and imports no torch. A block inside another does nothing either: a command that
    trains several runs joins once, around all of them, since a second group may fail to form. Raises `PtlreidError`
    with the likely cause if another process ends early.
    """
    if world_size() == 1 or active():
        yield
        return
    _join(device)
    try:
        yield
    except Stopped as stop:
        # Its traceback keeps the network's DistributedDataParallel, and that the group: see `_leave`.
        traceback.clear_frames(stop.__traceback__)
        raise
    except RuntimeError as error:
        if is_out_of_memory(error) or not _is_lost_peer(error):
            raise
        raise PtlreidError(
            f"Process {rank()} of {world_size()} lost the others ({str(error).splitlines()[0][:200]}). One of them "
            "ended early: its own message, above, gives the reason. The same command resumes from the last checkpoint."
        ) from None
    finally:
        _leave()


def _join(device: str) -> None:
    # Before the group exists: the functions of this module have the group as a default argument. Imported later, as
    # torch.optim does, they would keep it for as long as the interpreter runs.
    import torch.distributed.nn.functional
    from torch import distributed

    from ptlreid.devices import choose_device

    backend, chosen = "gloo", choose_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
        # A GPU that is named is that of every process on the machine, which NCCL refuses.
        shared = device.startswith("cuda:") and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1
        backend = "gloo" if shared else "cuda:nccl,cpu:gloo"
    distributed.init_process_group(backend, timeout=TIMEOUT)


def _leave() -> None:
    """Destroy the group and end its threads.

    torch ends the threads with the last reference to the group. One that is left may still hold the tensors of the
    last exchange, and takes the GIL to free them; where the interpreter is shutting down by then, Python ends that
    thread inside a destructor, and the finished process dies of SIGABRT ("terminate called without an active
    exception", pytorch issue 190489).
    """
    from torch import distributed

    gc.collect()  # DistributedDataParallel, often in a reference cycle, holds the group
    distributed.destroy_process_group()


def active() -> bool:
    """Whether the processes have joined in a group."""
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
    """Copy the main process's buffers to all: each gathers its own batch-norm statistics during training."""
    if not active():
        return
    from torch import distributed

    for buffer in network.buffers():
        distributed.broadcast(buffer, src=0)


def gather_batch(part: Tensor) -> Tensor:
    """The batch over all processes from the `part` of each, in the order of `own_part`; `part` itself on one.

    For a loss that all processes compute alike from the result. Its gradient reaches the own part, multiplied by the
    number of processes, as DistributedDataParallel will take the mean over them.
    """
    if not active():
        return part
    import torch
    from torch import distributed

    values = part.detach().contiguous()
    parts = [torch.empty_like(values) for _ in range(world_size())]
    distributed.all_gather(parts, values)
    parts[rank()] = values + world_size() * (part - values)  # the same values, as the difference is 0
    return torch.cat(parts)


def gather(value: T) -> list[T]:
    """The `value` of every process, by rank, on the main process; an empty list on the others.

    It is pickled and exchanged on the CPU: no tensors on a GPU.
    """
    if not active():
        return [value]
    from torch import distributed

    values: list[Any] = [None] * world_size() if is_main() else []
    distributed.gather_object(value, values if is_main() else None)
    return values


def all_gather(value: Any) -> list[Any]:
    """The `value` of every process, by rank, on every process. It is pickled: keep it small, or NumPy."""
    if not active():
        return [value]
    from torch import distributed

    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def run_on_main(call: Callable[[], T]) -> T:
    """The result of `call()`, which only the main process runs, on every process.

    A `PtlreidError` that it raises is raised on every process.
    """
    if not active():
        return call()
    from torch import distributed

    result: list[Any] = [None, None]
    if is_main():
        try:
            result[0] = call()
        except PtlreidError as error:
            result[1] = error
    distributed.broadcast_object_list(result, src=0)
    if result[1] is not None:
        result[1].on_all = True
        raise result[1]
    return result[0]


def run_together(call: Callable[[], T]) -> T:
    """The result of `call()`, which every process runs for itself.

    Where some raise a `PtlreidError`, every process raises one: the first by rank.
    """
    result, error = None, None
    try:
        result = call()
    except PtlreidError as raised:
        error = raised
    if not active() and error:
        raise error
    for one in all_gather(error):
        if one is not None:
            one.on_all = True
            raise one
    return result  # type: ignore[return-value]  # there was no error


def any_process(flags: list[bool]) -> list[bool]:
    """For each flag, whether it is set on any process: the same result on all of them."""
    if not active():
        return flags
    import torch
    from torch import distributed

    flags_set = torch.tensor(flags, dtype=torch.int32)  # on the CPU: gloo, which does not wait for a GPU
    distributed.all_reduce(flags_set, op=distributed.ReduceOp.MAX)
    return [bool(flag) for flag in flags_set.tolist()]


def _is_lost_peer(error: RuntimeError) -> bool:
    words = ("connection", "peer", "nccl", "gloo", "timed out", "timeout", "store")
    return any(word in str(error).lower() for word in words)
