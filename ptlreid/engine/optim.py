"""Optimisers by name, over the backbone's weights and all others."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

_BACKBONE = "backbone."


def build_optimizer(
    name: str,
    network: nn.Module,
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    amsgrad: bool = False,
    new_lr_factor: float = 1.0,
) -> Optimizer:
    """The optimiser called `name` over all parameters: `sgd` (the paper's SGD-M), `adam` or `adamw`.

    `momentum` is SGD's; Adam and AdamW have torch's own betas, and with `amsgrad` the largest second moment so far
    (Reddi et al., ICLR 2018). AdamW decays weights apart from the gradient. The backbone is the first group and learns
    at `lr`, all else is the second and learns at `lr` times `new_lr_factor`.
    """
    groups = _groups(network, lr, new_lr_factor)
    # One pass over all weights: on a CPU, AdamW's plain loop takes a seventh of a small network's step.
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in network.parameters())
    match name:
        case "sgd":
            return SGD(groups, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=fused)
        case "adam":
            return Adam(groups, lr=lr, weight_decay=weight_decay, amsgrad=amsgrad, fused=fused)
        case "adamw":
            return AdamW(groups, lr=lr, weight_decay=weight_decay, amsgrad=amsgrad, fused=fused)
    raise ValueError(f"no optimiser is called {name!r}: sgd, adam or adamw")


def freeze(network: nn.Module, frozen: bool) -> None:
    """Whether the backbone's weights stay as they are. Its batch norms still follow the batches they see."""
    for name, parameter in network.named_parameters():
        if name.startswith(_BACKBONE):
            parameter.requires_grad_(not frozen)


def _groups(network: nn.Module, lr: float, new_lr_factor: float) -> list[dict[str, Any]]:
    """Two groups even where the rates are equal: torch's fused SGD wants all of a group to have begun to move."""
    split: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in network.named_parameters():
        split[name.startswith(_BACKBONE)].append(parameter)
    rates = (lr, split[True]), (lr * new_lr_factor, split[False])
    return [{"params": parameters, "lr": rate} for rate, parameters in rates if parameters]
