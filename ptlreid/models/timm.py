"""Any network of timm (Wightman, github.com/huggingface/pytorch-image-models) as Conv-blocks: `timm:NAME`.

Its Conv-blocks end at the maps that timm itself calls the network's features. Of more than five maps the last five are
taken; where all have the same size, as in a ViT, those after each quarter of the layers. The last map is what timm's
head pools, with the network's last norm; what timm counts to the head, such as EfficientNet's last convolution, is left
out.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from math import isqrt, log
from typing import Any

import timm
import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models import group_parameters
from torch import Tensor, nn

from ptlreid.errors import CheckpointError, OptionError
from ptlreid.models.network import Backbone
from ptlreid.models.ptl import with_cells
from ptlreid.models.staged import Staged, keep_map_size
from ptlreid.network_types import TIMM, NetworkSpec
from ptlreid.views import MEAN, STD

_INPUT_SIZE = (256, 128)
_NET = "backbone.net."  # before timm's names, in our networks
# What a network raises that does not suit the images: timm has no error class of its own.
_FAULTS = (RuntimeError, ValueError, TypeError, AttributeError, AssertionError, IndexError)


@cache
def backbone(name: str) -> Backbone:
    """The `Backbone` of timm's network `name`; `OptionError` with the nearest names if timm has none."""
    _check_name(name)
    net = _meta(name)
    step = max(info["reduction"] for info in _infos(net))
    height, width = (step * max(1, round(side / step)) for side in _INPUT_SIZE)
    definition = with_cells(
        _stages,
        rename=lambda key: f"net.{key}",
        imagenet=lambda: _imagenet(name),
        skips_blocks=_takes(net, "drop_path_rate"),
        class_token=getattr(net, "cls_token", None) is not None,
    )
    return replace(definition, convert=_convert, multiples=(step, step), input_size=(height, width))


class TimmStages(Staged):
    """The maps of a timm network that was made as `spec` describes it.

    With `pool = token`, the last map has the class token at every position: pooled, it is the class token.
    """

    def __init__(self, net: Any, spec: NetworkSpec) -> None:
        super().__init__({}, (), ())
        self.net: Any = net  # timm's classes have no common type
        self.spec, self.indices = spec, _indices(net)
        norm = getattr(net, "fc_norm", None)  # of a ViT that has its last norm after the pooling
        net.prune_intermediate_layers(self.indices, prune_norm=False, prune_head=True)
        if norm is not None:
            net.fc_norm = norm
        # Images are standardised as for torchvision's weights; many ViTs were trained on values from -1 to 1. What was
        # used is saved with the weights, as another version of timm may have other weights under the same name.
        theirs = net.pretrained_cfg
        for key, values in _input_change(theirs.get("mean", MEAN), theirs.get("std", STD)).items():
            net.register_buffer(key, torch.tensor(values).view(3, 1, 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        """The (B, C, H, W) map after each Conv-block."""
        images = images * self.net.input_scale + self.net.input_shift
        output, (*maps, last) = self.net.forward_intermediates(images, indices=self.indices)
        height, width = last.shape[2:]
        if not isinstance(output, Tensor):
            raise TypeError(f"{len(output)} last maps in place of one")
        if self.spec.pool == "token" and (output.ndim != 3 or output.shape[1] == height * width):
            raise ValueError("its last map is without the class token")
        if output.ndim == 3:  # (B, T + H * W, C), after T tokens such as the class token and registers
            output = getattr(self.net, "fc_norm", nn.Identity())(output)
            if self.spec.pool == "token":
                return [*maps, output[:, 0, :, None, None].expand(-1, -1, height, width)]
            return [*maps, output[:, output.shape[1] - height * width :].mT.unflatten(2, (height, width))]
        return [*maps, output if output.shape[2:] == (height, width) else output.permute(0, 3, 1, 2)]

    def keep_last_size(self, name: str) -> None:
        """As for other backbones, with the layers that take the last but one map to the size of the last."""
        if self.strides[-1] == 1:
            return
        twin = _twin(self.spec)
        for path in _shrinking(twin):
            keep_map_size(self.net, path, name)
            keep_map_size(twin.net, path, name)
        try:
            self.channels, self.strides = _measure(twin)
        except _FAULTS:
            self.strides = (0,)
        if self.strides[-1] != 1:
            raise OptionError(
                f"last_stride = 1 does not suit {name}, whose last block shrinks its map by other means than the "
                "stride of convolutions: expected last_stride = 2. Leave it out, or choose another --backbone."
            )

    def distances(self) -> dict[str, int]:
        """As for other backbones, by the groups of layers that timm defines for layer-wise rate decay."""
        complete = _meta(self.spec.backbone.removeprefix(TIMM))
        if not hasattr(complete, "group_matcher"):
            raise OptionError(
                f"layer_decay does not suit {self.spec.backbone}, of whose layers timm gives no order: expected 1. "
                "Leave it out, or choose another --backbone."
            )
        groups = group_parameters(complete, complete.group_matcher(coarse=False), reverse=True)
        last = max(groups.values())  # the classifier's
        return {f"net.{name}": last - groups[name] for name, _ in self.net.named_parameters()}


def _stages(spec: NetworkSpec) -> TimmStages:
    """The Conv-blocks that `spec` describes; `OptionError` where the network does not suit its images."""
    try:
        stages = TimmStages(_create(spec), spec)
        stages.channels, stages.strides = _measure(_twin(spec))
    except _FAULTS as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise OptionError(
            f"{spec.backbone} cannot be used with images of {spec.height}×{spec.width}: expected one map that divides "
            f"the image evenly ({reason}). Choose another --height and --width, or another --backbone."
        ) from None
    return stages


def _create(spec: NetworkSpec) -> Any:
    """timm's network for the images of `spec`, randomly initialised."""
    name = spec.backbone.removeprefix(TIMM)
    wanted = {"img_size": (spec.height, spec.width), "drop_path_rate": spec.drop_path}
    chosen: dict[str, Any] = {key: value for key, value in wanted.items() if _takes(_meta(name), key)}
    return timm.create_model(name, num_classes=0, **chosen)


@cache
def _meta(name: str) -> Any:
    """timm's network called `name` without allocating its weights, for its facts; the generator is left alone."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return timm.create_model(name, num_classes=1)  # some have no classifier otherwise


def _twin(spec: NetworkSpec) -> TimmStages:
    """The network of `spec` without allocating its weights; the generator is left alone."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return TimmStages(_create(spec), spec)


def _input_change(mean: Sequence[float], std: Sequence[float]) -> dict[str, list[float]]:
    """Scale and shift that take images standardised by `MEAN` and `STD` to those standardised by `mean` and `std`."""
    return {
        "input_scale": [ours / theirs for ours, theirs in zip(STD, std, strict=True)],
        "input_shift": [(ours - theirs) / by for ours, theirs, by in zip(MEAN, mean, std, strict=True)],
    }


def _takes(net: Any, argument: str) -> bool:
    """Whether timm's class of the network has this argument, itself or by passing others on to its base."""
    for kind in type(net).__mro__:
        parameters = inspect.signature(kind).parameters
        if argument in parameters:
            return True
        if not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
            break
    return False


def _infos(net: Any) -> list[dict[str, Any]]:
    """What timm states on each map of the network: `num_chs`, `reduction` and `module`."""
    return list(getattr(net.feature_info, "info", net.feature_info))


def _indices(net: Any) -> list[int]:
    """The maps that end a Conv-block, in timm's numbers."""
    count = len(_infos(net))
    if count > 5 and len({info["reduction"] for info in _infos(net)}) == 1:
        return [-(-count * quarter // 4) - 1 for quarter in (1, 2, 3, 4)]
    return list(range(max(0, count - 5), count))


def _measure(stages: TimmStages) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Channels and strides of the Conv-blocks of a network on torch's meta device; one of `_FAULTS` if uneven."""
    size = [stages.spec.height, stages.spec.width]
    maps = stages(torch.zeros(2, 3, *size, device="meta"))
    strides = []
    for x in maps:
        stride = size[0] // x.shape[2]
        if size != [stride * side for side in x.shape[2:]]:
            raise ValueError(f"a map of {x.shape[2]}×{x.shape[3]} after one of {size[0]}×{size[1]}")
        strides.append(stride)
        size = list(x.shape[2:])
    return tuple(x.shape[1] for x in maps), tuple(strides)


def _shrinking(stages: TimmStages) -> list[str]:
    """The paths of the layers that map the size of the last but one map to that of the last."""
    sizes: dict[str, list[tuple[int, ...]]] = {}
    for path, module in stages.net.named_modules():
        if not list(module.children()):
            module.register_forward_hook(
                lambda _, inputs, output, path=path: sizes.update({path: [inputs[0].shape[2:], output.shape[2:]]})
            )
    *_, before, last = stages(torch.zeros(2, 3, stages.spec.height, stages.spec.width, device="meta"))
    return [path for path, pair in sizes.items() if pair == [before.shape[2:], last.shape[2:]]]


def _imagenet(name: str) -> dict[str, Any]:
    """timm's weights of the network called `name`, from the cache of Hugging Face or downloaded."""
    with torch.random.fork_rng(devices=[]):
        return dict(timm.create_model(name, pretrained=True).state_dict())


def _convert(
    network: nn.Module, state: dict[str, Tensor], prefix: str, size: tuple[int, int] | None
) -> dict[str, Tensor]:
    """The tensors of a file for the image size of `network`, by timm's own function for files of this network.

    It resamples the embeddings of positions, and renames what the network's authors published under other names.
    `prefix`: before timm's names or ours.
    """
    net = network.get_submodule(_NET.rstrip("."))
    convert = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    prefix += _NET if any(key.startswith(prefix + _NET) for key in state) else ""
    own = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    try:
        own = _resample_positions(own, net, size)
        converted = own if convert is None else convert(own, net)
    except (*_FAULTS, KeyError) as error:
        raise CheckpointError(
            f"Weights that timm cannot convert to {type(net).__name__} ({error}): expected those of the same network. "
            "Choose the --backbone that these weights belong to, or other weights."
        ) from None
    for key in _input_change(MEAN, STD):
        converted.setdefault(key, net.get_buffer(key))
    rest = {key: tensor for key, tensor in state.items() if not key.startswith(prefix)}
    return rest | {f"{prefix}{key}": tensor for key, tensor in converted.items()}


def _resample_positions(own: dict[str, Tensor], net: Any, size: tuple[int, int] | None) -> dict[str, Tensor]:
    """The tensors of a ViT with its positions resampled to the grid of `net`. timm itself takes any grid for a square.

    The grid of the file is that of images of its `size`, if it states one. Of a file of another program it is a square,
    or of the grids with its number of positions the one of the most similar aspect ratio.
    """
    table, grid = own.get("pos_embed"), getattr(getattr(net, "patch_embed", None), "grid_size", None)
    if table is None or table.ndim != 3 or grid is None or "mask_token" in own:  # DINOv2's own files, which are square
        return own
    prefix = 0 if getattr(net, "no_embed_class", False) else getattr(net, "num_prefix_tokens", 0)
    count = table.shape[1] - prefix
    patch = net.patch_embed.patch_size
    stated = (size[0] // patch[0], size[1] // patch[1]) if size else None
    if stated and stated[0] * stated[1] == count:
        if stated == tuple(grid):
            return own
        return own | {"pos_embed": resample_abs_pos_embed(table, list(grid), list(stated), prefix)}
    if count == grid[0] * grid[1] or isqrt(count) ** 2 == count:
        return own
    heights = (height for height in range(1, count + 1) if count % height == 0)
    height = min(heights, key=lambda height: abs(log(height * height / count * grid[1] / grid[0])))
    resampled = resample_abs_pos_embed(table, list(grid), [height, count // height], prefix)
    return own | {"pos_embed": resampled}


def _check_name(name: str) -> None:
    """`OptionError` unless timm has a network called `name`, in which a tag such as `.augreg_in21k` names weights."""
    plain, _, tag = name.partition(".")
    if not timm.is_model(plain):
        near = get_close_matches(plain.lower(), timm.list_models(), n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(TIMM + one for one in near)}? " if near else ""
        raise OptionError(
            f"Unknown timm network {name!r}: expected a name of timm.list_models(). {hint}Correct the name."
        )
    tags = [one.partition(".")[2] for one in timm.list_pretrained(f"{plain}.*")]
    if tag and tag not in tags:
        raise OptionError(
            f"timm has no weights {tag!r} of {plain}: expected one of {', '.join(tags)}. Correct the "
            "name, or leave the part after the dot out."
        )
