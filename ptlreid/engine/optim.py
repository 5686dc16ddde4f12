"""Optimisers by name, with parameter groups for the backbone and for everything else."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

_BACKBONE = "backbone."


def build_optimizer(
    name: str,
    network: nn.Module,
    *,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    amsgrad: bool,
    new_lr_factor: float,
) -> Optimizer:
    """The optimiser called `name` for all parameters: `sgd` (the paper's SGD-M), `adam` or `adamw`.

    `momentum` is SGD's, and so is `nesterov`, its variant that looks ahead (Sutskever et al., ICML 2013). Adam and
    AdamW use torch's default betas, and with `amsgrad` the maximum of second moments (Reddi et al., ICLR 2018). AdamW's
    weight decay is decoupled. The first group is the backbone with learning rate `lr`, the second everything else with
    `lr` times `new_lr_factor`.
    """
    groups = _groups(network, lr, new_lr_factor)
    # One pass over all weights: on a CPU, the unfused loop of AdamW takes a seventh of a small network's step.
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in network.parameters())
    match name:
        case "sgd":
            optimizer = SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay, fused=fused)
            # torch's fused SGD does not initialise the momentum of a first update that fp16 skips, and uses it later.
            for parameter in network.parameters() if fused and momentum else ():
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            return optimizer
        case "adam":
            return Adam(groups, lr=lr, weight_decay=weight_decay, amsgrad=amsgrad, fused=fused)
        case "adamw":
            return AdamW(groups, lr=lr, weight_decay=weight_decay, amsgrad=amsgrad, fused=fused)
    raise ValueError(f"optimizer = {name!r}: expected 'sgd', 'adam' or 'adamw'")


def freeze_backbone(network: nn.Module, frozen: bool) -> None:
    """Freeze the backbone's weights, or unfreeze them. Its batch norm statistics are updated either way."""
    for name, parameter in network.named_parameters():
        if name.startswith(_BACKBONE):
            parameter.requires_grad_(not frozen)


def freeze_classifier(network: nn.Module) -> None:
    """Freeze the weights of the classifier, for an objective that does not use it: several processes would wait."""
    for name, parameter in network.named_parameters():
        if "classifier" in name:
            parameter.requires_grad_(False)


def _groups(network: nn.Module, lr: float, new_lr_factor: float) -> list[dict[str, Any]]:
    """Two groups even at equal rates: in torch's fused SGD all parameters of a group must have a momentum buffer."""
    split: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in network.named_parameters():
        split[name.startswith(_BACKBONE)].append(parameter)
    rates = (lr, split[True]), (lr * new_lr_factor, split[False])
    return [{"params": parameters, "lr": rate} for rate, parameters in rates if parameters]
