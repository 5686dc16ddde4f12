"""How the learning rate changes: linear warm-up, then steps as in the paper (section 5.2), or a cosine."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

# The share of the rate that the first update of a warm-up has, as in the bag of tricks (Luo et al., CVPRW 2019).
START = 0.01


def build_schedule(
    optimizer: Optimizer,
    *,
    kind: Literal["step", "cosine"],
    updates_per_epoch: int,
    epochs: int,
    warmup_epochs: int = 0,
    decay_every: int = 10,
    decay_at: Sequence[int] = (),
    decay_factor: float = 0.1,
) -> LambdaLR:
    """The schedule of every group's rate, to be stepped once after each update.

    In the warm-up the rate rises in equal parts from `START` times itself. `step`: from there it is multiplied by
    `decay_factor` after each of the epochs `decay_at`, or after every `decay_every` where none are named; epochs count
    from the start of training, those of the warm-up too. `cosine`: after the warm-up it falls along half a cosine,
    update by update, to 0 at the end of `epochs`.
    """
    warmup = warmup_epochs * updates_per_epoch
    total = epochs * updates_per_epoch

    def factor(update: int) -> float:
        if update < warmup:
            return START + (1 - START) * update / warmup
        if kind == "cosine":
            return (1 + cos(pi * min(1.0, (update - warmup) / max(1, total - warmup)))) / 2
        epoch = update // updates_per_epoch
        falls = sum(at <= epoch for at in decay_at) if decay_at else epoch // decay_every
        return float(decay_factor**falls)

    return LambdaLR(optimizer, factor)
