"""Optimiser and schedule of the paper (section 5.2)."""

from __future__ import annotations

from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR


def sgd(network: nn.Module, lr: float, momentum: float, weight_decay: float) -> SGD:
    """SGD with momentum over all parameters (SGD-M)."""
    return SGD(network.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay)


def step_decay(optimizer: SGD, every: int, factor: float) -> StepLR:
    """The rate times `factor` after each `every` epochs; stepped once an epoch."""
    return StepLR(optimizer, step_size=every, gamma=factor)
