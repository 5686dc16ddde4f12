"""What every network returns, in training and in evaluation, and what it takes to build one again."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor


# What the latent state of a BConv-Cell is shared by: see models/bconv.py.
Memory = Literal["slot", "mean", "none"]


@dataclass(frozen=True)
class Output:
    """One pass of B images through a network.

    `embedding`: (B, D), the vector that retrieval compares. `logits`: by head, (B, classes) each. `metric`: by
    name, (B, width) each, what a triplet loss compares. In eval mode there are neither, as nothing there needs them.
    """

    embedding: Tensor
    logits: dict[str, Tensor] = field(default_factory=dict)
    metric: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class NetworkSpec:
    """All that decides a network's structure: with the weights, it gives the same features anywhere."""

    backbone: str
    ptl: bool
    memory: Memory
    num_classes: int
    height: int
    width: int

    def describe(self) -> dict[str, Any]:
        """The fields by name, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Readout:
    """How features are read from a network, beside its weights.

    `flip`: the features of the image and of its mirror are summed. `normalize`: they are scaled to length 1. `amp`:
    the number format of the convolutions; features themselves are float32. `channels_last`: the memory layout of
    maps, which changes nothing but rounding.
    """

    flip: bool = False
    normalize: bool = False
    amp: Literal["off", "bf16", "fp16"] = "off"
    channels_last: bool = False

    def describe(self) -> dict[str, Any]:
        """The fields by name, for JSON."""
        return asdict(self)
