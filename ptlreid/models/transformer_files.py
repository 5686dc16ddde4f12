"""Files of vision transformers that other programs write, with timm's names and layout."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# Names of a Swin transformer in SOLIDER, as in MMSegmentation, and in timm. `norm3` follows the last stage.
_SWIN = (
    (r"(^|\.)patch_embed\.projection\.", r"\1patch_embed.proj."),
    (r"(^|\.)stages\.(\d+)\.", r"\1layers.\2."),
    (r"\.attn\.w_msa\.", ".attn."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
    (r"(^|\.)norm3\.(?=\w+$)", r"\1norm."),
)


def as_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under timm's names and in its layout, below any prefix, if they are PASS's or SOLIDER's.

    PASS (Zhu et al., ECCV 2022): a ViT with three part tokens, which timm's does not have. SOLIDER (Chen et al., CVPR
    2023): a Swin transformer whose maps are scaled between stages by a semantic controller, which timm's has not.
    """
    found = dict(state)
    for prefix in [key.removesuffix("part_token1") for key in state if re.search(r"(^|\.)part_token1$", key)]:
        _join_positions(found, prefix)
    return _rename_swin(found) if any(".attn.w_msa." in key for key in found) else found


def _join_positions(state: dict[str, Tensor], prefix: str) -> None:
    """Put the position of the class token, which PASS keeps alone, in front of those of the patches."""
    import torch

    first, others = state.get(f"{prefix}cls_pos"), state.get(f"{prefix}pos_embed")
    if first is not None and others is not None and others.ndim == 3 and first.shape == (1, 1, others.shape[2]):
        state[f"{prefix}pos_embed"] = torch.cat((first, others), dim=1)
        del state[f"{prefix}cls_pos"]


def _rename_swin(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for key, tensor in state.items():
        name = key
        for pattern, ours in _SWIN:
            name = re.sub(pattern, ours, name)
        # A down-sampling ends a stage in SOLIDER; in timm it begins the next.
        if match := re.fullmatch(r"(.*layers\.)(\d)(\.downsample\..*)", name):
            found[f"{match[1]}{int(match[2]) + 1}{match[3]}"] = _by_position(tensor)
        else:
            found[name] = tensor
    return found


def _by_position(tensor: Tensor) -> Tensor:
    """A tensor whose last dimension is (channels, 2 rows, 2 columns), with (2 columns, 2 rows, channels) instead."""
    if tensor.ndim == 0 or tensor.shape[-1] % 4:
        return tensor
    return tensor.unflatten(-1, (-1, 2, 2)).movedim((-3, -2, -1), (-1, -2, -3)).flatten(-3)
