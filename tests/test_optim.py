"""Optimisers, against updates worked by hand."""

from __future__ import annotations

import pytest
import torch
from conftest import tiny_network
from torch import nn

from ptlreid import models
from ptlreid.engine import optim
from ptlreid.errors import OptionError
from ptlreid.network_types import NetworkSpec


def build(name: str, network: nn.Module, **settings: float) -> torch.optim.Optimizer:
    usual = {"lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0, "amsgrad": False}
    return optim.build_optimizer(name, network, **usual | {"new_lr_factor": 1.0, "layer_decay": 1.0} | settings)


def weight_after(name: str, gradients: list[float], **settings: float) -> float:
    network = nn.Linear(1, 1, bias=False)
    nn.init.ones_(network.weight)
    optimizer = build(name, network, **settings)
    for gradient in gradients:
        network.weight.grad = torch.tensor([[gradient]])
        optimizer.step()
    return network.weight.item()


def test_sgd_carries_its_momentum():
    # 1 - 0.1 * 2 = 0.8; velocity 0.9 * 2 + 1 = 2.8; 0.8 - 0.1 * 2.8 = 0.52
    assert weight_after("sgd", [2.0, 1.0]) == pytest.approx(0.52)


def test_nesterov_adds_the_velocity_that_comes_next():
    # Step 1: velocity 2, 1 - 0.1 * (2 + 0.9 * 2) = 0.62; step 2: velocity 2.8, 0.62 - 0.1 * (1 + 0.9 * 2.8) = 0.268
    assert weight_after("sgd", [2.0, 1.0], nesterov=True) == pytest.approx(0.268)


def test_weight_decay_is_part_of_the_gradient_but_not_in_adamw():
    # SGD and Adam see 0.5 * 1 as gradient: 1 - 0.1 * 0.5 = 0.95; Adam's first step is the rate: 1 - 0.1 = 0.9.
    assert weight_after("sgd", [0.0], weight_decay=0.5) == pytest.approx(0.95)
    assert weight_after("adam", [0.0], weight_decay=0.5) == pytest.approx(0.9)
    # AdamW shrinks by 1 - 0.1 * 0.5 and takes no step for a gradient of zero.
    assert weight_after("adamw", [0.0], weight_decay=0.5) == pytest.approx(0.95)


def test_an_unknown_optimizer_is_a_value_error():
    with pytest.raises(ValueError, match="optimizer = 'lion': expected"):
        weight_after("lion", [])


class Parts(nn.Module):
    """One weight in the backbone and one outside it."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(1, 1, bias=False)
        self.head = nn.Linear(1, 1, bias=False)
        for weight in self.parameters():
            nn.init.ones_(weight)

    def step(self, optimizer: torch.optim.Optimizer, *gradients: float) -> list[float]:
        for weight, gradient in zip(self.parameters(), gradients, strict=True):
            weight.grad = torch.tensor([[gradient]]) if weight.requires_grad else None
        optimizer.step()
        return [weight.item() for weight in self.parameters()]


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_new_layers_learn_at_a_multiple_of_the_backbones_rate(name):
    network = Parts()
    optimizer = build(name, network, lr=0.01, new_lr_factor=10)
    # Adam's first step is the rate itself, SGD's the rate times the gradient.
    assert network.step(optimizer, 1.0, 1.0) == pytest.approx([1 - 0.01, 1 - 0.1])


def rates(optimizer: torch.optim.Optimizer, network: nn.Module, names: list[str]) -> list[float]:
    """The rates of parameters by their name."""
    by_parameter = {id(one): group["lr"] for group in optimizer.param_groups for one in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(network.parameters()))
    return [by_parameter[id(network.get_parameter(name))] for name in names]


def test_layer_decay_slows_conv_blocks_by_their_distance_from_the_head():
    network = tiny_network()
    optimizer = build("sgd", network, lr=0.1, layer_decay=0.5, new_lr_factor=3.0)
    names = [f"backbone.blocks.block{number}.0.weight" for number in (1, 2, 3, 4, 5)]
    found = rates(optimizer, network, [*names, "cells.0.gates.weight", "head.reduce.weight"])
    # 0.1 halved five times in block 1, once in block 5; new layers have 3 * 0.1.
    assert found == pytest.approx([0.003125, 0.00625, 0.0125, 0.025, 0.05, 0.3, 0.3])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)  # the rate that the history has


def test_layer_decay_of_a_vit_is_that_of_beit():
    # BEiT's and MAE's rule: with 6 layers, patches, positions and token get 0.5^7, layer i (from 1) gets 0.5^(7 - i).
    network = models.build(NetworkSpec("timm:test_vit", False, "slot", 2, 64, 32), seed=0)
    layers = [f"blocks.{number}.attn.qkv.weight" for number in range(6)]
    names = [f"backbone.net.{name}" for name in ["cls_token", "pos_embed", "patch_embed.proj.weight", *layers]]
    found = rates(build("adamw", network, lr=1.0, layer_decay=0.5), network, [*names, "head.reduce.weight"])
    assert found == pytest.approx([0.5**7] * 3 + [0.5**power for power in (6, 5, 4, 3, 2, 1)] + [1.0])


@pytest.mark.parametrize("name", ["timm:vit_small_patch14_reg4_dinov2", "timm:convnext_tiny", "timm:resnet50", "mgn"])
def test_every_layer_of_a_backbone_has_a_distance(name):
    with torch.device("meta"):
        network = models.build(NetworkSpec(name, False, "slot", 2, *models.find(name).input_size), seed=0)
    distances = network.backbone.distances()
    assert distances.keys() == {key for key, _ in network.backbone.named_parameters()}
    assert set(distances.values()) == set(range(1, max(distances.values()) + 1))


def test_layer_decay_is_refused_where_timm_gives_no_order():
    network = models.build(NetworkSpec("timm:poolformer_s12", False, "slot", 2, 64, 32), seed=0)
    with pytest.raises(OptionError, match="layer_decay does not suit timm:poolformer_s12"):
        build("sgd", network, layer_decay=0.5)


def test_a_network_without_backbone_makes_one_group():
    optimizer = build("sgd", nn.Linear(1, 1), lr=0.01, new_lr_factor=10)
    assert [(len(group["params"]), group["lr"]) for group in optimizer.param_groups] == [(2, 0.1)]


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_amsgrad_keeps_the_largest_second_moment(name):
    # Gradients 10, then 0.1: with the largest second moment so far, the second step divides by more.
    # First moments 0.1 * 10 = 1, then 0.9 * 1 + 0.01 = 0.91; second moments 0.1, then 0.0999 + 0.00001 = 0.09991.
    # Corrected by 1 - 0.9^2 = 0.19 and 1 - 0.999^2 = 0.001999, and by 0.1 and 0.001 before.
    def second(moment: float) -> float:
        return 1 - 0.1 - 0.1 * (0.91 / 0.19) / (moment / 0.001999) ** 0.5

    assert weight_after(name, [10.0, 0.1]) == pytest.approx(second(0.09991), rel=1e-6)
    assert weight_after(name, [10.0, 0.1], amsgrad=True) == pytest.approx(second(0.1), rel=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_frozen_backbone_does_not_change_until_it_is_unfrozen(name):
    network = Parts()
    optimizer = build(name, network, weight_decay=0.5)
    optim.freeze_backbone(network, True)
    backbone, head = network.step(optimizer, 1.0, 1.0)
    assert backbone == 1.0
    assert head < 1.0
    optim.freeze_backbone(network, False)
    assert network.step(optimizer, 1.0, 1.0)[0] < 1.0


def test_freezing_affects_the_backbone_only():
    network = tiny_network()
    optim.freeze_backbone(network, True)
    frozen = {name.split(".")[0]: not weight.requires_grad for name, weight in network.named_parameters()}
    assert frozen == {"backbone": True, "fusions": False, "cells": False, "head": False}
    optim.freeze_backbone(network, False)
    assert all(weight.requires_grad for weight in network.parameters())


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_first_update_that_fp16_skips_leaves_no_trace(name):
    # torch fills memory that nobody has written with nan under deterministic algorithms.
    torch.use_deterministic_algorithms(True)
    try:
        network = nn.Linear(1, 1, bias=False)
        nn.init.ones_(network.weight)
        optimizer, scaler = build(name, network), torch.amp.GradScaler("cpu", init_scale=1.0)
        for gradient in (float("inf"), 2.0):
            network.weight.grad = None
            scaler.scale(network.weight.sum() * gradient).backward()
            scaler.step(optimizer)
            scaler.update(1.0)
    finally:
        torch.use_deterministic_algorithms(False)
    assert network.weight.item() == pytest.approx(weight_after(name, [2.0]))
