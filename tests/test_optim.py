"""Optimisers and schedule, against hand-made steps and torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ptlreid.engine import optim


def weight_after(name: str, gradients: list[float], **settings: float) -> float:
    network = nn.Linear(1, 1, bias=False)
    nn.init.ones_(network.weight)
    optimizer = optim.make(name, network, **{"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0} | settings)
    for gradient in gradients:
        network.weight.grad = torch.tensor([[gradient]])
        optimizer.step()
    return network.weight.item()


def test_sgd_carries_its_momentum():
    # 1 - 0.1 * 2 = 0.8; velocity 0.9 * 2 + 1 = 2.8; 0.8 - 0.1 * 2.8 = 0.52
    assert weight_after("sgd", [2.0, 1.0]) == pytest.approx(0.52)


def test_weight_decay_is_part_of_the_gradient_but_not_in_adamw():
    # SGD and Adam see 0.5 * 1 as gradient: 1 - 0.1 * 0.5 = 0.95; Adam's first step is the rate: 1 - 0.1 = 0.9.
    assert weight_after("sgd", [0.0], weight_decay=0.5) == pytest.approx(0.95)
    assert weight_after("adam", [0.0], weight_decay=0.5) == pytest.approx(0.9)
    # AdamW shrinks by 1 - 0.1 * 0.5 and takes no step for a gradient of zero.
    assert weight_after("adamw", [0.0], weight_decay=0.5) == pytest.approx(0.95)


def test_an_unknown_name_is_our_own_mistake():
    with pytest.raises(ValueError, match="no optimiser is called 'lion'"):
        weight_after("lion", [])


def test_the_rate_falls_tenfold_every_ten_epochs():
    network = nn.Linear(1, 1)
    optimizer = optim.make("sgd", network, lr=0.01, momentum=0.9, weight_decay=0.0)
    schedule = optim.step_decay(optimizer, every=10, factor=0.1)
    rates = []
    for _ in range(21):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.01] * 10 + [0.001] * 10 + [0.0001])
