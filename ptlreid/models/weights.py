"""Files of weights: written with what it takes to build the network again, read from this program and from others."""

from __future__ import annotations

import errno
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptlreid import models
from ptlreid.errors import CheckpointError
from ptlreid.files import atomic_write, file_digest
from ptlreid.network_types import NetworkSpec, Readout

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ptlreid.models.network import Backbone, Network

_ABOUT = "ptlreid"  # the key of our description in a safetensors header
_AGAIN = "Remove the file, and the command that trained the run writes it again."


@dataclass(frozen=True)
class WeightsFile:
    """Weights on disk. Looking at them does not import torch; `build` does."""

    path: Path
    spec: NetworkSpec
    readout: Readout
    digest: str

    def build(self) -> Network:
        """The network with these weights, on the CPU, in eval mode."""
        from safetensors.torch import load_file

        network = models.build(self.spec)
        try:
            network.load_state_dict(load_file(self.path))
        except RuntimeError:
            raise CheckpointError(f"{self.path}: not the tensors of the network that it tells of. {_AGAIN}") from None
        return network.eval()


def save(network: Network, spec: NetworkSpec, path: Path) -> None:
    """Write the network's weights and its description to a safetensors file, aside and renamed."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    about = {"network": spec.describe(), "readout": network.readout.describe()}
    with atomic_write(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={_ABOUT: json.dumps(about, sort_keys=True)})
        except SafetensorError as error:  # how safetensors tells of a full disk
            raise OSError(errno.EIO, "the disk may be full") from error


def read_weights_header(path: Path) -> WeightsFile:
    """What the weights in `path` are; `CheckpointError` when this program did not write them, or not all of them."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights. The run has not got that far: continue it, or choose another.")
    try:
        with safe_open(path, framework="np") as file:
            about = (file.metadata() or {}).get(_ABOUT)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a whole safetensors file ({error}). Train the run again.") from None
    if about is None:
        raise CheckpointError(f"{path}: weights of another program. Fine-tune from them with --init {path}.")
    try:
        content = json.loads(about)
        spec, readout = NetworkSpec(**content["network"]), Readout(**content["readout"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: does not tell of a network that is known here ({error}). {_AGAIN}") from None
    return WeightsFile(path, spec, readout, file_digest(path))


@dataclass(frozen=True)
class LoadReport:
    """What became of a file's tensors, by name: taken over, replaced as their shape differs, missing, of no use."""

    taken: list[str]
    replaced: list[str]
    missing: list[str]
    unused: list[str]

    def __str__(self) -> str:
        parts = [f"{len(self.taken)} tensors loaded"]
        for what, names in (("newly made", self.replaced + self.missing), ("of no use", self.unused)):
            if names:
                parts.append(f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})")
        return ", ".join(parts)


def load_imagenet(network: nn.Module, name: str) -> LoadReport:
    """Start the backbone called `name` from torchvision's ImageNet weights, from its cache folder or downloaded."""
    backbone = models.find(name)
    try:
        state = backbone.imagenet()
    except (OSError, RuntimeError) as error:  # no network; a checksum that does not match
        raise CheckpointError(
            f"ImageNet weights of {name} could not be had ({error}). Use --init FILE with torchvision's weights "
            "downloaded elsewhere, --init RUN to go on from a run, or --init none to start from chance."
        ) from None
    return load_state(network, state, backbone, "ImageNet")


def load_file(network: nn.Module, path: Path, name: str, *, without: str | None = None) -> LoadReport:
    """Start `network` from the weights in `path` (.safetensors, .pth, .pt, .tar), all but names with `without` in them.

    Read are this program's weights, torchvision's, and those of programs that keep torchvision's names within
    their own (torchreid, fast-reid). A pickle is opened with `weights_only`: code in it is refused, never run.
    """
    state = {key: value for key, value in _read(path).items() if without is None or without not in key}
    return load_state(network, state, models.find(name), str(path))


def load_state(network: nn.Module, state: Mapping[str, Tensor], backbone: Backbone, source: str) -> LoadReport:
    """Copy from `state` each tensor whose name and shape `network` knows.

    Names are tried as they are, and as torchvision's, below each prefix found in `state`: the reading under which
    most tensors fit is used. Raises `CheckpointError` when the backbone is not covered whole.
    """
    own = network.state_dict()
    readings = [_translate(state, prefix, backbone) for prefix in _PREFIXES]
    readings += [{key.removeprefix(prefix): key for key in state} for prefix in _PREFIXES]
    names = max(readings, key=lambda reading: sum(_fits(own, state, name, key) for name, key in reading.items()))
    taken = {name: key for name, key in names.items() if _fits(own, state, name, key)}
    missing = [name for name in own if name not in names]
    replaced = [name for name in names if name in own and name not in taken]
    # A count of batches seen is no weight: the oldest files have none.
    lost = [name for name in missing + replaced if name.startswith("backbone.") and "num_batches" not in name]
    if lost:
        raise CheckpointError(
            f"{source}: {len(taken)} of {len(own)} tensors fit, and {len(lost)} of the backbone's are missing or of "
            f"another shape, such as {lost[0]}. Choose the --backbone that these weights belong to, or other weights."
        )
    network.load_state_dict({**own, **{name: state[key] for name, key in taken.items()}})
    return LoadReport(sorted(taken), sorted(replaced), sorted(missing), sorted(set(state) - set(taken.values())))


# torch's DataParallel, Lightning and fast-reid put their own names before torchvision's.
_PREFIXES = ("", "module.", "model.", "backbone.", "base.", "module.backbone.", "module.base.", "model.backbone.")


def _translate(state: Mapping[str, Tensor], prefix: str, backbone: Backbone) -> dict[str, str]:
    """Our name of each tensor that has one, with the file's, reading the file's names as torchvision's."""
    names = {}
    for key in state:
        if key.startswith(prefix):
            names.update(dict.fromkeys(backbone.rename(key.removeprefix(prefix)), key))
    return names


def _fits(own: Mapping[str, Tensor], state: Mapping[str, Tensor], name: str, key: str) -> bool:
    return name in own and own[name].shape == state[key].shape


def _read(path: Path) -> dict[str, Tensor]:
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file as load_safetensors

    from ptlreid.models.pickles import numpy_scalars

    if not path.is_file():
        raise CheckpointError(f"{path}: no such file. --init takes imagenet, none, the name of a run, or a file.")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_safetensors(path)
        else:
            with warnings.catch_warnings(), torch.serialization.safe_globals(numpy_scalars()):
                warnings.simplefilter("ignore", UserWarning)  # of pickles of another kind, which it then may refuse
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path}: refused, as it holds more than tensors and could run code. Save its state_dict alone."
        ) from None
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable file of weights ({error}). Fetch it again.") from None
    return _tensors(content, path, torch.is_tensor)


def _tensors(content: Any, path: Path, is_tensor: Callable[[Any], bool]) -> dict[str, Tensor]:
    """The state dict in `content`, which may lie below one wrapper key."""
    for wrapper in ("state_dict", "model", "network", "weights"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    state = {key: value for key, value in content.items() if is_tensor(value)} if isinstance(content, Mapping) else {}
    if not state:
        raise CheckpointError(f"{path}: holds no named tensors. Give a state_dict.")
    return state
