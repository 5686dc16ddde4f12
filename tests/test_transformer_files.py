"""Transformers in other programs' files: timm's names, and the same numbers at the same places."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from ptlreid.models.transformer_files import as_timm


def solider(net: nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    """The names of SOLIDER's Swin transformer with the tensors of timm's, those of its downsampling apart."""
    state = {}
    for key, value in net.state_dict().items():
        name = key.replace("patch_embed.proj.", "patch_embed.projection.")
        name = name.replace("layers.", "stages.", 1) if name.startswith("layers.") else name
        name = name.replace(".attn.", ".attn.w_msa.")
        name = name.replace(".mlp.fc1.", ".ffn.layers.0.0.").replace(".mlp.fc2.", ".ffn.layers.1.")
        if not name.startswith("stages.") or ".downsample." not in name:
            state[f"{prefix}{'norm3.' + name[5:] if name.startswith('norm.') else name}"] = value
    return state | {f"{prefix}semantic_embed_w.0.weight": torch.ones(8, 2)}


@pytest.mark.parametrize("prefix", ["", "teacher.backbone."])
def test_soliders_swin_transformer_has_the_names_of_timms(prefix):
    net = timm.create_model(
        "swin_tiny_patch4_window7_224", embed_dim=8, depths=(1, 1, 2, 1), num_heads=(1, 1, 2, 2), num_classes=0
    )
    theirs = solider(net, prefix)
    merging = {}
    for stage, layer in enumerate(net.layers[1:]):  # a stage of theirs ends with what begins the next of timm's
        for name, value in layer.downsample.state_dict().items():
            theirs[f"{prefix}stages.{stage}.downsample.{name}"] = merging[f"{stage}.{name}"] = torch.rand_like(value)
    found = as_timm(theirs)
    own = net.state_dict()
    assert {key.removeprefix(prefix) for key in found} == {*own, "semantic_embed_w.0.weight"}
    assert all(torch.equal(found[f"{prefix}{key}"], own[key]) for key in own if "downsample" not in key)
    net.load_state_dict({key: found[f"{prefix}{key}"] for key in own})
    # Theirs gathers 2×2 positions by `unfold`: channels first, then rows, then columns.
    maps = torch.rand(2, 6, 4, 8)
    columns = nn.functional.unfold(maps.permute(0, 3, 1, 2), 2, stride=2).mT  # (2, 6, 32)
    normed = nn.functional.layer_norm(columns, (32,), merging["0.norm.weight"], merging["0.norm.bias"])
    expected = (normed @ merging["0.reduction.weight"].T).view(2, 3, 2, 16)
    torch.testing.assert_close(net.layers[1].downsample(maps), expected)


def test_the_position_of_pass_class_token_comes_first():
    state = {
        "teacher.backbone.cls_token": torch.zeros(1, 1, 2),
        "teacher.backbone.part_token1": torch.zeros(1, 1, 2),
        "teacher.backbone.cls_pos": torch.full((1, 1, 2), 7.0),
        "teacher.backbone.part1_pos": torch.full((1, 1, 2), 8.0),
        "teacher.backbone.pos_embed": torch.tensor([[[1.0, 1], [2, 2], [3, 3]]]),
    }
    found = as_timm(state)
    assert found["teacher.backbone.pos_embed"][0, :, 0].tolist() == [7, 1, 2, 3]
    assert set(state) - set(found) == {"teacher.backbone.cls_pos"}


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"part_token1": torch.zeros(1, 1, 2)},
        {"part_token1": torch.zeros(1), "cls_pos": torch.zeros(3), "pos_embed": torch.zeros(())},
        {"part_token1": torch.zeros(1), "cls_pos": torch.zeros(1, 1, 3), "pos_embed": torch.zeros(1, 4, 2)},
        {"blocks.0.attn.qkv.weight": torch.zeros(3, 1), "stages.0.norm3.weight": torch.zeros(2)},
    ],
)
def test_other_files_stay_as_they_are(state):
    assert as_timm(state) == state


def test_tensors_of_an_unexpected_shape_are_left_to_the_comparison_of_shapes():
    state = {"stages.0.blocks.0.attn.w_msa.qkv.weight": torch.zeros(()), "stages.0.downsample.norm.bias": torch.ones(3)}
    found = as_timm(state)
    assert found["layers.1.downsample.norm.bias"].tolist() == [1, 1, 1]
    assert found["layers.0.blocks.0.attn.qkv.weight"].shape == ()
