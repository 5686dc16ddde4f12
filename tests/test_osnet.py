"""OSNet and OSNet-AIN: the papers' sizes, and the features of the files that their authors publish."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ptlreid import models
from ptlreid.errors import CheckpointError
from ptlreid.models import pretrained
from ptlreid.models.summary import summarize
from ptlreid.network_types import NetworkSpec

CHANNELS = (64, 256, 384, 512)
DEPTHS = {"a": 1, "b": 2, "c": 3, "d": 4}  # of the streams, by their letter in OSNet's names
# Bottlenecks with instance norm, by their name in OSNet-AIN's files.
AIN = ("conv2.0", "conv2.1", "conv3.1", "conv4.0")


def spec(name: str, *, ptl: bool = False) -> NetworkSpec:
    return NetworkSpec(name, ptl, "slot", 3, 64, 32)


class Published:
    """The state of a published file: names and shapes as torchreid writes them, with random numbers."""

    def __init__(self, multiplier: float, *, ain: bool = False) -> None:
        self.ain, self.generator = ain, torch.Generator().manual_seed(0)
        self.state: dict[str, Tensor] = {}
        stem, *pairs = (int(multiplier * channels) for channels in CHANNELS)
        self._convolution("conv1.conv", stem, 3, 7)
        self._norm("conv1.bn", stem, instance=ain)
        for number, (below, channels) in enumerate(zip((stem, *pairs), pairs, strict=False), start=2):
            self._bottleneck(f"conv{number}.0", below, channels)
            self._bottleneck(f"conv{number}.1", channels, channels)
            if number < 4:
                self._pointwise(f"pool{number}.0" if ain else f"conv{number}.2.0", channels, channels)
        self._pointwise("conv5", pairs[-1], pairs[-1])
        self._draw("fc.0.weight", 512, pairs[-1])
        self._draw("fc.0.bias", 512)
        self._norm("fc.1", 512)
        self._draw("classifier.weight", 7, 512)
        self._draw("classifier.bias", 7)

    def streams(self, block: str) -> list[list[str]]:
        """The names of the light convolutions of each stream, in order."""
        if self.ain:
            return [[f"{block}.conv2.{t - 1}.layers.{i}" for i in range(t)] for t in DEPTHS.values()]
        names = {letter: [f"{block}.conv2{letter}.{i}" for i in range(t)] for letter, t in DEPTHS.items()}
        return list((names | {"a": [f"{block}.conv2a"]}).values())

    def _bottleneck(self, block: str, below: int, channels: int) -> None:
        inner = channels // 4
        self._pointwise(f"{block}.conv1", below, inner)
        for name in chain(*self.streams(block)):
            self._convolution(f"{name}.conv1", inner, inner, 1)
            self._convolution(f"{name}.conv2", inner, 1, 3)
            self._norm(f"{name}.bn", inner)
        for name, shape in {"fc1": (inner // 16, inner), "fc2": (inner, inner // 16)}.items():
            self._convolution(f"{block}.gate.{name}", *shape, 1)
            self._draw(f"{block}.gate.{name}.bias", shape[0])
        self._convolution(f"{block}.conv3.conv", channels, inner, 1)
        instance = self.ain and block in AIN
        self._norm(f"{block}.IN" if instance else f"{block}.conv3.bn", channels, instance=instance)
        if below != channels:
            self._pointwise(f"{block}.downsample", below, channels)

    def _pointwise(self, name: str, below: int, channels: int) -> None:
        self._convolution(f"{name}.conv", channels, below, 1)
        self._norm(f"{name}.bn", channels)

    def _convolution(self, name: str, channels: int, below: int, size: int) -> None:
        self._draw(f"{name}.weight", channels, below, size, size)

    def _norm(self, name: str, channels: int, *, instance: bool = False) -> None:
        for tensor in ("weight", "bias") if instance else ("weight", "bias", "running_mean", "running_var"):
            self._draw(f"{name}.{tensor}", channels)

    def _draw(self, name: str, *shape: int) -> None:
        drawn = torch.rand(shape, generator=self.generator) + 0.5
        fan_in = max(1, drawn[0].numel())
        signed = len(shape) > 1 or name.endswith(("bias", "mean"))
        self.state[name] = (drawn - 1) * (12 / fan_in) ** 0.5 if signed else drawn

    def features(self, images: Tensor) -> Tensor:
        """What torchreid returns in eval mode, step by step from the paper."""
        s, x = self.state, images
        x = F.conv2d(x, s["conv1.conv.weight"], stride=2, padding=3)
        x = F.max_pool2d(self.norm(x, "conv1.bn").relu(), 3, stride=2, padding=1)
        for number in (2, 3, 4):
            x = self.bottleneck(self.bottleneck(x, f"conv{number}.0"), f"conv{number}.1")
            if number < 4:
                x = self.pointwise(x, f"pool{number}.0" if self.ain else f"conv{number}.2.0").relu()
                x = F.avg_pool2d(x, 2)
        x = self.pointwise(x, "conv5").relu().mean(dim=(2, 3))
        x = F.linear(x, s["fc.0.weight"], s["fc.0.bias"])
        return self.norm(x, "fc.1").relu()

    def bottleneck(self, x: Tensor, block: str) -> Tensor:
        s, narrow = self.state, self.pointwise(x, f"{block}.conv1").relu()
        total = torch.zeros_like(narrow)
        for names in self.streams(block):
            y = narrow
            for name in names:
                y = F.conv2d(y, s[f"{name}.conv1.weight"])
                y = F.conv2d(y, s[f"{name}.conv2.weight"], padding=1, groups=y.shape[1])
                y = self.norm(y, f"{name}.bn").relu()
            gate = y.mean(dim=(2, 3), keepdim=True)
            gate = F.conv2d(gate, s[f"{block}.gate.fc1.weight"], s[f"{block}.gate.fc1.bias"]).relu()
            total += y * F.conv2d(gate, s[f"{block}.gate.fc2.weight"], s[f"{block}.gate.fc2.bias"]).sigmoid()
        last = f"{block}.IN" if f"{block}.IN.weight" in s else f"{block}.conv3.bn"
        total = self.norm(F.conv2d(total, s[f"{block}.conv3.conv.weight"]), last)
        return (
            total + (self.pointwise(x, f"{block}.downsample") if f"{block}.downsample.conv.weight" in s else x)
        ).relu()

    def pointwise(self, x: Tensor, name: str) -> Tensor:
        return self.norm(F.conv2d(x, self.state[f"{name}.conv.weight"]), f"{name}.bn")

    def norm(self, x: Tensor, name: str) -> Tensor:
        s = self.state
        if f"{name}.running_mean" in s:
            statistics = (s[f"{name}.running_mean"], s[f"{name}.running_var"])
            return F.batch_norm(x, *statistics, s[f"{name}.weight"], s[f"{name}.bias"])
        return F.instance_norm(x, weight=s[f"{name}.weight"], bias=s[f"{name}.bias"])


# Zhou et al. 2019, Table 1, and the table of width multipliers: millions of parameters and of multiply-adds at 256×128.
@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("osnet-x1-0", 2.2, 978.9),
        ("osnet-x0-75", 1.3, 571.8),
        ("osnet-x0-5", 0.6, 272.9),
        ("osnet-x0-25", 0.2, 82.3),
        ("osnet-ain-x1-0", 2.2, 978.9),  # instance norm has the weights of batch norm
    ],
)
def test_sizes_are_the_papers(name, params, macs):
    found = summarize(name, ptl=False, num_classes=4)
    # Our classifier has layers of 512 × 512 twice, each with batch norm, and of 512 × 4, all with bias.
    assert (found.params - 2 * (512 * 512 + 3 * 512) - 513 * 4) / 1e6 == pytest.approx(params, abs=0.05)
    assert (found.macs - 2 * 512 * 512 - 512 * 4) / 1e6 == pytest.approx(macs, abs=0.06)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("osnet-x1-0", Published(1.0)),
        ("osnet-x0-75", Published(0.75)),
        ("osnet-x0-5", Published(0.5)),
        ("osnet-x0-25", Published(0.25)),
        ("osnet-ain-x1-0", Published(1.0, ain=True)),
    ],
)
def test_a_published_file_gives_its_features(name, published):
    network = models.build(spec(name), seed=1).eval()
    state = {f"state_dict.module.{key}": value for key, value in published.state.items()}
    report = pretrained.load_state(network, state, models.find(name), "test")
    assert report.unused == [f"state_dict.module.classifier.{tensor}" for tensor in ("bias", "weight")]
    assert all(key.startswith("head.classifier.") or "num_batches" in key for key in report.missing)
    images = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = published.features(images)
        assert expected.std(dim=0).mean() > 1e-3
        torch.testing.assert_close(network.features(images), expected)


def test_with_cells_the_fully_connected_layer_is_new_and_the_backbone_is_taken():
    network = models.build(spec("osnet-x0-25", ptl=True), seed=1)
    report = pretrained.load_state(network, Published(0.25).state, models.find("osnet-x0-25"), "test")
    assert report.reshaped == ["head.reduce.linear.weight"]
    assert "newly initialised 1×1 reduction" in str(report)


def test_another_width_is_refused():
    network = models.build(spec("osnet-x0-5"), seed=1)
    with pytest.raises(CheckpointError, match=r"w\.pth: .* of the backbone's are missing or of another shape"):
        pretrained.load_state(network, Published(0.25).state, models.find("osnet-x0-5"), "w.pth")


def test_imagenet_weights_must_be_given_as_a_file():
    with pytest.raises(CheckpointError, match="torchvision has no ImageNet weights of OSNet: expected a file"):
        pretrained.load_imagenet(models.build(spec("osnet-x0-25"), seed=0), "osnet-x0-25")
