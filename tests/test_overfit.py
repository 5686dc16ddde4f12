"""Every network, with and without cells, overfits a handful of images: nothing in it blocks the gradient."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ptlreid import models
from ptlreid.models.bconv import reset_memory
from ptlreid.network_types import NetworkSpec


@pytest.mark.parametrize("ptl", [True, False], ids=["PTL", "plain"])
@pytest.mark.parametrize("name", [name for name in models.names() if not name.startswith("tiny")])
@pytest.mark.slow
def test_four_images_are_overfitted(name, ptl):
    down, across = models.find(name).multiples
    height, width = 64 // down * down or down, 32 // across * across or across
    network = models.build(NetworkSpec(name, ptl, "slot", 2, height, width), seed=0).train()
    images = torch.randn(4, 3, height, width, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 0, 1, 1])
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    for _ in range(40):
        reset_memory(network)
        loss = sum(F.cross_entropy(logits, labels) for logits in network(images).logits.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.05:
            return
    pytest.fail(f"after 40 updates the loss is {loss.item():.3f}")
