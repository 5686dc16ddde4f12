"""Pretrained weights from torchvision, from runs of ptlreid and from other programs, loaded into a network by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ptlreid import models
from ptlreid.errors import CheckpointError
from ptlreid.file_kinds import printable
from ptlreid.files import file_digest
from ptlreid.models.tensor_files import read_tensors, require_tensor_file
from ptlreid.models.transformer_files import as_timm
from ptlreid.models.weights import read_weights_header
from ptlreid.runs import find_run

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ptlreid.models.network import Backbone


@dataclass(frozen=True)
class LoadReport:
    """What was loaded from a file, by name.

    `prefix`: what stands before the network's names in the file; `neck`: before those of the neck, if they are not
    below `prefix`. `loaded`: tensors that were copied. `reshaped`: of another shape in the file, and not loaded.
    `missing`: not in the file. `unused`: in the file and not in the network.
    """

    prefix: str
    neck: str
    loaded: list[str]
    reshaped: list[str]
    missing: list[str]
    unused: list[str]

    def __str__(self) -> str:
        source = f" from {printable(self.prefix)}*" if self.prefix else ""
        neck = f" and {printable(self.neck)}*" if self.neck else ""
        parts = [f"{len(self.loaded)} tensors loaded{source}{neck}"]
        new = self.reshaped + self.missing
        for what, names in (("newly initialised", new), ("unused", self.unused)):
            if names:
                shown = ", ".join(printable(name, 80) for name in names[:3])
                parts.append(f"{len(names)} {what} ({shown}{', ...' if len(names) > 3 else ''})")
        if any(name.startswith(REDUCTION) for name in new):
            parts.append(f"features pass through a newly initialised 1×1 reduction ({REDUCTION})")
        return ", ".join(parts)


REDUCTION = "head.reduce"  # of every network: what it returns is the feature
_NECK = "head.neck."
# What other programs call it: bag-of-tricks, fast-reid, its first versions, SpCL and MMT.
_NECKS = ("bottleneck.", "heads.bottleneck.0.", "heads.bnneck.", "feat_bn.")


def init_digests(init: str, runs: Path) -> dict[str, str]:
    """The digest of the weights that `init` names, a file or a run below `runs`, as {"init": digest}.

    Empty for ImageNet weights and for random initialisation. Raises `CheckpointError` for a file that holds no tensors.
    """
    if init in ("imagenet", "none"):
        return {}
    file = Path(init) if Path(init).is_file() else find_run(runs, init).weights()
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file. Finish that run first, or choose other weights with --init.")
    require_tensor_file(file)
    return {"init": file_digest(file)}


def load_imagenet(network: nn.Module, name: str) -> LoadReport:
    """Initialise the backbone called `name` with the weights of torchvision or timm, from their cache or downloaded."""
    backbone = models.find(name)
    try:
        state = backbone.imagenet()
    except (OSError, RuntimeError) as error:  # offline; a checksum that does not match
        raise CheckpointError(
            f"ImageNet weights of {name} could not be downloaded ({error}). Use --init FILE with "
            "weights downloaded elsewhere, --init RUN to start from a run, or --init none for random initialisation."
        ) from None
    return load_state(network, state, backbone, "ImageNet")


def load_file(network: nn.Module, path: Path, name: str, *, skip: str | None = None) -> LoadReport:
    """Initialise `network` with the weights in `path` (.safetensors, .pth, .pt, .tar), without names containing `skip`.

    Reads ptlreid's own weights, torchvision's, and those of programs that wrap torchvision's names or number its
    layers. A pickle is loaded with `weights_only`: code in it is refused, never run.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file. Give --init imagenet, none, the name of a run, or a file.")
    state = as_timm(read_tensors(path))
    state = {key: value for key, value in state.items() if skip is None or skip not in key}
    return load_state(network, state, models.find(name), str(path), _find_size(path))


def _find_size(path: Path) -> tuple[int, int] | None:
    """Height and width of the images that ptlreid's own weights in `path` are for."""
    try:
        spec = read_weights_header(path).spec
    except CheckpointError:
        return None
    return spec.height, spec.width


def load_state(
    network: nn.Module,
    state: Mapping[str, Tensor],
    backbone: Backbone,
    source: str,
    size: tuple[int, int] | None = None,
) -> LoadReport:
    """Copy from `state` each tensor whose name and shape `network` knows.

    The network's names are looked for below any prefix: as they are, as torchvision's, and with torchvision's layers
    numbered. The prefix and the naming under which most tensors fit are used. The neck has other names and places.
    `size`: height and width of the images that the tensors are for, if known; positions are resampled from it.
    Raises `CheckpointError` if tensors of the backbone are missing, and for values that are no finite numbers.
    """
    own = network.state_dict()
    prefix, names = _find_names(own, state, backbone)
    if backbone.convert is not None:
        state = backbone.convert(network, dict(state), prefix, size)
        prefix, names = _find_names(own, state, backbone)
    neck, neck_names = _find_neck(own, state, prefix)
    names |= neck_names
    loaded = {name: key for name, key in names.items() if own[name].shape == state[key].shape}
    missing = [name for name in own if name not in names]
    reshaped = [name for name in names if name not in loaded]
    # Batch norm's num_batches_tracked is not a weight, and old files lack it.
    lost = [name for name in missing + reshaped if name.startswith("backbone.") and "num_batches" not in name]
    if lost:
        raise CheckpointError(
            f"{source}: {len(loaded)} of {len(own)} tensors fit, and {len(lost)} of the backbone's are missing or of "
            f"another shape, such as {lost[0]}. Choose the --backbone that these weights belong to, or other weights."
        )
    for name, key in loaded.items():
        if fault := _fault(state[key], own[name]):
            raise CheckpointError(
                f"{source}: its tensor {printable(key)} {fault}: expected finite numbers. Choose other weights."
            )
    network.load_state_dict({**own, **{name: state[key] for name, key in loaded.items()}})
    unused = sorted(set(state) - set(loaded.values()))
    return LoadReport(prefix, neck, sorted(loaded), sorted(reshaped), sorted(missing), unused)


def _find_names(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], backbone: Backbone
) -> tuple[str, dict[str, str]]:
    """The prefix of the names in the file, and to each of our names the name in the file.

    Of equal fits the first, a student's after all others: files of DINO and its kin hold one next to its teacher.
    """
    without_relu = [layer for layer in backbone.layers if "relu" not in layer]  # as MMT numbers them
    numbered = (_naming_by_layers(backbone, layers) for layers in (backbone.layers, without_relu))
    namings = (lambda name: (name,), backbone.rename, *numbered)
    fits: Counter[tuple[str, int]] = Counter()
    for key, tensor in state.items():
        for prefix, rest in _splits(key):
            for number, naming in enumerate(namings):
                found = (own.get(name) for name in naming(rest))
                fits[prefix, number] += sum(one is not None and one.shape == tensor.shape for one in found)
    best = max(fits.values(), default=0)
    equal = [choice for choice, count in fits.items() if count == best]
    prefix, number = min(equal, key=lambda choice: "student" in choice[0].split("."), default=("", 0))
    below = {key: key.removeprefix(prefix) for key in state if key.startswith(prefix)}
    return prefix, {name: key for key, rest in below.items() for name in namings[number](rest) if name in own}


def _splits(key: str) -> Iterator[tuple[str, str]]:
    """Every prefix of a name that ends with a dot, the empty one first, with the rest of the name."""
    parts = key.split(".")
    for count in range(len(parts)):
        yield "".join(f"{part}." for part in parts[:count]), ".".join(parts[count:])


def _find_neck(own: Mapping[str, Tensor], state: Mapping[str, Tensor], prefix: str) -> tuple[str, dict[str, str]]:
    """The prefix of the neck in a file whose backbone is below `prefix`, and to each of its names that in the file.

    Empty if the network has no neck, and where none fits completely; the count of batches is not a weight.
    """
    neck = [name for name in own if name.startswith(_NECK)]
    for outer, _ in _splits(prefix):
        for found in (f"{outer}{theirs}" for theirs in _NECKS):
            names = {name: f"{found}{name.removeprefix(_NECK)}" for name in neck}
            names = {name: key for name, key in names.items() if key in state and own[name].shape == state[key].shape}
            if names and all(name in names for name in neck if "num_batches" not in name):
                return found, names
    return "", {}


def _naming_by_layers(backbone: Backbone, layers: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Our names of a tensor in a file whose layers are torchvision's, numbered or without the name of their parent.

    `nn.Sequential(*resnet.children())` has `4.0.conv1.weight` for `layer1.0.conv1.weight`.
    """
    named = {str(number): layer for number, layer in enumerate(layers)}
    named |= {layer.rpartition(".")[2]: layer for layer in layers}

    def names(key: str) -> tuple[str, ...]:
        first, dot, rest = key.partition(".")
        return backbone.rename(f"{named[first]}{dot}{rest}") if first in named else ()

    return names


def _fault(tensor: Tensor, own: Tensor) -> str | None:
    """What is wrong with the values of a tensor that takes the place of `own`; None if nothing is."""
    if own.is_floating_point() and not tensor.is_floating_point():
        return f"holds {str(tensor.dtype).removeprefix('torch.')} values"
    if not bool(tensor.to(own.dtype).isfinite().all()):
        return "holds NaN or infinity"
    return None
