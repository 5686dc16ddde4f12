"""Pretrained weights from torchvision, from runs of ptlreid and from other programs, loaded into a network by name."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptlreid import models
from ptlreid.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ptlreid.models.network import Backbone


@dataclass(frozen=True)
class LoadReport:
    """What was loaded from a file, by name.

    `loaded`: tensors that were copied. `reshaped`: of another shape in the file, and not loaded. `missing`:
    not in the file. `unused`: in the file and not in the network.
    """

    loaded: list[str]
    reshaped: list[str]
    missing: list[str]
    unused: list[str]

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded"]
        for what, names in (("newly initialised", self.reshaped + self.missing), ("unused", self.unused)):
            if names:
                parts.append(f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})")
        return ", ".join(parts)


def load_imagenet(network: nn.Module, name: str) -> LoadReport:
    """Initialise the backbone called `name` with torchvision's ImageNet weights, from its cache or downloaded."""
    backbone = models.find(name)
    try:
        state = backbone.imagenet()
    except (OSError, RuntimeError) as error:  # offline; a checksum that does not match
        raise CheckpointError(
            f"ImageNet weights of {name} could not be downloaded ({error}). Use --init FILE with torchvision's "
            "weights downloaded elsewhere, --init RUN to start from a run, or --init none for random initialisation."
        ) from None
    return load_state(network, state, backbone, "ImageNet")


def load_file(network: nn.Module, path: Path, name: str, *, skip: str | None = None) -> LoadReport:
    """Initialise `network` with the weights in `path` (.safetensors, .pth, .pt, .tar), without names containing `skip`.

    Reads ptlreid's own weights, torchvision's, and those of programs that wrap torchvision's names (torchreid,
    fast-reid). A pickle is loaded with `weights_only`: code in it is refused, never run.
    """
    state = {key: value for key, value in _read(path).items() if skip is None or skip not in key}
    return load_state(network, state, models.find(name), str(path))


def load_state(network: nn.Module, state: Mapping[str, Tensor], backbone: Backbone, source: str) -> LoadReport:
    """Copy from `state` each tensor whose name and shape `network` knows.

    Names are tried as they are and as torchvision's, with each known prefix removed; the variant under which most
    tensors fit is used. Raises `CheckpointError` if tensors of the backbone are missing.
    """
    own = network.state_dict()
    variants = [_translate(state, prefix, backbone) for prefix in _PREFIXES]
    variants += [{key.removeprefix(prefix): key for key in state} for prefix in _PREFIXES]
    names = max(variants, key=lambda variant: sum(_fits(own, state, name, key) for name, key in variant.items()))
    loaded = {name: key for name, key in names.items() if _fits(own, state, name, key)}
    missing = [name for name in own if name not in names]
    reshaped = [name for name in names if name in own and name not in loaded]
    # Batch norm's num_batches_tracked is not a weight, and old files lack it.
    lost = [name for name in missing + reshaped if name.startswith("backbone.") and "num_batches" not in name]
    if lost:
        raise CheckpointError(
            f"{source}: {len(loaded)} of {len(own)} tensors fit, and {len(lost)} of the backbone's are missing or of "
            f"another shape, such as {lost[0]}. Choose the --backbone that these weights belong to, or other weights."
        )
    network.load_state_dict({**own, **{name: state[key] for name, key in loaded.items()}})
    return LoadReport(sorted(loaded), sorted(reshaped), sorted(missing), sorted(set(state) - set(loaded.values())))


# torch's DataParallel, Lightning and fast-reid prefix torchvision's names with their own.
_PREFIXES = ("", "module.", "model.", "backbone.", "base.", "module.backbone.", "module.base.", "model.backbone.")


def _translate(state: Mapping[str, Tensor], prefix: str, backbone: Backbone) -> dict[str, str]:
    """Our name of each tensor to the name in the file, taking the latter for torchvision's."""
    names = {}
    for key in state:
        if key.startswith(prefix):
            names.update(dict.fromkeys(backbone.rename(key.removeprefix(prefix)), key))
    return names


def _fits(own: Mapping[str, Tensor], state: Mapping[str, Tensor], name: str, key: str) -> bool:
    return name in own and own[name].shape == state[key].shape


def _read(path: Path) -> dict[str, Tensor]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file as load_safetensors

    if not path.is_file():
        raise CheckpointError(f"{path}: no such file. Give --init imagenet, none, the name of a run, or a file.")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_safetensors(path)
        else:
            with warnings.catch_warnings(), torch.serialization.safe_globals(_numpy_scalars()):
                warnings.simplefilter("ignore", UserWarning)  # about pickles of other kinds, which may be refused below
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path}: refused, as it contains more than tensors and could run code. Save its state_dict alone."
        ) from None
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable weights file ({error}). Download it again.") from None
    return _find_state_dict(content, path, torch.is_tensor)


def _numpy_scalars() -> list[Any]:
    """The globals that a pickled NumPy number needs, by old and new module names: torchreid saves its score as one."""
    import numpy as np
    from numpy._core import multiarray

    names = ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar")
    kinds = (np.float16, np.float32, np.float64, np.int32, np.int64)
    return [*((multiarray.scalar, name) for name in names), np.dtype, *(type(np.dtype(kind)) for kind in kinds)]


def _find_state_dict(content: Any, path: Path, is_tensor: Callable[[Any], bool]) -> dict[str, Tensor]:
    """The state dict in `content`, which may be nested under wrapper keys."""
    for wrapper in ("state_dict", "model", "network", "weights"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    state = {key: value for key, value in content.items() if is_tensor(value)} if isinstance(content, Mapping) else {}
    if not state:
        raise CheckpointError(f"{path}: contains no named tensors. Give a state_dict.")
    return state
