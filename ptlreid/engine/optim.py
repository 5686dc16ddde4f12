"""Optimisers by name, and the paper's schedule (section 5.2)."""

from __future__ import annotations

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import StepLR


def make(name: str, network: nn.Module, *, lr: float, momentum: float, weight_decay: float) -> Optimizer:
    """The optimiser called `name` over all parameters: `sgd` (the paper's SGD-M), `adam` or `adamw`.

    `momentum` is SGD's; Adam and AdamW have torch's own betas. AdamW decays weights apart from the gradient.
    """
    parameters = list(network.parameters())
    # One pass over all weights: on a CPU, AdamW's plain loop takes a seventh of a small network's step.
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
    match name:
        case "sgd":
            return SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=fused)
        case "adam":
            return Adam(parameters, lr=lr, weight_decay=weight_decay, fused=fused)
        case "adamw":
            return AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=fused)
    raise ValueError(f"no optimiser is called {name!r}: sgd, adam or adamw")


def step_decay(optimizer: Optimizer, every: int, factor: float) -> StepLR:
    """The rate times `factor` after each `every` epochs; stepped once an epoch."""
    return StepLR(optimizer, step_size=every, gamma=factor)
