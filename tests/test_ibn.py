"""ResNets with IBN-a: which norms are replaced, what they compute, and the names of the authors' files."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import resnet50

from ptlreid import models
from ptlreid.errors import CheckpointError
from ptlreid.models import pretrained
from ptlreid.models.resnet import IBN
from ptlreid.network_types import NetworkSpec


def build(name: str) -> nn.Module:
    return models.build(NetworkSpec(name, False, "slot", 3, 64, 32), seed=0)


def test_half_of_the_channels_are_normalised_by_image_and_the_others_by_batch():
    norm = IBN(6)
    with torch.no_grad():
        norm.IN.weight.fill_(2)
        norm.BN.bias.fill_(3)
    maps = torch.randn(4, 6, 5, 3, generator=torch.Generator().manual_seed(0))
    first, last = norm(maps)[:, :3], norm(maps)[:, 3:]
    for image in range(4):
        for channel in range(3):
            values = maps[image, channel]
            expected = 2 * (values - values.mean()) / values.var(unbiased=False).sqrt()
            torch.testing.assert_close(first[image, channel], expected, atol=1e-4, rtol=1e-4)
    batch = maps[:, 3:].transpose(0, 1).flatten(1)
    scale = batch.var(dim=1, unbiased=False).sqrt()
    expected = 3 + (maps[:, 3:] - batch.mean(dim=1)[:, None, None]) / scale[:, None, None]
    torch.testing.assert_close(last, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "count"), [("resnet18-ibn-a", 6), ("resnet50-ibn-a", 13), ("resnet101-ibn-a", 30)])
def test_the_first_norm_of_each_block_of_layers_1_to_3_is_replaced(name, count):
    # He et al., Table 1: blocks of layers 1 to 3 are 2 + 2 + 2, 3 + 4 + 6 and 3 + 4 + 23.
    with torch.device("meta"):
        found = [path for path, module in build(name).named_modules() if isinstance(module, IBN)]
    assert len(found) == count
    assert all(path.endswith(".bn1") and path.split(".")[2] in ("layer1", "layer2", "layer3") for path in found)


def test_the_authors_files_fill_the_backbone():
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, tensor in resnet50().state_dict().items():
        halves = [key]
        if key.startswith(("layer1", "layer2", "layer3")) and ".bn1." in key:
            halves = [key.replace("bn1.", "bn1.BN.")]
            if key.endswith(("weight", "bias")):  # instance norm has no statistics
                halves.append(key.replace("bn1.", "bn1.IN."))
        shape = (tensor.numel() // 2,) if halves != [key] and tensor.ndim else tensor.shape
        for half in halves:
            state[f"module.{half}"] = torch.rand(shape, generator=generator).to(tensor.dtype)
    network = build("resnet50-ibn-a")
    report = pretrained.load_state(network, state, models.find("resnet50-ibn-a"), "test")
    assert report.prefix == "module."
    assert report.unused == ["module.fc.bias", "module.fc.weight"]
    assert not [name for name in report.missing + report.reshaped if name.startswith("backbone.")]
    norm = network.backbone.blocks.layer2[3].bn1
    assert torch.equal(norm.IN.weight, state["module.layer2.3.bn1.IN.weight"])
    assert torch.equal(norm.BN.running_var, state["module.layer2.3.bn1.BN.running_var"])


def test_a_plain_resnets_weights_are_refused():
    with pytest.raises(CheckpointError, match="of the backbone's are missing"):
        pretrained.load_state(build("resnet50-ibn-a"), resnet50().state_dict(), models.find("resnet50-ibn-a"), "test")


def test_imagenet_weights_are_a_file():
    with pytest.raises(CheckpointError, match="torchvision has no ImageNet weights of resnet50-ibn-a: expected a file"):
        pretrained.load_imagenet(build("resnet50-ibn-a"), "resnet50-ibn-a")
