"""All that training depends on, in one file that is written aside and renamed."""

from __future__ import annotations

import errno
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ptlreid import distributed
from ptlreid.errors import CheckpointError, PtlreidError
from ptlreid.files import atomic_write
from ptlreid.models.bconv import load_memory_state, memory_state
from ptlreid.models.network import Network

SCHEMA = 2
# What is one number or one dictionary of numbers in `Training`, kept as it is.
_PLAIN = ("epoch", "step", "best", "stale", "cells", "history_bytes")


@dataclass
class Training:
    """What changes while a network is trained.

    `scaler`: keeps fp16 gradients in range; off otherwise. `epoch`: whole epochs done, their evaluation too. `step`:
    updates done in the epoch that is going on. `best`: the highest mAP seen, below 0 before the first evaluation;
    `stale`: evaluations since then. `cells`: what is known of the cells at the end of the epoch. `history_bytes`: how
    much of the history file belongs to what was done. `generators`: the state of torch's random generators that a
    checkpoint in the middle of an epoch holds.
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

    Called by every process: each has latent states and generators of its own, and the main one writes. Weights that
    are not finite are not worth going on from: a `PtlreidError`, and the file stays as it was.
    """
    own = {"memory": _on_cpu(memory_state(training.network)), "generators": _generators()}
    everyone = distributed.all_gather(own)
    if not distributed.is_main():
        return
    weights = training.network.state_dict()
    for name, tensor in weights.items():
        if not bool(tensor.isfinite().all()):
            raise PtlreidError(
                f"After update {training.step} of epoch {training.epoch + 1}, {name} is not finite. {path} is as it "
                "was before. Start anew under another --name with a lower --lr."
            )
    content = {
        "schema": SCHEMA,
        "network": weights,
        "optimizer": training.optimizer.state_dict(),
        "schedule": training.schedule.state_dict(),
        "scaler": training.scaler.state_dict(),
        "processes": everyone,
        **{name: getattr(training, name) for name in _PLAIN},
    }
    with atomic_write(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # how torch tells of a full disk
            raise OSError(errno.EIO, "the disk may be full") from error


def load(training: Training, path: Path) -> None:
    """Put `training` where `save` left it, ready for `restore_generators`.

    `CheckpointError` for a file that is damaged, of another version, or of another number of processes.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["schema"] != SCHEMA:
            raise CheckpointError(
                f"{path}: of schema {content['schema']}, this program writes {SCHEMA}. "
                "Continue with the version that began the run, or start anew under another --name."
            )
        _same_processes(content["processes"], path)
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
        raise CheckpointError(f"{path}: cannot be used ({error}). Start anew under another --name.") from None


def restore_generators(training: Training) -> None:
    """Put torch's generators where they were when the checkpoint was written."""
    cpu, *gpu = training.generators
    torch.set_rng_state(cpu)
    if gpu and torch.cuda.is_available():
        torch.cuda.set_rng_state(gpu[0])


def _generators() -> list[Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_available() else [])]


def _on_cpu(states: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: state.cpu() for name, state in states.items()}


def _same_processes(found: list[Any], path: Path) -> None:
    if len(found) != distributed.world_size():
        raise CheckpointError(
            f"{path}: of a run on {len(found)} processes, this is one on {distributed.world_size()}, which sees other "
            f"batches. Continue it with {len(found)}, or start anew under another --name."
        )
