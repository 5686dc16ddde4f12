"""Every backbone, with and without cells: channels, strides, weights and features."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from ptlreid import models
from ptlreid.errors import OptionError
from ptlreid.models import mgn, pretrained
from ptlreid.models.bconv import BConvCell, memory_state
from ptlreid.models.staged import Staged
from ptlreid.models.summary import summarize
from ptlreid.network_types import NetworkSpec, Readout

NAMES = [name for name in models.names() if not name.startswith("tiny")]  # those are the tests' own
LARGE = {"densenet161", "densenet169", "densenet201", "mgn", "resnet101", "resnet101-ibn-a", "resnet152"}
NAMES_BY_SIZE = [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in NAMES]


def spec(name: str, ptl: bool, memory: str = "slot", classes: int = 4, size: tuple[int, int] = (96, 32)) -> NetworkSpec:
    return NetworkSpec(name, ptl, memory, classes, *size)


def parameters(name: str, ptl: bool, classes: int) -> float:
    return summarize(name, ptl, classes).params / 1e6


# Table 1 gives whole millions (28, 35, 32, 42 at MSMT17's 1,041 classes); MGN's 66 is in section 5.2.
@pytest.mark.parametrize(
    ("name", "ptl", "classes", "millions"),
    [
        ("resnet50", False, 1041, 28.8),
        ("resnet50", True, 1041, 35.05),
        ("densenet161", False, 1041, 31.9),
        ("densenet161", True, 1041, 42.1),
        ("mgn", False, 751, 66.7),
    ],
)
def test_parameter_counts_are_the_papers(name, ptl, classes, millions):
    assert parameters(name, ptl, classes) == pytest.approx(millions, rel=0.02)


def test_multiply_adds_of_the_backbone_are_the_published_ones():
    # torchvision's page of weights gives 4.09 GFLOPS (multiply-adds) for ResNet-50 at 224×224; ours see 256×128, and
    # have no `fc` of 2048 × 1000 but a reduction and a classifier of 2048 × 1024, 1024 × 1024 twice, 1024 × 4.
    ours = summarize("resnet50", ptl=False, num_classes=4).macs
    expected = (4.09e9 - 2.048e6) * (256 * 128) / (224 * 224) + 2048 * 1024 + 2 * 1024**2 + 4096
    assert ours == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "mgn"])
def test_conv_blocks_have_the_stated_channels_and_strides(name):
    backbone = models.build(spec(name, ptl=False), seed=0).backbone.eval()
    assert isinstance(backbone, Staged)
    height, width = 96, 64
    with torch.inference_mode():
        maps = backbone(torch.zeros(1, 3, height, width))
    for x, channels, stride in zip(maps, backbone.channels, backbone.strides, strict=True):
        height, width = height // stride, width // stride
        assert x.shape == (1, channels, height, width)


@pytest.mark.parametrize("ptl", [False, True])
@pytest.mark.parametrize("name", NAMES_BY_SIZE)
def test_features_depend_on_weights_and_image_alone(name, ptl):
    network = models.build(spec(name, ptl), seed=1)
    generator = torch.Generator().manual_seed(0)
    # Batch norm statistics that fit the weights, so that features differ; and latent states that are not zero.
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean over batches
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(2):
            network(torch.randn(4, 3, 96, 32, generator=generator))
    states = {cell: state.clone() for cell, state in memory_state(network).items()}
    assert bool(states) is ptl
    images = torch.randn(8, 3, 96, 32, generator=generator)
    network.eval()
    with torch.inference_mode():
        together = network.features(images)
        alone = torch.cat([network.features(image[None]) for image in images])
        sevens = torch.cat([network.features(part) for part in images.flip(0).split(7)]).flip(0)
        again = network.features(images)
    # Rounding grows on its way through random weights; a leak would change features by as much as images differ.
    spread = together.std(dim=0).mean().item()
    assert spread > 1e-3 * together.abs().mean().item()
    for other in (alone, sevens):
        torch.testing.assert_close(other, together, atol=0.02 * spread, rtol=0)
    assert torch.equal(again, together)
    assert together.shape == (8, network.feature_width)
    assert all(torch.equal(state, states[cell]) for cell, state in memory_state(network).items())


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_weight_of_every_cell(name):
    network = models.build(spec(name, ptl=True), seed=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(2):
            network.zero_grad()
            output = network(torch.randn(4, 3, 96, 32))
            heads = [nn.functional.cross_entropy(logits, torch.arange(4)) for logits in output.logits.values()]
            torch.stack(heads).mean().backward()
    cells = {key: module for key, module in network.named_modules() if isinstance(module, BConvCell)}
    assert len(cells) == (8 if name == "mgn" else 5)
    for key, cell in cells.items():
        assert all(gate.abs().sum() > 0 for gate in cell.gates.weight.grad.chunk(4)), key


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("osnet") and "ibn" not in name])
def test_torchvisions_weights_fill_the_whole_backbone(name):
    """Every tensor of the backbone is loaded from torchvision's network, and gives the same map."""
    theirs = torchvision.models.get_model("resnet50" if name == "mgn" else name.replace("-", "_"), weights=None).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.05)
    network = models.build(spec(name, ptl=True), seed=1)
    report = pretrained.load_state(network, theirs.state_dict(), models.find(name), "test")
    assert not [key for key in report.missing + report.reshaped if key.startswith("backbone.")]
    assert all(key.startswith(("fc.", "classifier.")) for key in report.unused)
    images = torch.randn(1, 3, 96, 32)
    with torch.inference_mode():
        tops = network.eval().backbone(images)
        top = tops[1]["global"] if name == "mgn" else tops[-1]
        body = theirs.features if hasattr(theirs, "features") else nn.Sequential(*list(theirs.children())[:-2])
        expected = body(images)
        expected = expected.relu() if name.startswith("densenet") else expected
    torch.testing.assert_close(top, expected)


def test_mgn_pools_whole_halves_and_thirds_by_their_maximum():
    head = mgn.MGNHead(2, 3).eval()
    head.reduce = nn.Identity()
    top = torch.arange(12.0).view(1, 1, 6, 2).repeat(1, 2, 1, 1)  # rows 0-1, 2-3, ..., 10-11
    embedding = head(dict.fromkeys(mgn.PARTS, top)).embedding.view(8, 2)[:, 0]
    # global 11; whole 11, halves 5 and 11; whole 11, thirds 3, 7 and 11.
    assert embedding.tolist() == [11, 11, 5, 11, 11, 3, 7, 11]


def test_each_part_of_mgn_has_its_own_classifier():
    head = mgn.MGNHead(mgn.PART_WIDTH, 2)
    head.reduce = nn.Identity()
    for number, classifier in enumerate(head.classifiers.values()):
        nn.init.zeros_(classifier.weight)
        nn.init.constant_(classifier.bias, number)
    logits = head(dict.fromkeys(mgn.PARTS, torch.zeros(1, mgn.PART_WIDTH, 6, 2))).logits
    assert {name: values.unique().tolist() for name, values in logits.items()} == {
        name: [number]
        for number, name in enumerate(
            ["global", "halves", "halves-1", "halves-2", "thirds", "thirds-1", "thirds-2", "thirds-3"]
        )
    }


def test_mgn_keeps_the_map_size_in_the_part_branches_only():
    with torch.inference_mode():
        _, tops = mgn.MGNBackbone().eval()(torch.zeros(1, 3, 384, 128))
    assert {branch: tuple(top.shape) for branch, top in tops.items()} == {
        "global": (1, 2048, 12, 4),
        "halves": (1, 2048, 24, 8),
        "thirds": (1, 2048, 24, 8),
    }


def test_mgn_trains_eight_classifiers_and_three_global_features():
    output = models.build(spec("mgn", ptl=True, classes=5), seed=0)(torch.randn(2, 3, 96, 32))
    assert len(output.logits) == 8
    assert all(logits.shape == (2, 5) for logits in output.logits.values())
    assert {name: tuple(part.shape) for name, part in output.metric.items()} == {
        "global": (2, 256),
        "halves": (2, 256),
        "thirds": (2, 256),
    }
    assert output.embedding.shape == (2, 2048)


@pytest.mark.parametrize(("height", "message"), [(256, "expected a multiple of 96. Use 288"), (320, "Use 288")])
def test_mgn_refuses_a_height_that_does_not_divide(height, message):
    with pytest.raises(OptionError, match=message):
        models.build(spec("mgn", ptl=False, size=(height, 128)), seed=0)


def test_mgn_reads_features_as_the_normalised_sum_of_image_and_mirror():
    network = models.build(spec("mgn", ptl=False), seed=0).eval()
    images = torch.randn(2, 3, 96, 32)
    with torch.inference_mode():
        total = network(images).embedding + network(images.flip(3)).embedding
        torch.testing.assert_close(network.features(images), total / total.norm(dim=1, keepdim=True))
        torch.testing.assert_close(network.features(images, Readout()), network(images).embedding)


def test_features_in_mixed_precision_are_float32_and_close():
    # Not bf16: on CPUs with AMX, torch's bf16 convolutions give wrong values (pytorch issue 169688).
    network = models.build(spec("resnet18", ptl=True), seed=0).eval()
    images = torch.randn(2, 3, 96, 32)
    with torch.inference_mode():
        exact = network.features(images, Readout())
        mixed = network.features(images, Readout(amp="fp16", channels_last=True))
    assert mixed.dtype == torch.float32
    assert not torch.equal(mixed, exact)
    assert nn.functional.cosine_similarity(mixed, exact).min() > 0.98
