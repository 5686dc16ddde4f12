"""Bytes of live tensors, counted by hand and by torch's profiler."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ptlreid.engine.footprint import Autocast, Footprint


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_live_and_peak_bytes(device):
    before = torch.zeros(10, device=device)  # 40 bytes
    with Footprint([before]) as footprint:
        assert footprint.live == 40
        one = before + 1  # 80
        two = torch.cat((one, one))  # 160
        view = two[:3]
        before += 1  # in place: nothing new
        assert (footprint.live, footprint.peak) == (160, 160)
        del one
        assert (footprint.live, footprint.peak) == (120, 160)
        del two
        assert footprint.live == 120  # the view keeps all of it
        del view
        assert (footprint.live, footprint.peak) == (40, 160)


def test_autocast_equals_torchs_for_convolutions_and_linear_layers():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sigmoid(), nn.Flatten(), nn.Linear(144, 2))
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def bytes_of_a_pass(mode, device):
        moved = network.to(device)
        with Footprint([*moved.parameters(), *moved.buffers()]) as footprint, mode:
            output = moved(images.to(device))
            between = footprint.live
            F.cross_entropy(output.float(), torch.zeros(2, dtype=torch.long, device=device)).backward()
        return output.dtype, between

    theirs = bytes_of_a_pass(torch.autocast("cpu", dtype=torch.bfloat16), "cpu")
    network.zero_grad(set_to_none=True)
    ours = bytes_of_a_pass(Autocast(torch.bfloat16), "meta")
    # torch's own keeps the biases in bfloat16 until it ends: (4 + 2) * 2 bytes.
    assert (ours[0], ours[1] + 12) == theirs
