"""The head of plain and PTL networks: pooling, neck, classifier, feature width, and the stride of the last block."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ptlreid import models
from ptlreid.errors import OptionError
from ptlreid.models.head import GeM, Head, convolution
from ptlreid.models.weights import read_weights_header, save
from ptlreid.network_types import NetworkSpec, Readout

BOT = {"last_stride": 1, "neck": "bn", "classifier": "linear", "feature_width": 0}


def spec(name: str = "tiny", *, ptl: bool = False, classes: int = 3, **head: object) -> NetworkSpec:
    return NetworkSpec(name, ptl, "slot", classes, 64, 32, **head)


def make_head(channels: int = 2, **head: object) -> Head:
    return Head(channels, spec(**head), default_width=4, reduction=convolution)


def test_gem_is_the_generalised_mean_over_positions():
    pool = GeM()
    maps = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[-1.0, 0.0], [0.0, 2.0]]]])
    # p = 3: ((1 + 8 + 27 + 64) / 4)^(1/3) = 25^(1/3); negative values count as nothing: (8 / 4)^(1/3).
    torch.testing.assert_close(pool(maps).flatten(), torch.tensor([25 ** (1 / 3), 2 ** (1 / 3)]), rtol=1e-5, atol=0)
    with torch.no_grad():
        pool.power.fill_(1.0)
    torch.testing.assert_close(pool(maps.abs()), maps.abs().mean(dim=(2, 3), keepdim=True))
    pool(maps).sum().backward()
    assert pool.power.grad.abs() > 0


@pytest.mark.parametrize(("pool", "expected"), [("avg", [2.5, 0.25]), ("max", [4.0, 2.0])])
def test_the_feature_without_reduction_is_the_pooled_map(pool, expected):
    head = make_head(pool=pool, feature_width=0).eval()
    maps = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[-1.0, 0.0], [0.0, 2.0]]]])
    assert head.width == 2
    assert head(maps).embedding.tolist() == [expected]


@pytest.mark.parametrize(("given", "width"), [(None, 4), (0, 2), (7, 7)])
def test_the_feature_has_the_stated_width(given, width):
    head = make_head(feature_width=given)
    assert head.width == width == head(torch.rand(2, 2, 3, 3)).embedding.shape[1]


def test_with_a_neck_the_metric_vectors_are_before_it_and_all_else_after_it():
    head = make_head(neck="bn", classifier="linear", feature_width=0)
    maps = torch.tensor([[3.0, 1.0], [5.0, 1.0]])[..., None, None]
    output = head(maps)
    assert output.metric["global"].tolist() == [[3.0, 1.0], [5.0, 1.0]]
    # Batch norm of 3 and 5: mean 4, variance 1.
    torch.testing.assert_close(output.embedding, torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), rtol=0, atol=1e-5)
    torch.testing.assert_close(output.logits["pid"], output.embedding @ head.classifier.weight.T)
    assert head.classifier.bias is None
    sum(term.sum() for term in (*output.logits.values(), *output.metric.values())).backward()
    assert head.neck.bias.grad is None and head.neck.weight.grad is not None


@pytest.mark.parametrize(("neck", "normalize"), [("none", False), ("bn", True)])
def test_features_of_a_neck_are_compared_by_their_direction(neck, normalize):
    assert models.build(spec(neck=neck), seed=0).readout == Readout(normalize=normalize)


@pytest.mark.parametrize("ptl", [False, True])
@pytest.mark.parametrize("name", ["tiny", "resnet18", "densenet121", "mobilenet-v2", "mobilenet-v3-small"])
def test_last_stride_1_keeps_the_size_of_the_map_and_every_weight(name, ptl):
    usual, kept = (models.build(spec(name, ptl=ptl, last_stride=stride), seed=1).eval() for stride in (2, 1))
    ours, theirs = kept.state_dict(), usual.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    with torch.inference_mode():
        *_, fourth, top = kept.backbone(torch.zeros(1, 3, 64, 32))
        assert top.shape[2:] == fourth.shape[2:] == (4, 2)
        assert usual.backbone(torch.zeros(1, 3, 64, 32))[-1].shape[2:] == (2, 1)
        assert kept(torch.zeros(1, 3, 64, 32)).embedding.shape == usual(torch.zeros(1, 3, 64, 32)).embedding.shape
    assert kept.backbone.strides[-1] == 1


def test_a_block_that_cuts_patches_keeps_its_stride():
    with pytest.raises(OptionError, match=r"last_stride = 1 does not suit convnext-tiny, .* patches of 2×2"):
        models.build(spec("convnext-tiny", last_stride=1), seed=0)


@pytest.mark.parametrize(
    "head", [{"neck": "bn"}, {"pool": "avg", "feature_width": 64}, {"last_stride": 1}, {"classifier": "linear"}]
)
def test_mgn_refuses_another_head(head):
    *_, name = head
    with pytest.raises(OptionError, match=f"{name} = .* does not suit mgn"):
        models.build(NetworkSpec("mgn", False, "slot", 3, 96, 32, **head), seed=0)


@pytest.mark.parametrize("ptl", [False, True])
@pytest.mark.parametrize("head", [BOT, {"pool": "gem", "neck": "bn"}, {"pool": "max", "classifier": "linear"}])
def test_weights_state_the_head_and_rebuild_it(head, ptl, tmp_path):
    described = spec(ptl=ptl, **head)
    network = models.build(described, seed=3)
    network(torch.rand(4, 3, 64, 32))
    save(network, described, tmp_path / "weights.safetensors")
    found = read_weights_header(tmp_path / "weights.safetensors")
    assert found.spec == described and found.readout == network.readout
    images = torch.rand(2, 3, 64, 32)
    with torch.inference_mode():
        assert torch.equal(found.build().features(images), network.eval().features(images))


def test_the_default_head_is_described_as_in_version_0_1():
    keys = {"backbone", "ptl", "memory", "num_classes", "height", "width"}
    assert spec().describe().keys() == keys
    assert spec(**BOT).describe().keys() == keys | BOT.keys()


def test_the_papers_classifier_is_the_default():
    layers = [type(layer) for layer in make_head().classifier]
    assert layers == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]


@pytest.mark.parametrize("ptl", [False, True])
def test_every_head_overfits_four_images(ptl):
    """As `test_overfit` does for backbones: small images of four identities, told apart after a few updates."""
    torch.manual_seed(0)
    network = models.build(spec(ptl=ptl, classes=4, pool="gem", **BOT), seed=0).train()
    images, labels = torch.randn(4, 3, 64, 32), torch.arange(4)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(images).logits["pid"], labels)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
