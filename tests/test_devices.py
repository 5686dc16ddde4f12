"""How the device is used."""

from __future__ import annotations

import pytest
import torch

from ptlreid.devices import fixed_sizes


@pytest.mark.parametrize(
    ("device", "before", "inside"), [("cuda", False, True), ("cpu", False, False), ("cpu", True, True)]
)
def test_cudnn_times_its_algorithms_on_cuda_only_and_only_inside(monkeypatch, device, before, inside):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", before)
    with pytest.raises(KeyError), fixed_sizes(torch.device(device)):
        assert torch.backends.cudnn.benchmark == inside
        raise KeyError
    assert torch.backends.cudnn.benchmark == before
