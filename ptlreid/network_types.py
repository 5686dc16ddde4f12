"""The output of a network, the description from which it is rebuilt, and how its features are read."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor


TIMM = "timm:"  # before the name of a network of timm

# How the latent state of a BConv-Cell is shared in a batch: see models/bconv.py.
Memory = Literal["slot", "mean", "none"]
# How images are resized: see views.py.
Interpolation = Literal["bilinear", "bicubic"]
# The parts of a network's head: see models/head.py.
Neck = Literal["none", "bn"]
Pool = Literal["avg", "max", "gem", "token"]
Classifier = Literal["mlp3", "linear"]


@dataclass(frozen=True)
class Output:
    """The output of a network for B images.

    `embedding`: (B, D), the features that retrieval compares. `logits`: by head, (B, classes) each. `metric`: by
    name, (B, width) each, the vectors that a triplet loss compares. In eval mode, `logits` and `metric` are empty.
    """

    embedding: Tensor
    logits: dict[str, Tensor] = field(default_factory=dict)
    metric: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class NetworkSpec:
    """A network's structure, and the size and interpolation of its images: with the weights, it gives the same features
    anywhere.

    `last_stride`: of the last Conv-block, 2 or 1. `feature_width`: of the reduction in the head; None for the
    backbone's default, 0 for no reduction. `drop_path`: the probability with which the last block is skipped in
    training (stochastic depth). Defaults are the paper's.
    """

    backbone: str
    ptl: bool
    memory: Memory
    num_classes: int
    height: int
    width: int
    interpolation: Interpolation = "bilinear"
    last_stride: int = 2
    neck: Neck = "none"
    pool: Pool = "avg"
    classifier: Classifier = "mlp3"
    feature_width: int | None = None
    drop_path: float = 0.0

    def describe(self) -> dict[str, Any]:
        """The fields by name, for JSON; without those at their default, which descriptions of version 0.1 lack."""
        defaults = {one.name: one.default for one in fields(self)}
        return {name: value for name, value in asdict(self).items() if value != defaults[name]}


# The structure of the head, as settings of fine-tuning have it under the same names.
HEAD = ("last_stride", "neck", "pool", "classifier", "feature_width", "drop_path")


@dataclass(frozen=True)
class Readout:
    """How features are read from a network.

    `flip`: sum the features of the image and of its mirror image. `normalize`: L2-normalise them. `amp`: the precision
    of convolutions and matrix products, `off` being IEEE float32; features themselves are float32. `channels_last`: the
    layout of the maps, which changes rounding only.
    """

    flip: bool = False
    normalize: bool = False
    amp: Literal["off", "tf32", "bf16", "fp16"] = "off"
    channels_last: bool = False

    def describe(self) -> dict[str, Any]:
        """The fields by name, for JSON."""
        return asdict(self)
