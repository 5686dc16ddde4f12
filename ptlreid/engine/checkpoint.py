"""All that training depends on, in one file that is written aside and renamed."""

from __future__ import annotations

import errno
import pickle
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ptlreid.errors import CheckpointError
from ptlreid.files import replacing
from ptlreid.models.bconv import load_memory_state, memory_state
from ptlreid.models.network import Network

SCHEMA = 1


@dataclass
class Training:
    """What changes while a network is trained.

    `epoch`: epochs done. `best`: the highest mAP seen, below 0 before the first evaluation. `history_bytes`: how
    much of the history file belongs to what was done.
    """

    network: Network
    optimizer: Optimizer
    schedule: LRScheduler
    epoch: int = 0
    best: float = -1.0
    history_bytes: int = 0


def save(training: Training, path: Path) -> None:
    """Write the training state: weights, optimiser, schedule, latent states, progress."""
    content = {
        "schema": SCHEMA,
        "network": training.network.state_dict(),
        "memory": memory_state(training.network),
        "optimizer": training.optimizer.state_dict(),
        "schedule": training.schedule.state_dict(),
        "epoch": training.epoch,
        "best": training.best,
        "history_bytes": training.history_bytes,
    }
    with replacing(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # how torch tells of a full disk
            raise OSError(errno.EIO, "the disk may be full") from error


def load(training: Training, path: Path) -> None:
    """Put `training` where `save` left it. `CheckpointError` for a file that is damaged or of another version."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["schema"] != SCHEMA:
            raise CheckpointError(
                f"{path}: of schema {content['schema']}, this program writes {SCHEMA}. "
                "Continue with the version that began the run, or start anew under another --name."
            )
        training.network.load_state_dict(content["network"])
        load_memory_state(training.network, content["memory"])
        training.optimizer.load_state_dict(content["optimizer"])
        training.schedule.load_state_dict(content["schedule"])
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
    training.epoch, training.best = content["epoch"], content["best"]
    training.history_bytes = content["history_bytes"]
