"""One plain function a file, its name that of the loss: (Output, labels) to its terms, whose sum is minimised."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import ptlreid.losses
from ptlreid import plugins

if TYPE_CHECKING:
    from torch import Tensor

    from ptlreid.network_types import Output

    Loss = Callable[[Output, Tensor], dict[str, Tensor]]


def find(name: str, settings: Mapping[str, Any]) -> Loss:
    """The loss called `name`, its keyword-only parameters filled from the `settings` of the same names.

    Parameters that `settings` do not name keep their own defaults. `OptionError` for an unknown name.
    """
    loss: Loss = plugins.find(ptlreid.losses, name, "loss").loss
    wanted = [p.name for p in inspect.signature(loss).parameters.values() if p.kind is p.KEYWORD_ONLY]
    return partial(loss, **{name: settings[name] for name in wanted if name in settings})
