"""The training state and its checkpoint: one file, written atomically."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ptlreid import distributed
from ptlreid.errors import CheckpointError, PtlreidError, is_out_of_memory
from ptlreid.files import atomic_output
from ptlreid.models.bconv import load_memory_state, memory_state
from ptlreid.models.network import Network

SCHEMA = 2
# The fields of `Training` that are numbers or dictionaries of numbers, saved as they are.
_PLAIN = ("epoch", "step", "best", "stale", "cells", "history_bytes")


@dataclass
class Training:
    """Everything that changes during training.

    `scaler`: keeps fp16 gradients in range, disabled otherwise. `epoch`: completed epochs, with their evaluation.
    `step`: completed updates of the current epoch. `best`: the highest mAP so far, negative before the first
    evaluation; `stale`: evaluations since then. `cells`: statistics of the cells at the end of the epoch.
    `history_bytes`: the length of the history file at this point. `generators`: the states of torch's random generators
    in a checkpoint within an epoch.
    """

    network: Network
    optimizer: Optimizer
    schedule: LRScheduler
    scaler: torch.amp.GradScaler = field(default_factory=lambda: torch.amp.GradScaler(enabled=False))
    epoch: int = 0
    step: int = 0
    best: float = -1.0
    stale: int = 0
    cells: dict[str, dict[str, float]] = field(default_factory=dict)
    history_bytes: int = 0
    generators: list[Tensor] = field(default_factory=list)


def save(training: Training, path: Path) -> None:
    """Write the training state: weights, optimiser, schedule, generators, latent states, progress.

    Called by every process, as each has its own latent states and generators; the main one writes. Raises
    `PtlreidError` if weights are not finite, and leaves the file as it was.
    """
    own = {"memory": _on_cpu(memory_state(training.network)), "generators": _generators()}
    processes = distributed.all_gather(own)
    if not distributed.is_main():
        return
    weights = training.network.state_dict()
    for name, tensor in weights.items():
        if not bool(tensor.isfinite().all()):
            raise PtlreidError(
                f"After update {training.step} of epoch {training.epoch + 1}, {name} is not finite: training "
                f"diverged. {path} is unchanged. Start another run (--name) with a lower --lr."
            )
    content = {
        "schema": SCHEMA,
        "network": weights,
        "optimizer": training.optimizer.state_dict(),
        "schedule": training.schedule.state_dict(),
        "scaler": training.scaler.state_dict(),
        "processes": processes,
        **{name: getattr(training, name) for name in _PLAIN},
    }
    with atomic_output(path) as output:
        torch.save(content, output)


def load(training: Training, path: Path) -> None:
    """Restore `training` from a checkpoint, except the generators: see `restore_generators`.

    `CheckpointError` for a file that is damaged, of another version, or of another number of processes.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["schema"] != SCHEMA:
            raise CheckpointError(
                f"{path}: schema {content['schema']}, expected {SCHEMA}. Resume with the version of ptlreid that "
                "started the run, or start another run (--name)."
            )
        _check_processes(content["processes"], path)
        training.network.load_state_dict(content["network"])
        training.optimizer.load_state_dict(content["optimizer"])
        training.schedule.load_state_dict(content["schedule"])
        training.scaler.load_state_dict(content["scaler"])
        own = content["processes"][distributed.rank()]
        load_memory_state(training.network, own["memory"])
        training.generators = own["generators"]
        for name in _PLAIN:
            setattr(training, name, content[name])
    except (
        OSError,
        RuntimeError,
        EOFError,
        KeyError,
        TypeError,
        ValueError,
        pickle.UnpicklingError,
    ) as error:
        if is_out_of_memory(error):
            raise
        raise CheckpointError(f"{path}: cannot be read ({error}). Start another run (--name).") from None


def restore_generators(training: Training) -> None:
    """Set torch's generators to their states in the checkpoint."""
    cpu, *gpu = training.generators
    torch.set_rng_state(cpu)
    if gpu and torch.cuda.is_available():
        torch.cuda.set_rng_state(gpu[0])


def _generators() -> list[Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_available() else [])]


def _on_cpu(states: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: state.cpu() for name, state in states.items()}


def _check_processes(processes: list[Any], path: Path) -> None:
    if len(processes) != distributed.world_size():
        raise CheckpointError(
            f"{path}: written by {len(processes)} processes, expected {distributed.world_size()}, as batches depend on "
            f"it. Resume with {len(processes)} processes, or start another run (--name)."
        )
