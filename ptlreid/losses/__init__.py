"""Losses, one file each, named after it; `ce+triplet` is a sum of two.

A file defines `loss(output, labels, *, ...)`, which returns its terms by name; their sum is minimised. It may define
`Settings`, a pydantic model of the loss's own settings, which the loss takes as keyword-only parameters, and
`NEEDS_POSITIVES = True` if it needs several images per identity in a batch. Loss files import torch inside their
functions: `ptlreid finetune --help` shows their settings without loading torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ptlreid import plugins

if TYPE_CHECKING:
    from torch import Tensor

    from ptlreid.network_types import Output

    Loss = Callable[[Output, Tensor], dict[str, Tensor]]


def find(name: str, settings: Mapping[str, Any]) -> Loss:
    """The loss called `name`, or the sum of those in it; each has those of the `settings` that are its own.

    Settings that are missing have their defaults. `OptionError` for an unknown name.
    """
    parts = [_bind(plugins.find(sys.modules[__name__], part, "loss"), settings) for part in name.split("+")]

    def loss(output: Output, labels: Tensor) -> dict[str, Tensor]:
        return {term: value for part in parts for term, value in part(output, labels).items()}

    return loss


def _bind(module: ModuleType, settings: Mapping[str, Any]) -> Loss:
    if not hasattr(module, "Settings"):
        return partial(module.loss)
    own = {key: settings[key] for key in module.Settings.model_fields if key in settings}
    return partial(module.loss, **module.Settings(**own).model_dump())
