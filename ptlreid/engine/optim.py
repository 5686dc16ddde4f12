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
    layer_decay: float,
) -> Optimizer:
    """The optimiser called `name` for all parameters: `sgd` (the paper's SGD-M), `adam` or `adamw`.

    `momentum` is SGD's, and so is `nesterov`, its variant that looks ahead (Sutskever et al., ICML 2013). Adam and
    AdamW use torch's default betas, and with `amsgrad` the maximum of second moments (Reddi et al., ICLR 2018). AdamW's
    weight decay is decoupled. The backbone has the learning rate `lr`, everything else `lr` times `new_lr_factor`.
    With a `layer_decay` below 1, a layer of the backbone has `lr` times its power of the number of layers up to the
    head, as in the fine-tuning of BEiT (Bao et al., ICLR 2022): 1 for the last. The first group is the backbone's last.
    """
    groups = _groups(network, lr, new_lr_factor, layer_decay)
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


def _groups(network: nn.Module, lr: float, new_lr_factor: float, layer_decay: float) -> list[dict[str, Any]]:
    """The backbone's layers by their distance from the head, which is 0 for all without decay, then everything else.

    Backbone and head are two groups even at equal rates: in torch's fused SGD all parameters of a group must have a
    momentum buffer.
    """
    backbone: Any = getattr(network, "backbone", None)
    distances = backbone.distances() if layer_decay != 1 else {}
    layers: dict[int, list[nn.Parameter]] = {}
    rest: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        if name.startswith(_BACKBONE):
            layers.setdefault(distances.get(name.removeprefix(_BACKBONE), 0), []).append(parameter)
        else:
            rest.append(parameter)
    groups = [{"params": layers[distance], "lr": lr * layer_decay**distance} for distance in sorted(layers)]
    return groups + ([{"params": rest, "lr": lr * new_lr_factor}] if rest else [])
