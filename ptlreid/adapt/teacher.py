"""The teacher: the exponential moving average of a network in training, whose features are clustered."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ptlreid.models.bconv import reset_memory
from ptlreid.models.network import Network


def build_teacher(network: Network, *, decay: float) -> AveragedModel:
    """The average of `network`, at first equal to it: `module` is a network in eval mode, with zero latent states.

    Call `update_parameters(network)` after each update: the n-th of them, from 1, leaves min(`decay`, (1 + n) /
    (10 + n)) of the average (the `num_updates` rule of TensorFlow's ExponentialMovingAverage), so that the initial
    weights do not count for long. Batch-norm statistics are averaged as weights are: those of the student alone would
    be those of other weights. `state_dict()` is all that a checkpoint needs.
    """

    def average(averages: Sequence[Tensor], values: Sequence[Tensor], updates: Tensor | int) -> None:
        kept = min(decay, (1 + int(updates)) / (10 + int(updates)))
        get_ema_multi_avg_fn(kept)(averages, values, updates)

    teacher = AveragedModel(network, multi_avg_fn=average, use_buffers=True)
    teacher.n_averaged += 1  # otherwise the first update replaces the initial weights
    teacher.eval().requires_grad_(False)
    reset_memory(teacher)  # the copy has those of the student
    return teacher
