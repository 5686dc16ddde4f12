"""The `ptlreid` program with the tests' tiny networks, and with a limit of memory if `CHECK_MEMORY_BYTES` names one.

The limit is of torch's memory on the GPU if there is one, otherwise of what this process may add to its own.
"""

from __future__ import annotations

import os

import inputs
import torch

from ptlreid.__main__ import main


def limit_memory(limit: int) -> None:
    """Have allocations beyond `limit` bytes fail as they do where there is no more memory."""
    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit / torch.cuda.get_device_properties(0).total_memory))
        return
    import resource

    with open("/proc/self/statm") as status:  # noqa: PTH123 - of the system
        used = int(status.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + limit, used + limit))


if __name__ == "__main__":
    inputs.register_tiny_backbones()
    if "CHECK_MEMORY_BYTES" in os.environ:
        limit_memory(int(os.environ["CHECK_MEMORY_BYTES"]))
    main()
