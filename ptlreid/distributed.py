"""The few things that several processes agree on; on one process each is a no-op."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def mean(value: Tensor) -> Tensor:
    """The mean of `value` over all processes; `value` itself on one."""
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return value
    total = value.clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()
