"""The training state and its checkpoint: one file, written atomically."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NotRequired

import torch
from pydantic import ConfigDict, Field, InstanceOf, with_config
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from typing_extensions import TypedDict

from ptlreid import distributed
from ptlreid.engine.generators import own_generators
from ptlreid.errors import CheckpointError, DataError, PtlreidError, is_out_of_memory
from ptlreid.file_kinds import printable
from ptlreid.files import atomic_output
from ptlreid.json_files import check_schema
from ptlreid.models.average import Average
from ptlreid.models.bconv import gather_memory_state, load_memory_state
from ptlreid.models.network import Network
from ptlreid.models.tensor_files import read_content
from ptlreid.schemas import Count, Number, Session

SCHEMA = 3
# The fields of `Training` that are numbers or dictionaries of numbers, saved as they are.
_PLAIN = ("epoch", "step", "best", "stale", "cells", "history_bytes", "sessions")
_ADVICE = "Start another run (--name)."
_STRICT = ConfigDict(strict=True, extra="forbid")


@with_config(_STRICT)
class _Content(TypedDict):
    """A checkpoint. torch checks what it restores itself.

    `memory`: the latent states of the batch over all processes, by cell. `generators`: the states of each process's
    random generators.
    """

    schema: int
    network: dict[str, InstanceOf[Tensor]]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    scaler: dict[str, Any]
    memory: dict[str, InstanceOf[Tensor]]
    generators: Annotated[list[Annotated[list[InstanceOf[Tensor]], Field(min_length=1)]], Field(min_length=1)]
    epoch: Count
    step: Count
    best: Number
    stale: Count
    cells: dict[str, dict[str, float]]
    history_bytes: Count
    sessions: list[Session]
    extra: NotRequired[dict[str, InstanceOf[Tensor]]]
    average: NotRequired[dict[str, InstanceOf[Tensor]]]


@dataclass
class Training:
    """Everything that changes during training.

    `scaler`: keeps fp16 gradients in range, disabled otherwise. `epoch`: completed epochs, with their evaluation.
    `step`: completed updates of the current epoch. `best`: the highest mAP so far, negative before the first
    evaluation; `stale`: evaluations since then. `cells`: statistics of the cells at the end of the epoch.
    `history_bytes`: the length of the history file at this point. `sessions`: what the updates were computed
    with, see `environment`. `extra`: what a planned epoch needs besides (see `TrainingJob.plan_epoch`), the same in all
    processes. `generators`: the states of this process's random generators in the checkpoint, none if another number of
    processes wrote it. `average`: the moving average of the weights, if there is one.
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
    sessions: list[Session] = field(default_factory=list)
    generators: list[Tensor] = field(default_factory=list)
    extra: dict[str, Tensor] = field(default_factory=dict)
    average: Average | None = None


def save(training: Training, path: Path) -> None:
    """Write the training state: weights, optimiser, schedule, generators, latent states, progress.

    Called by every process, as each has its own latent states and generators; the main one writes. Raises
    `PtlreidError` if weights are not finite, and leaves the file as it was.
    """
    memory = gather_memory_state(training.network)
    generators = distributed.gather([one.get_state() for one in _generators(training)])
    if not distributed.is_main():
        return
    weights = training.network.state_dict()
    for name, tensor in weights.items():
        if not bool(tensor.isfinite().all()):
            moment = (
                f"update {training.step} of epoch {training.epoch + 1}" if training.step else f"epoch {training.epoch}"
            )
            left = f"{path} is unchanged" if path.is_file() else "No checkpoint yet"
            raise PtlreidError(
                f"After {moment}, {name} is not finite: training diverged. {left}. Start another run (--name) with a "
                "lower --lr."
            )
    content = {
        "schema": SCHEMA,
        "network": weights,
        "optimizer": training.optimizer.state_dict(),
        "schedule": training.schedule.state_dict(),
        "scaler": training.scaler.state_dict(),
        "memory": memory,
        "generators": generators,
        **{name: getattr(training, name) for name in _PLAIN},
        **({"extra": training.extra} if training.extra else {}),
        **({"average": training.average.state_dict()} if training.average else {}),
    }
    with atomic_output(path) as output:
        torch.save(content, output)


def load(training: Training, path: Path) -> None:
    """Restore `training` from a checkpoint, except the generators: see `restore_generators`.

    `CheckpointError` for a file that is damaged, of another version or network.
    """
    content = _check(_translate(read_content(path, own=True, advice=_ADVICE)), path)
    same = len(content["generators"]) == distributed.world_size()
    generators = content["generators"][distributed.rank()] if same else []
    try:
        training.network.load_state_dict(content["network"])
        training.optimizer.load_state_dict(content["optimizer"])
        _check_shapes(training.optimizer)
        training.schedule.load_state_dict(content["schedule"])
        training.scaler.load_state_dict(content["scaler"])
        load_memory_state(training.network, content["memory"])
        if training.average:
            training.average.load_state_dict(content.get("average", {}))
        for state in generators[:1]:
            torch.Generator().set_state(state)  # raises where `restore_generators` would
    except Exception as error:  # torch takes any content, and raises any exception
        if is_out_of_memory(error):
            raise
        reason = printable(str(error) or type(error).__name__)
        raise CheckpointError(
            f"{path}: does not fit the network and settings of the run ({reason}). {_ADVICE}"
        ) from None
    training.generators, training.extra = generators, content.get("extra", {})
    for name in _PLAIN:
        setattr(training, name, content[name])  # type: ignore[literal-required]


def restore_generators(training: Training) -> None:
    """Set torch's generators to their states in the checkpoint; that of another kind of device has no use here."""
    for generator, state in zip(_generators(training), training.generators, strict=False):
        if state.shape == generator.get_state().shape:
            generator.set_state(state)


def _generators(training: Training) -> list[torch.Generator]:
    return own_generators(next(training.network.parameters()).device)


def _translate(content: Any) -> Any:
    """The content of schema 2 that one process wrote as one of schema 3; any other as it is."""
    match content:
        case {"schema": 2, "processes": [{"memory": memory, "generators": generators}], **others}:
            return {"sessions": [], **others, "schema": SCHEMA, "memory": memory, "generators": [generators]}
    return content


def _check(content: Any, path: Path) -> _Content:
    """The content; `CheckpointError` if it is not as `save` wrote it."""
    schema = content.get("schema") if isinstance(content, dict) else None
    if isinstance(schema, int) and schema != SCHEMA:
        raise CheckpointError(
            f"{path}: schema {schema}, expected {SCHEMA}. Resume with the version of ptlreid that started the run, or "
            "start another run (--name)."
        )
    try:
        return check_schema(content, _Content, str(path), _ADVICE)
    except DataError as error:
        raise CheckpointError(str(error)) from None


def _check_shapes(optimizer: Optimizer) -> None:
    """Raise `ValueError` if the optimiser's state was made for parameters of other shapes: torch notices it late."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.dim() and value.shape != parameter.shape:
                raise ValueError(f"{name} of shape {tuple(value.shape)}, expected {tuple(parameter.shape)}")
