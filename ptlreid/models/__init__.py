"""Networks by name: built anew, or again from the weights of a run. Listing names does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptlreid import plugins
from ptlreid.errors import OptionError
from ptlreid.models import backbones
from ptlreid.network_types import NetworkSpec

if TYPE_CHECKING:
    from ptlreid.models.network import Backbone, Network


def names() -> list[str]:
    """The backbones' names, sorted."""
    return plugins.names(backbones)


def find(name: str) -> Backbone:
    """The backbone called `name`; `OptionError` with a near-miss hint when there is none."""
    backbone: Backbone = plugins.find(backbones, name, "backbone").BACKBONE
    return backbone


def build(spec: NetworkSpec, seed: int = 0) -> Network:
    """The network that `spec` describes, its weights drawn from `seed`; the global generator is left as it was.

    Raises `OptionError` for an unknown backbone, and for an image size that its strides do not divide.
    """
    import torch

    backbone = find(spec.backbone)
    for name, value, multiple in zip(("height", "width"), (spec.height, spec.width), backbone.multiples, strict=True):
        if value % multiple:
            raise OptionError(
                f"--{name} {value} does not suit {spec.backbone}, whose maps are halved and cut: it must be a "
                f"multiple of {multiple}, such as {multiple * max(1, round(value / multiple))}."
            )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return backbone.ptl(spec.num_classes, spec.memory) if spec.ptl else backbone.plain(spec.num_classes)
