"""PTL networks and their plain backbones: structure, parameter counts, and what features may depend on."""

from __future__ import annotations

import pytest
import torch
from conftest import tiny_network as tiny
from torch import Tensor, nn

from ptlreid import models
from ptlreid.errors import OptionError
from ptlreid.models.bconv import BConvCell, memory_state
from ptlreid.network_types import NetworkSpec


def spec(backbone: str, ptl: bool, classes: int = 1041, height: int = 256, width: int = 128) -> NetworkSpec:
    return NetworkSpec(backbone, ptl, "slot", classes, height, width)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# Table 1 gives whole millions (28, 35, 32, 42); docs/design.md derives these from the paper's networks.
@pytest.mark.parametrize(
    ("backbone", "ptl", "millions"),
    [("resnet50", False, 28.8), ("resnet50", True, 35.05), ("densenet161", False, 31.9), ("densenet161", True, 42.1)],
)
def test_parameter_counts_are_the_papers(backbone, ptl, millions):
    with torch.device("meta"):
        network = models.build(spec(backbone, ptl), seed=0)
    assert parameters(network) == pytest.approx(millions * 1e6, rel=0.02)


def test_the_forward_pass_is_equation_3():
    """Cells, fusions and blocks called one by one, in the order of Figure 1."""
    network = tiny().eval()
    images = torch.randn(2, 3, 64, 32)
    x = [images]
    for block in network.backbone.blocks.values():
        x.append(block(x[-1]))
    y = network.cells[0](images)
    for i in range(1, 5):
        y = network.cells[i](network.fusions[i - 1](torch.cat((x[i], y), dim=1)))
    top = torch.cat((x[5], y), dim=1)
    feature = network.head.reduce(top).mean(dim=(2, 3))  # 1×1 convolution, then the average over positions
    torch.testing.assert_close(network(images).embedding, feature, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("backbone", ["tiny", "resnet18"])
def test_cell_0_is_a_7x7_convolution_and_the_others_are_3x3(backbone):
    # docs/networks.md: cell 0 takes the image to the first map's size in one convolution, as ResNet's stem does.
    network = models.build(spec(backbone, True), seed=0)
    assert [cell.gates.kernel_size for cell in network.cells] == [(7, 7), *[(3, 3)] * 4]


def test_there_are_logits_in_training_and_none_in_evaluation():
    network = tiny(classes=7)
    output = network(torch.randn(2, 3, 64, 32))
    assert output.embedding.shape == (2, 32)
    assert {name: tuple(logits.shape) for name, logits in output.logits.items()} == {"pid": (2, 7)}
    assert network.eval()(torch.randn(2, 3, 64, 32)).logits == {}


@pytest.mark.parametrize("memory", ["slot", "mean", "none"])
def test_gradients_reach_every_weight_of_every_cell(memory):
    network = tiny(memory)
    for _ in range(2):
        network.zero_grad()
        output = network(torch.randn(4, 3, 64, 32))
        nn.functional.cross_entropy(output.logits["pid"], torch.arange(4)).backward()
    for name, cell in network.named_modules():
        if isinstance(cell, BConvCell):
            gates = cell.gates.weight.grad.chunk(4)
            used = gates[:3] if memory == "none" else gates  # with nothing carried, there is nothing to forget
            assert all(gate.abs().sum() > 0 for gate in used), name


def features(network: nn.Module, images: Tensor, batch_size: int) -> Tensor:
    network.eval()
    with torch.inference_mode():
        return torch.cat([network(part).embedding for part in images.split(batch_size)])


@pytest.mark.parametrize("memory", [None, "slot", "mean", "none"])
def test_features_depend_on_weights_and_image_alone(memory):
    network = tiny(memory)
    images = torch.randn(64, 3, 64, 32)
    network.train()
    network(torch.randn(4, 3, 64, 32))  # fills the latent states, and moves the batch statistics
    states = {name: state.clone() for name, state in memory_state(network).items()}
    expected = features(network, images, 64)
    order = torch.randperm(64)
    for batch_size in (1, 7):
        torch.testing.assert_close(features(network, images, batch_size), expected, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(features(network, images[order], 16), expected[order], atol=1e-6, rtol=1e-4)
    after = memory_state(network)
    assert states.keys() == after.keys()
    assert all(torch.equal(states[name], after[name]) for name in states)
    torch.testing.assert_close(features(network, images, 64), expected, atol=0, rtol=0)


def test_kinds_of_memory_differ_in_training_and_agree_in_evaluation():
    networks = {memory: tiny(memory) for memory in ("slot", "mean", "none")}
    batches = torch.randn(2, 4, 3, 64, 32)
    trained, evaluated = {}, {}
    for memory, network in networks.items():
        network(batches[0])
        trained[memory] = network(batches[1]).embedding.detach()
        network.load_state_dict(tiny(memory).state_dict())
        evaluated[memory] = features(network, batches[1], 4)
    for one, other in (("slot", "mean"), ("slot", "none"), ("mean", "none")):
        assert not torch.allclose(trained[one], trained[other])
        assert torch.equal(evaluated[one], evaluated[other])


def test_the_same_seed_builds_the_same_network_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, same, other = (models.build(spec("resnet18", True, 3, 64, 32), seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["head.reduce.weight"], other["head.reduce.weight"])


def test_an_image_size_that_the_strides_do_not_divide_is_refused():
    with pytest.raises(OptionError, match=r"--height 100 does not suit resnet18: expected a multiple of 32\. Use 96"):
        models.build(spec("resnet18", True, height=100), seed=0)


def test_an_unknown_backbone_gets_a_suggestion():
    with pytest.raises(OptionError, match="Did you mean 'densenet161'"):
        models.find("densnet161")


def test_cells_and_fusions_start_by_kaiming_normal_with_zero_bias():
    network = models.build(spec("resnet50", True), seed=0)
    layers = [network.cells[4].gates, network.fusions[3][0]]
    for layer in layers:
        fan_in = layer.weight[0].numel()
        assert layer.weight.mean().item() == pytest.approx(0, abs=1e-3)
        assert layer.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.02)
    assert not layers[0].bias.any()
    norm = network.fusions[3][1]
    assert norm.weight.mean().item() == pytest.approx(1, abs=0.01)
    assert norm.weight.std().item() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize("ptl", [False, True])
def test_mgn_starts_as_in_the_released_code(ptl):
    head = models.build(spec("mgn", ptl, classes=751, height=384), seed=0).head
    reduction, norm, _ = head.reduce
    assert reduction.weight.std().item() == pytest.approx((2 / reduction.in_channels) ** 0.5, rel=0.02)
    assert norm.weight.std().item() == pytest.approx(0.02, rel=0.2)
    classifier = head.classifiers["thirds-2"]
    assert classifier.weight.std().item() == pytest.approx((2 / 256) ** 0.5, rel=0.02)  # 256 channels in
    assert not classifier.bias.any()
