"""Weights of other programs, by the names in their files: which tensors are loaded, and which are not."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

import numpy as np
import pytest
import timm
import torch
import torchvision
from test_transformer_files import solider
from torch import Tensor

from ptlreid import models
from ptlreid.errors import CheckpointError
from ptlreid.models import pretrained
from ptlreid.network_types import NetworkSpec

State = dict[str, Tensor]


def below(prefix: str, state: State) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


def neck(prefix: str, width: int = 512) -> State:
    """Batch norm of that width, with numbers of its own in every tensor."""
    values = torch.arange(1.0, width + 1)
    names = {"weight": values, "bias": -values, "running_mean": values / 7, "running_var": values + 3}
    return below(prefix, {**names, "num_batches_tracked": torch.tensor(5)})


def numbered(state: State, layers: list[str]) -> State:
    """The names as `nn.Sequential(*layers)` has them."""
    parts = {key: key.split(".", 1) for key in state if not key.startswith("fc.")}
    return {f"{layers.index(layer)}.{rest}": state[key] for key, (layer, rest) in parts.items()}


LAYERS = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"]
CLASSIFIER = torch.ones(9, 512)

# By the program: the file, and where the neck is in it.
FILES: dict[str, tuple[Callable[[State], dict[str, object]], str]] = {
    "bag of tricks": (
        lambda state: below("base.", state) | neck("bottleneck.") | {"classifier.weight": CLASSIFIER},
        "bottleneck.",
    ),
    "fast-reid": (
        lambda state: {
            "model": below("backbone.", state)
            | neck("heads.bottleneck.0.")
            | {"heads.weight": CLASSIFIER, "pixel_mean": torch.ones(1, 3, 1, 1), "pixel_std": torch.ones(1, 3, 1, 1)},
            "iteration": 7,
        },
        "model.heads.bottleneck.0.",
    ),
    "fast-reid 0.1": (
        lambda state: {
            "model": below("backbone.", state) | neck("heads.bnneck.") | {"heads.classifier.weight": CLASSIFIER}
        },
        "model.heads.bnneck.",
    ),
    "SpCL": (
        lambda state: {
            "state_dict": below("module.base.", numbered(state, LAYERS)) | neck("module.feat_bn."),
            "epoch": 3,
            "best_mAP": np.float64(0.7),
        },
        "state_dict.module.feat_bn.",
    ),
    "MMT": (  # its stem has no ReLU, so that the layers after it have other numbers
        lambda state: {
            "state_dict": below("module.base.", numbered(state, [layer for layer in LAYERS if layer != "relu"]))
            | neck("module.feat_bn.")
            | {"module.classifier.weight": CLASSIFIER},
        },
        "state_dict.module.feat_bn.",
    ),
    "torchreid": (
        lambda state: {
            "state_dict": below("module.", state) | {"module.classifier.weight": CLASSIFIER},
            "rank1": np.float32(0.9),
            "optimizer": {"state": {0: {"step": torch.tensor(1)}}},
        },
        "",
    ),
    "LUPerson": (lambda state: state, ""),
    "MoCo": (
        lambda state: {
            "arch": "resnet18",
            "state_dict": below("module.encoder_q.", state) | below("module.encoder_k.", state),
        },
        "",
    ),
}


@pytest.fixture(scope="module")
def resnet() -> State:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        state = torchvision.models.resnet18(weights=None).state_dict()
    return {key: torch.rand_like(value) + 1 if value.dim() else value for key, value in state.items()}


def build(**head: object):
    return models.build(NetworkSpec("resnet18", False, "slot", 9, 64, 32, **head), seed=1)


@pytest.mark.parametrize("program", FILES)
def test_the_backbone_is_taken_and_the_neck_if_there_is_one(tmp_path, resnet, program):
    make, place = FILES[program]
    torch.save(make(resnet), tmp_path / "theirs.pth")
    network = build(neck="bn", feature_width=0, classifier="linear")
    classifier = network.head.classifier.weight.clone()
    report = pretrained.load_file(network, tmp_path / "theirs.pth", "resnet18")
    own = network.state_dict()
    rename = models.find("resnet18").rename
    assert all(torch.equal(own[name], value) for key, value in resnet.items() for name in rename(key))
    expected = neck("head.neck.") if place else build(neck="bn", feature_width=0, classifier="linear").state_dict()
    assert all(torch.equal(own[name], expected[name]) for name in neck("head.neck."))
    assert report.neck == place
    assert f" and {place}*, " in str(report) or not place
    # Its identities are not those of another training.
    assert torch.equal(network.head.classifier.weight, classifier)
    assert "head.classifier.weight" in report.missing


@pytest.mark.parametrize("program", FILES)
def test_a_network_without_neck_takes_the_backbone_alone(tmp_path, resnet, program):
    make, place = FILES[program]
    torch.save(make(resnet), tmp_path / "theirs.pth")
    report = pretrained.load_file(build(), tmp_path / "theirs.pth", "resnet18")
    assert report.neck == ""
    assert not [name for name in report.missing + report.reshaped if name.startswith("backbone.")]
    assert f"{place}weight" in report.unused or not place


def test_a_neck_of_another_width_is_new(resnet):
    network = build(neck="bn", feature_width=0)
    state = below("base.", resnet) | neck("bottleneck.", 256)
    report = pretrained.load_state(network, state, models.find("resnet18"), "test")
    assert report.neck == ""
    assert "head.neck.running_mean" in report.missing
    assert "bottleneck.running_mean" in report.unused


def test_own_weights_have_their_own_neck():
    start = build(neck="bn", feature_width=0)
    start.load_state_dict(start.state_dict() | neck("head.neck."))
    network = build(neck="bn", feature_width=0)
    report = pretrained.load_state(network, start.state_dict(), models.find("resnet18"), "test")
    assert (report.missing, report.unused, report.neck) == ([], [], "")
    assert torch.equal(network.head.neck.running_mean, start.head.neck.running_mean)


def test_the_branches_of_fast_reids_mgn_are_taken_and_its_heads_are_not():
    """Its heads have a reduction each, where ours share one."""
    net = torchvision.models.resnet50(weights=None)
    layer3, layer4 = net.layer3, net.layer4
    trunk = torch.nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2, layer3[0])
    state = below("model.backbone.", trunk.state_dict())
    expected = {}
    for number, branch in enumerate(("global", "halves", "thirds"), start=1):
        parts = torch.nn.Sequential(torch.nn.Sequential(*layer3[1:]), layer4).state_dict()
        parts = {key: torch.full_like(value, number) for key, value in parts.items()}
        state |= below(f"model.b{number}.", parts) | {
            f"model.b{number}_head.bottleneck.0.weight": torch.ones(256, 2048)
        }
        # Ours keep torchvision's numbers in layer 3, whose first block is in the trunk.
        expected[branch] = {
            (f"0.{int(key[2]) + 1}{key[3:]}" if key.startswith("0.") else key): value for key, value in parts.items()
        }
    network = models.build(NetworkSpec("mgn", False, "slot", 4, 96, 32), seed=1)
    report = pretrained.load_state(network, state, models.find("mgn"), "test")
    assert {name.split(".")[0] for name in report.missing} == {"head"}
    assert report.unused == [f"model.b{number}_head.bottleneck.0.weight" for number in (1, 2, 3)]
    for branch, parts in expected.items():
        found = network.backbone.tops[branch].state_dict()
        assert found.keys() == parts.keys()
        assert all(torch.equal(found[key], value) for key, value in parts.items())
    images = torch.randn(1, 3, 96, 32)
    with torch.inference_mode():
        maps, _ = network.eval().backbone(images)
        torch.testing.assert_close(maps[-1], trunk.eval()(images))


def test_options_next_to_the_weights_are_no_code(tmp_path, resnet):
    """As DINO saves them, and those that are trained by it, such as TransReID-SSL and SOLIDER."""
    content = {"teacher": below("backbone.", resnet), "args": Namespace(arch="x", lr=0.1), "epoch": 2}
    torch.save(content, tmp_path / "dino.pth")
    report = pretrained.load_file(build(), tmp_path / "dino.pth", "resnet18")
    assert report.prefix == "teacher.backbone."


@pytest.mark.parametrize("order", [("student.module", "teacher"), ("teacher", "student.module")])
def test_of_student_and_teacher_the_teacher_is_taken(resnet, order):
    state = below(f"{order[0]}.backbone.", resnet) | below(f"{order[1]}.backbone.", resnet)
    report = pretrained.load_state(build(), state, models.find("resnet18"), "test")
    assert report.prefix == "teacher.backbone."


def vit(prefix: str) -> tuple[State, State]:
    """timm's names with random numbers: below the prefix, and as they are."""
    net = timm.create_model("test_vit", img_size=(64, 32), num_classes=0)
    state = {key: torch.rand_like(value) for key, value in net.state_dict().items()}
    return below(prefix, state), state


VITS: dict[str, tuple[str, Callable[[State], State]]] = {
    "TransReID-SSL": ("teacher.backbone.", lambda state: state | {"teacher.head.mlp.0.weight": torch.ones(2, 64)}),
    "TransReID-SSL, fine-tuned": (
        "base.",
        lambda state: state | neck("bottleneck.", 64) | {"classifier.weight": CLASSIFIER},
    ),
    "PASS": (
        "teacher.module.backbone.",
        lambda state: (
            {key: value[:, 1:] if key.endswith("pos_embed") else value for key, value in state.items()}
            | {
                "teacher.module.backbone.cls_pos": next(v for k, v in state.items() if k.endswith("pos_embed"))[:, :1],
                **{f"teacher.module.backbone.part_token{part}": torch.ones(1, 1, 64) for part in (1, 2, 3)},
                **{f"teacher.module.backbone.part{part}_pos": torch.ones(1, 1, 64) for part in (1, 2, 3)},
            }
        ),
    ),
}


@pytest.mark.parametrize("program", VITS)
def test_vits_for_reid_are_taken_with_their_neck(tmp_path, program):
    prefix, make = VITS[program]
    state, plain = vit(prefix)
    torch.save(make(state) | {"args": Namespace(arch="vit")}, tmp_path / "vit.pth")
    head = {"neck": "bn", "feature_width": 0, "pool": "token"}
    network = models.build(NetworkSpec("timm:test_vit", False, "slot", 9, 64, 32, **head), seed=1)
    report = pretrained.load_file(network, tmp_path / "vit.pth", "timm:test_vit")
    assert report.prefix == prefix
    assert all(torch.equal(network.backbone.net.state_dict()[key], value) for key, value in plain.items())
    assert report.neck == ("bottleneck." if program.endswith("fine-tuned") else "")
    assert len([key for key in report.unused if "part" in key]) == (6 if program == "PASS" else 0)


def test_a_vit_with_a_convolutional_stem_is_refused():
    """TransReID-SSL's ViTs with ICS."""
    state, _ = vit("")
    state["patch_embed.proj.weight"] = torch.ones(64, 8, 8, 8)
    network = models.build(NetworkSpec("timm:test_vit", False, "slot", 9, 64, 32), seed=1)
    with pytest.raises(CheckpointError, match=r"w\.pth: .* of the backbone's are missing or of another shape"):
        pretrained.load_state(network, state, models.find("timm:test_vit"), "w.pth")


def test_soliders_swin_transformer_is_taken_without_its_semantic_controller(tmp_path):
    name = "swin_tiny_patch4_window7_224"
    network = models.build(NetworkSpec(f"timm:{name}", False, "slot", 9, 64, 32), seed=1)
    other = models.build(NetworkSpec(f"timm:{name}", False, "slot", 9, 64, 32), seed=2)
    state = solider(other.backbone.net, "teacher.backbone.")
    for stage, layer in enumerate(other.backbone.net.layers[1:]):
        for key, value in layer.downsample.state_dict().items():
            state[f"teacher.backbone.stages.{stage}.downsample.{key}"] = torch.ones_like(value)
    torch.save(state, tmp_path / "solider.pth")
    report = pretrained.load_file(network, tmp_path / "solider.pth", f"timm:{name}")
    assert report.unused == ["teacher.backbone.semantic_embed_w.0.weight"]
    own, expected = network.backbone.state_dict(), other.backbone.state_dict()
    assert all(torch.equal(own[key], expected[key]) for key in own if "downsample" not in key)
    assert all((own[key] == 1).all() for key in own if "downsample" in key)
