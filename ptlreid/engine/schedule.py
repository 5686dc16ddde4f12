"""The learning rate schedule: linear warm-up, then steps as in the paper (section 5.2), or a cosine."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

# The factor of the first update of a warm-up, as in the bag of tricks (Luo et al., CVPRW 2019).
WARMUP_START = 0.01


def build_schedule(
    optimizer: Optimizer,
    *,
    kind: Literal["step", "cosine"],
    updates_per_epoch: int,
    epochs: int,
    warmup_epochs: int,
    decay_every: int,
    decay_at: Sequence[int],
    decay_factor: float,
) -> LambdaLR:
    """The learning rate schedule of all groups, to be stepped once after each update.

    In the warm-up the rate rises linearly from `WARMUP_START` times its value. `step`: it is then multiplied by
    `decay_factor` after each of the epochs `decay_at`, or every `decay_every` epochs if `decay_at` is empty; epochs
    count from the start of training, including the warm-up. `cosine`: after the warm-up it falls along half a cosine,
    update by update, to 0 at the end of `epochs`.
    """
    warmup = warmup_epochs * updates_per_epoch
    total = epochs * updates_per_epoch

    def factor(update: int) -> float:
        if update < warmup:
            return WARMUP_START + (1 - WARMUP_START) * update / warmup
        if kind == "cosine":
            return (1 + cos(pi * min(1.0, (update - warmup) / max(1, total - warmup)))) / 2
        epoch = update // updates_per_epoch
        decays = sum(at <= epoch for at in decay_at) if decay_at else epoch // decay_every
        return float(decay_factor**decays)

    return LambdaLR(optimizer, factor)
