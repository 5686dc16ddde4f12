"""A backbone as in the paper: a sequence of Conv-blocks, each with its channels and its stride."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from ptlreid.errors import CheckpointError, OptionError
from ptlreid.models.tensor_files import read_tensors


class Staged(nn.Module):
    """A sequence of Conv-blocks. `channels`: of each block's output; `strides`: of each block."""

    def __init__(self, blocks: Mapping[str, nn.Module], channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict(blocks)
        self.channels, self.strides = tuple(channels), tuple(strides)

    def forward(self, images: Tensor) -> list[Tensor]:
        """x1 .. x5 of Eq. 3: the (B, C, H, W) output of each Conv-block."""
        maps: list[Tensor] = []
        for block in self.blocks.values():
            maps.append(block(maps[-1] if maps else images))
        return maps

    def distances(self) -> dict[str, int]:
        """The number of layers from each parameter up to the head, by name: 1 in the last Conv-block."""
        count = len(self.blocks)
        return {
            f"blocks.{block}.{name}": count - number
            for number, (block, module) in enumerate(self.blocks.items())
            for name, _ in module.named_parameters()
        }

    def keep_last_size(self, name: str) -> None:
        """Set the strides of the last Conv-block to 1, as Luo et al. (CVPRW 2019) do for ResNets.

        Convolutions keep their weights; average pooling of 2×2 with stride 2 goes. Raises `OptionError` where the block
        of the backbone called `name` shrinks its map otherwise, by patches that do not overlap for example.
        """
        last = list(self.blocks.values())[-1]
        for path, _ in list(last.named_modules()):
            keep_map_size(last, path, name)
        self.strides = (*self.strides[:-1], 1)


def keep_map_size(parent: nn.Module, path: str, name: str) -> None:
    """Set the strides of the layer at `path` in `parent` to 1, as in `Staged.keep_last_size`."""
    layer = parent.get_submodule(path)
    if isinstance(layer, nn.AvgPool2d):
        above, _, child = path.rpartition(".")
        setattr(parent.get_submodule(above), child, nn.Identity())
    elif isinstance(layer, nn.Conv2d) and layer.stride != (1, 1):
        if any(size % 2 == 0 for size in layer.kernel_size):
            raise OptionError(
                f"last_stride = 1 does not suit {name}, whose last block cuts its map into patches of "
                f"{layer.kernel_size[0]}×{layer.kernel_size[1]}: expected last_stride = 2. Leave it out, or "
                "choose another --backbone."
            )
        layer.stride = (1, 1)


def block(**parts: nn.Module) -> nn.Sequential:
    """A Conv-block: the parts in sequence, under their names."""
    return nn.Sequential(OrderedDict(parts))


def imagenet(name: str) -> Callable[[], dict[str, Any]]:
    """A function that returns torchvision's first ImageNet weights (V1) of network `name`, their checksum verified.

    V1 is what the paper started from; weights of later recipes fine-tune differently.
    """

    def fetch() -> dict[str, Any]:
        choice = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
        return read_tensors(_download(choice.url))

    return fetch


def not_there(name: str) -> Callable[[], dict[str, Any]]:
    """A function that says where weights of network `name` are, of which torchvision has none."""

    def refuse() -> dict[str, Any]:
        raise CheckpointError(
            f"torchvision has no ImageNet weights of {name}: expected a file. Give --init FILE with the weights that "
            "its authors publish (page Networks of the documentation), or --init none for random initialisation."
        )

    return refuse


def _download(url: str) -> Path:
    """torchvision's file at `url`, from torch's cache folder or downloaded; its name has the start of its SHA-256.

    torch verifies a file when it is downloaded; one that is in the cache already is verified here.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    published = file.stem.rpartition("-")[2]
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), hash_prefix=published, progress=False)
        return file
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if not digest.startswith(published):
        raise CheckpointError(
            f"{file}: not the file that torchvision published (its SHA-256 begins with {digest[: len(published)]}, "
            f"expected {published}). Remove it and run the command again, which downloads it."
        )
    return file
