"""Losses, one file each, named after it; `ce+triplet` is a sum of two.

A file defines `loss(output, labels, *, ...)`, which returns its terms by name; their sum is minimised. It may define
`Settings`, a pydantic model of the loss's own settings, which the loss takes as keyword-only parameters, and
`NEEDS_POSITIVES = True` if it needs several images per identity in a batch. A loss that keeps something from batch to
batch defines `new_state` and takes a state: see `_state.py`. Loss files import torch inside their functions:
`ptlreid finetune --help` shows their settings without loading torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, MutableMapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptlreid import plugins

if TYPE_CHECKING:
    from torch import Tensor

    from ptlreid.network_types import Output

    Loss = Callable[[Output, Tensor], dict[str, Tensor]]


def find(
    name: str,
    settings: Mapping[str, Any],
    states: MutableMapping[str, Tensor] | None = None,
    checkpoint: Path | None = None,
) -> Loss:
    """The loss called `name`, or the sum of those in it; each has those of the `settings` that are its own.

    Settings that are missing have their defaults. `states`: where losses with a state keep its tensors, under
    `loss.NAME.KEY`; by default the state ends with the loss. `checkpoint`: the file that `states` were read from; None
    for new states. `OptionError` for an unknown name.
    """
    states = {} if states is None else states
    parts = [_bind(part, settings, states, checkpoint) for part in name.split("+")]

    def loss(output: Output, labels: Tensor) -> dict[str, Tensor]:
        return {term: value for part in parts for term, value in part(output, labels).items()}

    return loss


def _bind(name: str, settings: Mapping[str, Any], states: MutableMapping[str, Tensor], checkpoint: Path | None) -> Loss:
    module = plugins.find(sys.modules[__name__], name, "loss")
    own: dict[str, Any] = {}
    if hasattr(module, "Settings"):
        given = {key: settings[key] for key in module.Settings.model_fields if key in settings}
        own = module.Settings(**given).model_dump()
    if not hasattr(module, "new_state"):
        return partial(module.loss, **own)
    from ptlreid.losses._state import StatefulLoss

    return StatefulLoss(name, partial(module.new_state, **own), partial(module.loss, **own), states, checkpoint)
