"""Weights files: our own, torchvision's, other programs', and what is refused."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from damage import damage_examples, damaged
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from ptlreid import files, models
from ptlreid.errors import CheckpointError, OptionError
from ptlreid.features import Extractor
from ptlreid.models import pretrained, weights
from ptlreid.network_types import NetworkSpec
from ptlreid.runs import RunFolder
from ptlreid.settings import EvaluateSettings, FinetuneSettings
from ptlreid.views import EvalView


def spec(backbone: str = "resnet18", ptl: bool = True, classes: int = 3) -> NetworkSpec:
    return NetworkSpec(backbone, ptl, "slot", classes, 64, 32)


@pytest.fixture(scope="module")
def torchvision_state():
    torch.manual_seed(1)
    return torchvision.models.resnet18(weights=None).state_dict()


def load(path, backbone: str = "tiny", classes: int = 3):
    """The network after loading the weights in `path`, and the report."""
    network = models.build(spec(backbone, classes=classes), seed=0)
    return network, pretrained.load_file(network, path, backbone)


def assert_is_torchvisions(network, state):
    """The backbone computes the same as torchvision's."""
    theirs = torchvision.models.resnet18(weights=None)
    theirs.load_state_dict(state)
    theirs.fc = torch.nn.Identity()
    images = torch.randn(2, 3, 64, 32)
    with torch.inference_mode():
        top = network.eval().backbone(images)[-1].mean(dim=(2, 3))
        torch.testing.assert_close(top, theirs.eval()(images))


def test_the_interpolation_of_the_images_is_saved_with_the_weights(tmp_path):
    network, bicubic = models.build(spec("tiny"), seed=4), replace(spec("tiny"), interpolation="bicubic")
    weights.save(network, bicubic, tmp_path / "w.safetensors")
    found = weights.read_weights_header(tmp_path / "w.safetensors")
    assert found.spec == bicubic
    assert Extractor.from_weights(found, EvaluateSettings.resolve(None)).view == EvalView(64, 32, "bicubic")


def test_bilinear_weights_have_the_header_of_earlier_versions(tmp_path):
    """Otherwise the features of the same weights would be extracted again."""
    expected = {"backbone": "tiny", "ptl": True, "memory": "slot", "num_classes": 3, "height": 64, "width": 32}
    assert spec("tiny").describe() == expected
    assert NetworkSpec(**expected) == spec("tiny")


def test_saved_weights_rebuild_the_same_network(tmp_path):
    network = models.build(spec("tiny"), seed=4).eval()
    weights.save(network, spec("tiny"), tmp_path / "w.safetensors")
    again = weights.read_weights_header(tmp_path / "w.safetensors")
    assert again.spec == spec("tiny")
    images = torch.randn(2, 3, 64, 32)
    with torch.inference_mode():
        assert torch.equal(again.build()(images).embedding, network(images).embedding)


@pytest.mark.parametrize(
    "about",
    [
        '{"network": {"back',
        "[]",
        '{"network": {}}',
        '{"network": {"backbone": "resnet18", "depth": 3}, "readout": {}}',
        '{"network": null, "readout": {}}',
    ],
)
def test_an_unreadable_description_is_reported(tmp_path, about):
    save_file({"x": torch.zeros(1)}, tmp_path / "w.safetensors", metadata={"ptlreid": about})
    with pytest.raises(CheckpointError, match=r"w\.safetensors: describes an unknown network: .* Remove the file and"):
        weights.read_weights_header(tmp_path / "w.safetensors")


def test_tensors_of_another_network_than_described_are_reported(tmp_path):
    weights.save(models.build(spec("tiny"), seed=0), spec("tiny", classes=4), tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"tensors do not fit the network that it describes\. Remove"):
        weights.read_weights_header(tmp_path / "w.safetensors").build()


def test_tensors_of_another_type_are_not_converted(tmp_path):
    """As after a changed bit in the header: F32 to I32."""
    weights.save(models.build(spec("tiny"), seed=0), spec("tiny"), tmp_path / "w.safetensors")
    content = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(content.replace(b'"F32"', b'"I32"', 1))
    with pytest.raises(CheckpointError, match=r"tensors do not fit the network that it describes\. Remove"):
        weights.read_weights_header(tmp_path / "w.safetensors").build()


@damage_examples(0.5)
@given(data=st.data())
def test_a_damaged_header_is_one_message_or_describes_a_network(tmp_path, data):
    """What it describes is in the ranges of the schema, and its tensors are those that were saved."""
    network, path = models.build(spec("tiny"), seed=1), tmp_path / "w.safetensors"
    weights.save(network, spec("tiny"), path)
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    path.write_bytes(data.draw(damaged(content[:end])) + content[end:])
    try:
        again = weights.read_weights_header(path).build()
    except (CheckpointError, OptionError) as error:  # an option: an unknown backbone
        assert "\n" not in str(error)
        return
    saved = network.state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in again.state_dict().items())


def test_the_digest_follows_the_weights(tmp_path):
    digests = []
    for number, seed in enumerate((1, 1, 2)):
        weights.save(models.build(spec("tiny"), seed), spec("tiny"), tmp_path / f"{number}.safetensors")
        digests.append(weights.read_weights_header(tmp_path / f"{number}.safetensors").digest)
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        # torchreid, whose best score is a NumPy number
        lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}, "rank1": np.float32(0.9)},
        lambda state: {"model": {f"backbone.{key}": value for key, value in state.items()}},  # fast-reid
        lambda state: (
            {f"base.{key}": value for key, value in state.items()} | {"classifier.weight": torch.zeros(5, 512)}
        ),
    ],
)
@pytest.mark.parametrize("ptl", [True, False])
def test_torchvisions_names_are_found_under_any_prefix(tmp_path, torchvision_state, wrap, ptl):
    torch.save(wrap(torchvision_state), tmp_path / "w.pth")
    network = models.build(spec(ptl=ptl), seed=0)
    report = pretrained.load_file(network, tmp_path / "w.pth", "resnet18")
    assert len(report.loaded) == len(torchvision_state) - 2  # all but fc
    assert {name.split(".")[0] for name in report.missing} == ({"cells", "fusions", "head"} if ptl else {"head"})
    assert_is_torchvisions(network, torchvision_state)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "extractor.model.", "a.b.c.d.e."])
def test_any_prefix_is_found_and_reported(torchvision_state, prefix):
    state = {f"{prefix}{key}": value for key, value in torchvision_state.items()} | {"epoch": torch.zeros(())}
    network = models.build(spec(), seed=0)
    report = pretrained.load_state(network, state, models.find("resnet18"), "test")
    assert str(report).startswith(f"{len(torchvision_state) - 2} tensors loaded from {prefix}*, ")
    assert_is_torchvisions(network, torchvision_state)


def test_of_two_networks_in_a_file_the_first_is_loaded(torchvision_state):
    state = {f"module.encoder_q.{key}": value for key, value in torchvision_state.items()}
    state |= {f"module.encoder_k.{key}": value + 1 for key, value in torchvision_state.items()}
    network = models.build(spec(), seed=0)
    assert pretrained.load_state(network, state, models.find("resnet18"), "test").prefix == "module.encoder_q."
    assert_is_torchvisions(network, torchvision_state)


def test_own_weights_are_found_below_a_prefix_with_their_cells():
    start = models.build(spec("tiny"), seed=1)
    state = {f"module.{key}": value for key, value in start.state_dict().items()}
    network = models.build(spec("tiny"), seed=2)
    report = pretrained.load_state(network, state, models.find("tiny"), "test")
    assert (report.missing, report.unused, report.prefix) == ([], [], "module.")
    assert all(torch.equal(value, start.state_dict()[key]) for key, value in network.state_dict().items())


def children(net: nn.Module) -> nn.Sequential:
    """As other programs cut a network before its classifier: the layers lose their names."""
    return nn.Sequential(*list(net.children())[:-1])


CUTS = {
    "resnet18": lambda net: nn.ModuleDict({"base": children(net)}),  # base.4.0.conv1.weight
    "densenet121": children,  # 0.conv0.weight
    "mobilenet-v2": lambda net: children(net)[0],  # 0.0.weight
    "mobilenet-v3-small": lambda net: nn.ModuleDict({"model": nn.Sequential(*net.features.children())}),
}


@pytest.mark.parametrize("name", CUTS)
def test_torchvisions_layers_are_found_by_their_number(name):
    net = torchvision.models.get_model(name.replace("-", "_"), weights=None)
    expected = {key: torch.full_like(value, number) for number, (key, value) in enumerate(net.state_dict().items())}
    net.load_state_dict(expected)
    network, other = models.build(spec(name), seed=0), models.build(spec(name), seed=1)
    pretrained.load_state(network, CUTS[name](net).state_dict(), models.find(name), "test")
    pretrained.load_state(other, expected, models.find(name), "test")
    loaded = other.state_dict()
    assert all(torch.equal(v, loaded[k]) for k, v in network.state_dict().items() if k.startswith("backbone."))


@pytest.mark.parametrize("name", models.names())
@settings(derandomize=True, max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["features", "layer3", "0", "1", "99", "norm", "fc", "", "²", "x"]), max_size=5))
def test_any_name_is_one_of_a_backbones_tensors_or_none(name, parts):
    assert isinstance(models.find(name).rename(".".join(parts)), tuple)


def test_the_new_reduction_is_named_as_features_pass_through_it(tmp_path):
    start = models.build(spec("tiny"), seed=1)
    state = {key: value for key, value in start.state_dict().items() if key.startswith("backbone.")}
    torch.save(state, tmp_path / "backbone.pth")
    _, report = load(tmp_path / "backbone.pth")
    assert str(report).endswith("features pass through a newly initialised 1×1 reduction (head.reduce)")
    torch.save(start.state_dict(), tmp_path / "all.pth")
    assert "reduction" not in str(load(tmp_path / "all.pth")[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensor: tensor.index_fill(0, torch.tensor(1), torch.nan), "holds NaN or infinity"),
        (lambda tensor: tensor.double() + 1e300, "holds NaN or infinity"),  # finite until it is a float32
        (lambda tensor: tensor.to(torch.complex64), "holds complex64 values"),
        (lambda tensor: tensor.to(torch.int8), "holds int8 values"),
    ],
)
def test_values_that_are_no_finite_numbers_are_refused(tmp_path, change, message):
    state = models.build(spec("tiny"), seed=1).state_dict()
    name = next(iter(state))
    torch.save(state | {name: change(state[name])}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=rf"w\.pth: its tensor {name} {message}: expected finite numbers"):
        load(tmp_path / "w.pth")


def test_safetensors_are_read_too(tmp_path, torchvision_state):
    save_file(torchvision_state, tmp_path / "w.safetensors")
    network = models.build(spec(), seed=0)
    pretrained.load_file(network, tmp_path / "w.safetensors", "resnet18")
    assert_is_torchvisions(network, torchvision_state)


def test_every_tensor_of_a_densenet_is_loaded():
    state = {key: torch.full_like(value, 2) for key, value in torchvision.models.densenet161().state_dict().items()}
    network = models.build(spec("densenet161"), seed=0)
    report = pretrained.load_state(network, state, models.find("densenet161"), "test")
    assert report.unused == ["classifier.bias", "classifier.weight"]
    assert all((value == 2).all() for key, value in network.state_dict().items() if key.startswith("backbone."))


def test_another_number_of_classes_reinitialises_the_last_layer_and_reports_it(tmp_path):
    start = models.build(spec(classes=7), seed=1)
    weights.save(start, spec(classes=7), tmp_path / "w.safetensors")
    network = models.build(spec(classes=3), seed=2)
    last = network.head.classifier[-1].weight.clone()
    report = pretrained.load_file(network, tmp_path / "w.safetensors", "resnet18")
    assert report.reshaped == ["head.classifier.6.bias", "head.classifier.6.weight"]
    assert report.missing == []
    assert "2 newly initialised (head.classifier.6.bias, head.classifier.6.weight)" in str(report)
    assert torch.equal(network.head.classifier[-1].weight, last)
    assert torch.equal(network.head.classifier[0].weight, start.head.classifier[0].weight)
    assert torch.equal(network.cells[2].gates.weight, start.cells[2].gates.weight)


def test_another_backbone_is_refused(tmp_path, torchvision_state):
    torch.save(torchvision_state, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"w\.pth: .* of the backbone's are missing or of another shape"):
        pretrained.load_file(models.build(spec("resnet50"), seed=0), tmp_path / "w.pth", "resnet50")


class Hostile:
    ran = False

    def __reduce__(self):
        return (setattr, (Hostile, "ran", True))


def test_a_pickle_that_could_run_code_is_refused_and_not_run(tmp_path):
    torch.save({"state_dict": Hostile()}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"w\.pth: refused: it contains setattr"):
        load(tmp_path / "w.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(CheckpointError, match=r"plain\.pth: a pickle, expected weights"):
        load(tmp_path / "plain.pth")
    assert not Hostile.ran


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_an_incomplete_or_unsuitable_file_is_named(tmp_path, torchvision_state, name):
    whole = tmp_path / f"whole-{name}"
    (save_file if name.endswith("safetensors") else torch.save)(torchvision_state, whole)
    (tmp_path / name).write_bytes(whole.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=f"{name}: "):
        load(tmp_path / name)
    with pytest.raises(CheckpointError, match="no such file"):
        load(tmp_path / "gone.pth")


def test_missing_weights_and_those_of_another_program_are_refused(tmp_path, torchvision_state):
    with pytest.raises(CheckpointError, match=r"no such file\. Finish the run first"):
        weights.read_weights_header(tmp_path / "weights.safetensors")
    save_file(torchvision_state, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"weights of another program\. Fine-tune from them with --init"):
        weights.read_weights_header(tmp_path / "w.safetensors")


def test_offline_the_message_names_the_alternatives_to_imagenet(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(
        CheckpointError, match=r"ImageNet weights of resnet18 could not be downloaded .*--init FILE.*--init none"
    ):
        pretrained.load_imagenet(models.build(spec(), seed=0), "resnet18")


def test_a_download_with_another_checksum_is_refused(tmp_path, monkeypatch, torchvision_state):
    file = tmp_path / "resnet18-00000000.pth"  # in its name the first digits of a SHA-256 that it does not have
    torch.save(torchvision_state, file)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    monkeypatch.setattr(type(torchvision.models.ResNet18_Weights.IMAGENET1K_V1), "url", file.as_uri())
    with pytest.raises(CheckpointError, match=r"could not be downloaded \(invalid hash value"):
        pretrained.load_imagenet(models.build(spec(), seed=0), "resnet18")


def test_initial_weights_are_identified_by_their_bytes_and_only_tensors_are_taken(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.config.write_text(FinetuneSettings.resolve(None).to_toml())
    save_file({"x": torch.zeros(1)}, run.weights())
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(run.weights().read_bytes())
    digests = pretrained.init_digests
    assert digests("run", tmp_path) == digests(str(copy), tmp_path) == {"init": files.file_digest(copy)}
    assert digests("imagenet", tmp_path) == digests("none", tmp_path) == {}
    copy.write_text("<html>")
    with pytest.raises(CheckpointError, match=r"copy\.safetensors: an HTML page"):
        digests(str(copy), tmp_path)
    run.weights().unlink()
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: no such file\. Finish that run first"):
        digests("run", tmp_path)


@pytest.mark.parametrize("content", [b"", b"<html>", b"cut"])
def test_a_damaged_file_in_torchvisions_cache_is_to_be_removed(tmp_path, monkeypatch, content):
    choice = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(type(choice), "url", "https://127.0.0.1:9/resnet18-01234567.pth")
    cached = tmp_path / "checkpoints" / "resnet18-01234567.pth"
    cached.parent.mkdir()
    cached.write_bytes(content)
    with pytest.raises(
        CheckpointError, match=rf"{cached}: .*begins with \w{{8}}, expected 01234567.* Remove it and run the command"
    ):
        pretrained.load_imagenet(models.build(spec(), seed=0), "resnet18")


def test_imagenet_weights_are_taken_from_torchvisions_cache_and_verified(tmp_path, monkeypatch, torchvision_state):
    """A file with torchvision's name is used; the name contains the first digits of its SHA-256."""
    import hashlib

    torch.save(torchvision_state, tmp_path / "some.pth")
    digits = hashlib.sha256((tmp_path / "some.pth").read_bytes()).hexdigest()[:8]
    choice = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(type(choice), "url", f"https://127.0.0.1:9/resnet18-{digits}.pth")
    cached = tmp_path / "checkpoints" / f"resnet18-{digits}.pth"
    cached.parent.mkdir()
    (tmp_path / "some.pth").rename(cached)
    network = models.build(spec(), seed=0)
    pretrained.load_imagenet(network, "resnet18")
    assert_is_torchvisions(network, torchvision_state)
