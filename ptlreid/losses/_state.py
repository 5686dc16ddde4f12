"""Losses that keep tensors from one batch to the next. Not a loss itself.

Such a loss file defines two functions with the same keyword-only settings:

- `new_state(output, *, ...)`: the tensors that the loss begins with, by name, for outputs such as this first one. Their
  shapes and types do not change later.
- `loss(output, labels, state, *, ...)`: its terms. It replaces tensors in the dictionary `state` by new ones without
  gradient, and computes them from the batch of all processes (`gather_batch`), so that every process has the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ptlreid.errors import CheckpointError
from ptlreid.file_kinds import printable
from ptlreid.network_types import Output


@dataclass
class StatefulLoss:
    """A loss and its state, which is also kept in `states` under `loss.NAME.KEY`: a checkpoint saves it from there.

    `checkpoint`: the file that `states` were read from, None for a new run. The state begins with the first batch,
    which shows its shapes: `CheckpointError` then if that in the checkpoint does not have them.
    """

    name: str
    new_state: Callable[[Output], dict[str, Tensor]]
    loss: Callable[[Output, Tensor, dict[str, Tensor]], dict[str, Tensor]]
    states: MutableMapping[str, Tensor]
    checkpoint: Path | None
    _state: dict[str, Tensor] | None = None

    def __call__(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        if self._state is None:
            self._state = self._begin(output)
        terms = self.loss(output, labels, self._state)
        self.states.update({self._prefix + key: value for key, value in self._state.items()})
        return terms

    @property
    def _prefix(self) -> str:
        return f"loss.{self.name}."

    def _begin(self, output: Output) -> dict[str, Tensor]:
        new = self.new_state(output)
        if self.checkpoint is None:
            return new
        kept = self.states.items()
        saved = {key.removeprefix(self._prefix): value for key, value in kept if key.startswith(self._prefix)}
        if reason := _find_difference(saved, new):
            raise CheckpointError(
                f"{self.checkpoint}: does not fit the network and settings of the run (state of the loss {self.name}: "
                f"{reason}). Start another run (--name)."
            )
        return {key: saved[key].to(value.device) for key, value in new.items()}


def _find_difference(saved: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> str:
    """What makes the `saved` state another one than the `new` one in names, shapes or types; empty if nothing does."""
    if saved.keys() != new.keys():
        return printable(f"{', '.join(sorted(saved)) or 'nothing'}, expected {', '.join(sorted(new))}")
    for key, value in new.items():
        if (saved[key].shape, saved[key].dtype) != (value.shape, value.dtype):
            return f"{key} is {_describe(saved[key])}, expected {_describe(value)}"
    return ""


def _describe(tensor: Tensor) -> str:
    return f"{tensor.dtype} of shape {tuple(tensor.shape)}".removeprefix("torch.")
