"""torch's global random generators that training uses: those of the CPU and of its own device, and of no other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def own_generators(device: torch.device) -> list[torch.Generator]:
    """The CPU's generator and, for a GPU, that of `device`. Starts no other GPU, as functions of all GPUs would."""
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index])
    elif device.type == "mps":
        generators.append(torch.mps._get_default_mps_generator())  # torch has no public name for it
    return generators


def seed_generators(device: torch.device, seed: int) -> None:
    """Seed what random layers on `device` use."""
    for generator in own_generators(device):
        generator.manual_seed(seed)


@contextmanager
def fork_generators(device: torch.device) -> Iterator[None]:
    """A context that puts the generators back into their states at its end."""
    generators = own_generators(device)
    states = [generator.get_state() for generator in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
