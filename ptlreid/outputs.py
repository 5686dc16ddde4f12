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

    `embedding`: (B, D), the vector that retrieval compares. `logits`: by head, (B, classes) each; in eval mode
    there are none, as nothing there needs a classifier.
    """

    embedding: Tensor
    logits: dict[str, Tensor] = field(default_factory=dict)


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
