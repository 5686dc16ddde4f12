"""Networks of timm: Conv-blocks, features, image sizes, initial weights, and runs that resume."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from test_resume import At, Fault, fault
from torch import nn

from ptlreid import datasets, models
from ptlreid.errors import CheckpointError, OptionError
from ptlreid.models import pretrained, weights
from ptlreid.models.bconv import reset_memory
from ptlreid.models.camera_norm import normalising_by_camera
from ptlreid.models.weights import read_weights_header
from ptlreid.names import check_name
from ptlreid.network_types import NetworkSpec
from ptlreid.progress import Silent
from ptlreid.runs import RunFolder
from ptlreid.settings import FinetuneSettings
from ptlreid.views import MEAN, STD
from ptlreid.workflows.finetune import finetune

# One of each kind, small: timm has these for its own tests, and a two-layer DINOv2 and Swin come from the fixture.
NAMES = ["test_resnet", "test_convnext", "test_efficientnet", "test_vit", "test_vit2", "small_dinov2", "small_swin"]
SIZE = {"small_dinov2": (70, 42)}  # patches of 14
TOKEN = ("test_vit", "small_dinov2")  # those with a class token


@pytest.fixture(autouse=True, scope="module")
def small_networks():
    """timm's DINOv2 with registers and Swin, with fewer layers."""

    def small_dinov2(pretrained: bool = False, **kwargs):
        return timm.create_model("vit_small_patch14_reg4_dinov2", depth=4, embed_dim=48, num_heads=2, **kwargs)

    def small_swin(pretrained: bool = False, **kwargs):
        depths = {"depths": (1, 1, 1, 1), "embed_dim": 16, "num_heads": (1, 1, 2, 2), "window_size": 4}
        return timm.create_model("swin_tiny_patch4_window7_224", **depths, **kwargs)

    entries = timm.models._registry._model_entrypoints
    entries |= {one.__name__: one for one in (small_dinov2, small_swin)}
    yield
    for one in (small_dinov2, small_swin):
        del entries[one.__name__]


def spec(name: str, *, ptl: bool = False, classes: int = 2, **head) -> NetworkSpec:
    return NetworkSpec(f"timm:{name}", ptl, "slot", classes, *SIZE.get(name, (64, 32)), **head)


def build(name: str, **options) -> nn.Module:
    return models.build(spec(name, **options), seed=0)


def images(name: str, count: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, *SIZE.get(name, (64, 32)), generator=generator)


# From the papers: ResNet has five maps at strides 2 to 32, ConvNeXt and Swin four at 4 to 32, and ViTs keep the grid of
# their patches.
@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("resnet50", [(64, 2), (256, 2), (512, 2), (1024, 2), (2048, 2)]),
        ("convnext_tiny", [(96, 4), (192, 2), (384, 2), (768, 2)]),
        ("swin_tiny_patch4_window7_224", [(96, 4), (192, 2), (384, 2), (768, 2)]),
        ("vit_small_patch16_224", [(384, 16), (384, 1), (384, 1), (384, 1)]),
        ("vit_small_patch14_dinov2", [(384, 14), (384, 1), (384, 1), (384, 1)]),
    ],
)
def test_conv_blocks_are_those_of_the_papers(name, stages):
    with torch.device("meta"):
        backbone = models.build(
            NetworkSpec(f"timm:{name}", True, "slot", 2, *models.find(f"timm:{name}").input_size), 0
        )
    backbone = backbone.backbone
    assert list(zip(backbone.channels, backbone.strides, strict=True)) == stages


@pytest.mark.parametrize("ptl", [True, False], ids=["PTL", "plain"])
@pytest.mark.parametrize("name", NAMES)
def test_four_images_are_overfitted(name, ptl):
    network = build(name, ptl=ptl)
    labels = torch.tensor([0, 0, 1, 1])
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    for step in range(40):
        reset_memory(network)
        loss = nn.functional.cross_entropy(network(images(name)).logits["pid"], labels)
        optimizer.zero_grad()
        loss.backward()
        if step == 0:  # several processes would wait for the gradient of a weight that is not used
            assert [key for key, one in network.named_parameters() if one.grad is None] == []
        optimizer.step()
        if loss.item() < 0.05:
            return
    pytest.fail(f"after 40 updates the loss is {loss.item():.3f}")


@pytest.mark.parametrize("ptl", [True, False], ids=["PTL", "plain"])
@pytest.mark.parametrize("name", NAMES)
def test_features_depend_on_weights_and_image_alone(name, ptl):
    network = build(name, ptl=ptl, drop_path=0.5)
    network(images(name))  # moves statistics of batches and latent states
    network.eval()
    with torch.inference_mode():
        together = network.features(images(name, 5))
        alone = torch.cat([network.features(one[None]) for one in images(name, 5)])
        turned = network.features(images(name, 5).flip(0)).flip(0)
    spread = together.std(dim=0).mean().item()
    assert spread > 0
    for other in (alone, turned):
        torch.testing.assert_close(other, together, atol=0.01 * spread, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_weights_file_rebuilds_the_network_without_a_network_connection(name, tmp_path, monkeypatch):
    network = build(name, ptl=True).eval()
    weights.save(network, spec(name, ptl=True), tmp_path / "w.safetensors")
    monkeypatch.setattr("socket.socket.connect", None)
    again = read_weights_header(tmp_path / "w.safetensors").build()
    with torch.inference_mode():
        assert torch.equal(again.features(images(name)), network.features(images(name)))


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit", "test_vit2", "small_swin"])
def test_the_last_map_is_timms_own_output(name):
    theirs = timm.create_model(name, num_classes=3, **({} if "net" in name else {"img_size": (64, 32)})).eval()
    mean, std = (torch.tensor(theirs.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
    pixels = images(name) * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    network = build(name)
    report = pretrained.load_state(network, theirs.state_dict(), models.find(f"timm:{name}"), "test")
    assert not [key for key in report.missing + report.reshaped if key.startswith("backbone.")]
    if name == "test_efficientnet":
        theirs.conv_head = theirs.bn2 = nn.Identity()  # of timm's head
    with torch.inference_mode():
        pooled = network.eval().backbone(images(name))[-1].mean(dim=(2, 3))
        output = theirs.forward_features((pixels - mean) / std)
        if name == "test_vit2":
            output = theirs.fc_norm(output)
    if output.ndim == 3:
        output = output[:, 1:]  # without the class token or the register
    positions = {"test_vit": 1, "test_vit2": 1, "small_swin": (1, 2)}
    torch.testing.assert_close(pooled, output.mean(dim=positions.get(name, (2, 3))))


@pytest.mark.parametrize("ptl", [True, False], ids=["PTL", "plain"])
@pytest.mark.parametrize("name", TOKEN)
def test_pool_token_reads_the_class_token(name, ptl):
    network = build(name, ptl=ptl, pool="token", feature_width=0).eval()
    with torch.inference_mode():
        feature = network.features(images(name))
        net = network.backbone.net
        token = net.forward_features(images(name) * net.input_scale + net.input_shift)[:, 0]
    torch.testing.assert_close(feature[:, : token.shape[1]], token)


@pytest.mark.parametrize("name", ["timm:test_resnet", "timm:test_vit2", "resnet18"])
def test_pool_token_needs_a_class_token(name):
    with pytest.raises(OptionError, match=f"pool = 'token' does not suit {name}, which has no class token"):
        models.build(NetworkSpec(name, False, "slot", 2, 64, 32, pool="token"), seed=0)


def test_pool_token_needs_a_class_token_next_to_the_last_map():
    """XCiT has it in layers after the last map only."""
    with pytest.raises(OptionError, match=r"timm:xcit_nano_12_p16_224 cannot be used .* without the class token"):
        models.build(NetworkSpec("timm:xcit_nano_12_p16_224", False, "slot", 2, 64, 32, pool="token"), seed=0)


def test_last_stride_1_keeps_the_size_of_the_map_and_every_weight():
    usual, kept = (build("test_resnet", ptl=True, last_stride=stride) for stride in (2, 1))
    with torch.inference_mode():
        *before, last = kept.eval().backbone(images("test_resnet"))
    assert last.shape[2:] == before[-1].shape[2:]
    assert kept.cells[-1].gates.stride == (1, 1)
    assert {name: one.shape for name, one in usual.state_dict().items()} == {
        name: one.shape for name, one in kept.state_dict().items()
    }


@pytest.mark.parametrize(
    ("name", "reason"), [("test_convnext", "cuts its map into patches of 2×2"), ("small_swin", "by other means than")]
)
def test_last_stride_1_is_refused_where_patches_do_not_overlap(name, reason):
    with pytest.raises(OptionError, match=f"last_stride = 1 does not suit timm:{name}, whose last block .*{reason}"):
        build(name, last_stride=1)


def test_drop_path_skips_blocks_in_training():
    network = build("test_vit", drop_path=0.9, feature_width=0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        maps = [network.backbone(images("test_vit"))[-1] for _ in range(2)]
    assert not torch.equal(*maps)
    assert [one.drop_prob for one in network.modules() if type(one).__name__ == "DropPath"][-1] == pytest.approx(0.9)


@pytest.mark.parametrize("name", ["timm:densenet121", "resnet18"])
def test_drop_path_is_refused_where_no_block_is_skipped(name):
    with pytest.raises(OptionError, match=f"drop_path = 0.1 does not suit {name}, which skips no block"):
        models.build(NetworkSpec(name, False, "slot", 2, 64, 32, drop_path=0.1), seed=0)


def test_a_misspelt_name_gets_timms_nearest():
    with pytest.raises(OptionError, match=r"Unknown timm network 'convnext_tny'.* Did you mean timm:convnext_tiny or"):
        models.find("timm:convnext_tny")
    with pytest.raises(OptionError, match=r"timm has no weights 'a9' of resnet18: expected one of a1_in1k"):
        models.find("timm:resnet18.a9")


def test_a_network_that_passes_its_image_size_on_to_its_base_takes_other_sizes():
    spec = NetworkSpec("timm:deit_tiny_distilled_patch16_224", False, "slot", 2, 64, 32, drop_path=0.1)
    with torch.device("meta"):
        assert models.build(spec, seed=0).backbone.net.patch_embed.grid_size == (4, 2)


def test_a_network_for_other_images_is_refused_with_timms_reason():
    with pytest.raises(OptionError, match=r"timm:nest_tiny cannot be used with images of 256×128.* square inputs"):
        models.build(NetworkSpec("timm:nest_tiny", False, "slot", 2, 256, 128), seed=0)
    with pytest.raises(OptionError, match=r"--height 256 does not suit timm:vit_small_patch14_dinov2.* Use 252"):
        models.build(NetworkSpec("timm:vit_small_patch14_dinov2", False, "slot", 2, 256, 126), seed=0)


@pytest.mark.parametrize("grid", [(3, 3), (8, 4), (21, 10)], ids=["square", "twice as high", "TransReID's stride 12"])
def test_positions_are_resampled_for_another_image_size(grid):
    state = timm.create_model("test_vit", img_size=(16 * grid[0], 16 * grid[1])).state_dict()
    rising = torch.linspace(-1, 1, grid[0]).repeat_interleave(grid[1])  # from row to row, and equal in each
    state["pos_embed"][0, 1:] = rising[:, None]
    network = build("test_vit")  # 4 × 2 patches
    pretrained.load_state(network, state, models.find("timm:test_vit"), "test")
    rows = network.backbone.net.pos_embed[0, 1:, 0].view(4, 2)
    torch.testing.assert_close(rows[:, 0], rows[:, 1])
    torch.testing.assert_close(rows[:, 0], -rows[:, 0].flip(0))
    assert (rows[1:] > rows[:-1] + 0.3).all()


def test_a_run_for_another_image_size_is_taken_over_with_its_head():
    run = models.build(NetworkSpec("timm:test_vit", True, "slot", 2, 128, 64), seed=3).state_dict()
    network = build("test_vit", ptl=True)
    report = pretrained.load_state(network, run, models.find("timm:test_vit"), "test")
    assert report.missing == report.reshaped == report.unused == []
    assert torch.equal(network.head.reduce.weight, run["head.reduce.weight"])


def test_the_authors_file_of_dinov2_with_registers_fills_the_network():
    """Their names, and a position for the class token, which timm adds to it."""
    theirs = timm.create_model("small_dinov2", img_size=(518, 518)).state_dict()
    state = {key: torch.randn_like(one) for key, one in theirs.items()}
    state["register_tokens"] = state.pop("reg_token")
    state["pos_embed"] = torch.randn(1, 1 + 37 * 37, 48)
    state["mask_token"] = torch.zeros(1, 48)
    network = build("small_dinov2")
    report = pretrained.load_state(network, state, models.find("timm:small_dinov2"), "test")
    assert not [name for name in report.missing + report.reshaped if name.startswith("backbone.")]
    assert torch.equal(network.backbone.net.reg_token, state["register_tokens"])
    torch.testing.assert_close(network.backbone.net.cls_token[0], state["cls_token"][0] + state["pos_embed"][0, :1])


def test_names_are_found_below_a_prefix():
    state = {f"module.encoder.{key}": one for key, one in timm.create_model("test_vit").state_dict().items()}
    network = build("test_vit")
    report = pretrained.load_state(network, state, models.find("timm:test_vit"), "test")
    assert report.prefix == "module.encoder."
    assert torch.equal(network.backbone.net.cls_token, state["module.encoder.cls_token"])


def test_weights_of_another_network_are_refused():
    state = timm.create_model("test_resnet").state_dict()
    with pytest.raises(CheckpointError, match="of the backbone's are missing or of another shape"):
        pretrained.load_state(build("test_vit"), state, models.find("timm:test_vit"), "test")


def test_timms_weights_are_taken_and_the_global_generator_is_left_alone(monkeypatch):
    theirs = timm.create_model("test_vit")
    asked = []

    def create_model(name, **options):
        asked.append((name, options))
        torch.rand(1)
        return theirs

    network = build("test_vit")
    definition = models.find("timm:test_vit.r160_in1k")
    monkeypatch.setattr(timm, "create_model", create_model)
    before = torch.get_rng_state()
    state = definition.imagenet()
    assert torch.equal(torch.get_rng_state(), before)
    assert asked == [("test_vit.r160_in1k", {"pretrained": True})]
    monkeypatch.undo()
    pretrained.load_state(network, state, definition, "test")
    assert torch.equal(network.backbone.net.cls_token, theirs.cls_token)


def test_without_a_connection_the_message_names_the_alternatives(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"weights of timm:test_vit could not be downloaded .* --init FILE"):
        pretrained.load_imagenet(build("test_vit"), "timm:test_vit")


def test_batch_norms_with_an_activation_keep_it_when_they_normalise_by_camera():
    network = build("test_efficientnet").train()
    one_camera = torch.zeros(4, dtype=torch.int64)
    expected = network(images("test_efficientnet")).embedding
    with normalising_by_camera(network, one_camera):
        found = network(images("test_efficientnet")).embedding
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_a_vit_trains_evaluates_and_resumes_to_equal_weights(tmp_path, market_folder):
    splits = datasets.load("market", market_folder.parent)
    chosen = {"backbone": "timm:test_vit", "init": "none", "height": 64, "width": 32, "batch_size": 4, "epochs": 2}
    chosen |= {"pool": "token", "neck": "bn", "drop_path": 0.3, "optimizer": "adamw", "device": "cpu", "report": False}
    settings = FinetuneSettings.resolve(None, **chosen, checkpoint_minutes=0.0)
    runs = [RunFolder(tmp_path / name) for name in ("complete", "stopped")]
    metrics = finetune(settings, splits, runs[0], Silent())
    with pytest.raises(Fault):
        finetune(settings, splits, runs[1], At(3, fault))
    assert finetune(settings, splits, runs[1], Silent())["mAP"] == metrics["mAP"]
    one, other = (read_weights_header(run.weights()).build().state_dict() for run in runs)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_default_name_of_a_run_is_a_folders():
    settings = FinetuneSettings.resolve(None, backbone="timm:vit_small_patch16_224.augreg_in21k")
    assert settings.default_name == "market-timm-vit_small_patch16_224.augreg_in21k-ptl-s0"
    assert check_name(settings.default_name, "run") == settings.default_name


def test_models_shows_a_network_of_timm(ptlreid):
    code, out, _ = ptlreid("models", "timm:test_resnet", "--json")
    plain, cells = json.loads(out)
    assert code == 0
    assert plain["name"] == "timm:test_resnet"
    assert [stride for _, stride in plain["stages"]] == [2, 2, 2, 2, 2]
    assert plain["params"] < cells["params"]


def test_positions_of_a_run_are_resampled_from_its_own_grid(tmp_path):
    """Of 18 × 8 patches, as many as 12 × 12."""
    spec = NetworkSpec("timm:test_vit", False, "slot", 2, 288, 128)
    network = models.build(spec, seed=0)
    rising = torch.linspace(-1, 1, 18).repeat_interleave(8)  # from row to row, and equal in each
    with torch.no_grad():
        network.backbone.net.pos_embed[0, 1:] = rising[:, None]
    weights.save(network, spec, tmp_path / "w.safetensors")
    other = models.build(NetworkSpec("timm:test_vit", False, "slot", 2, 128, 64), seed=1)
    pretrained.load_file(other, tmp_path / "w.safetensors", "timm:test_vit")
    rows = other.backbone.net.pos_embed[0, 1:, 0].view(8, 4)
    torch.testing.assert_close(rows, rows[:, :1].expand(8, 4))
    assert (rows[1:] > rows[:-1]).all()
