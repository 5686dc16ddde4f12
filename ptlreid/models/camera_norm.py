"""Batch norm that normalises each image by the statistics of its own camera (Zhuang et al., ECCV 2020)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ptlreid.devices import without_autocast
from ptlreid.errors import CheckpointError
from ptlreid.models.camera_statistics import CameraStatistics

BATCH_SHRINKAGE = 1.0

# Returns the normalised maps of one batch norm, given its name, itself and the maps.
Normalise = Callable[[str, _BatchNorm, Tensor], Tensor]


@dataclass(frozen=True)
class CameraNorms:
    """The statistics of K cameras on a network's device.

    `affine`: by the name of a batch norm, scale and shift of the maps of each camera, (K + 1, C) each; the last row is
    the network's own. `centres`: (2, K + 1, D) as in `CameraStatistics`.
    """

    affine: Mapping[str, tuple[Tensor, Tensor]]
    centres: Tensor

    @classmethod
    def of(cls, network: nn.Module, statistics: CameraStatistics, device: torch.device | None = None) -> CameraNorms:
        """Those of `network`, by default on its device; `CheckpointError` if they are of another network."""
        norms = find_norms(network)
        device = device or next(network.parameters()).device
        by_name = {}
        for name, (means, variances) in statistics.norms.items():
            norm = norms.get(name)
            if norm is None or norm.running_mean is None or norm.running_mean.shape != means.shape[1:]:
                raise CheckpointError(
                    f"Camera statistics of a batch norm {name!r}, which the network lacks: expected those of the "
                    "same network. Adapt the run again."
                )
            own = torch.stack([norm.running_mean, _own_variance(norm)]).double().cpu()
            mean = torch.cat([torch.from_numpy(means).double(), own[:1]])
            variance = torch.cat([torch.from_numpy(variances).double(), own[1:]])
            scale, shift = affine(norm, mean, variance)
            by_name[name] = scale.float().to(device), shift.float().to(device)
        return cls(by_name, torch.from_numpy(statistics.centres).to(device))

    @property
    def num_cameras(self) -> int:
        """K; also the row of images of other cameras."""
        return self.centres.shape[1] - 1

    @contextmanager
    def select(self, network: nn.Module, rows: np.ndarray | Tensor) -> Iterator[Tensor]:
        """Within the context, image i of a batch is normalised by row `rows[i]`; yields its (2, B, D) centres."""
        chosen = torch.as_tensor(rows, device=self.centres.device)

        def normalise(name: str, norm: _BatchNorm, maps: Tensor) -> Tensor:
            if name not in self.affine:
                return norm_forward(norm, maps)
            return scale_and_shift(maps, *(one[chosen] for one in self.affine[name]))

        with normalising(network, normalise):
            yield self.centres[:, chosen]


@contextmanager
def normalising_by_camera(network: nn.Module, cameras: Tensor) -> Iterator[None]:
    """Within the context, batch norm normalises each image by the images of its camera in the batch, as in training.

    `cameras`: (B,), their numbers. Means and mean squares of a camera are averaged with those of the batch, which count
    for `BATCH_SHRINKAGE` images: a camera may have one image in the batch, and a map one position. Running statistics
    are left alone. Vectors are normalised as without the context.
    """
    groups = cameras.unique(return_inverse=True)[1]
    members = nn.functional.one_hot(groups).float()  # (B, G)
    counts = members.sum(dim=0)
    share = (counts / (counts + BATCH_SHRINKAGE))[:, None]

    def moments(values: Tensor) -> Tensor:
        return share * (members.T @ values / counts[:, None]) + (1 - share) * values.mean(dim=0)  # (G, C)

    def normalise(name: str, norm: _BatchNorm, maps: Tensor) -> Tensor:
        if maps.ndim == 2:
            return norm_forward(norm, maps)
        with without_autocast(maps.device):
            values = maps.float().flatten(2)  # (B, C, P)
            mean, square = moments(values.mean(dim=2)), moments(values.square().mean(dim=2))
            scale = ((square - mean.square()).clamp(min=0) + norm.eps).rsqrt()
            scale = scale * norm.weight if norm.affine else scale
            shift = norm.bias - mean * scale if norm.affine else -mean * scale
            return scale_and_shift(maps, scale[groups], shift[groups])

    with normalising(network, normalise):
        yield


def fix_camera(network: nn.Module, statistics: CameraStatistics, row: int) -> Tensor:
    """Give the network's batch norms the statistics of one camera, by its `row`; the (2, 1, D) centres of that camera.

    Row K is that of the site. `CheckpointError` as for `CameraNorms.of`.
    """
    CameraNorms.of(network, statistics)  # checks that they are of this network
    norms = find_norms(network)
    if row < len(statistics.names):
        for name, (means, variances) in statistics.norms.items():
            norm = norms[name]
            assert norm.running_mean is not None, "it has running statistics"
            norm.running_mean.copy_(torch.from_numpy(means[row]))
            _own_variance(norm).copy_(torch.from_numpy(variances[row]))
    return torch.from_numpy(statistics.centres[:, row : row + 1].copy())


def find_norms(network: nn.Module) -> dict[str, _BatchNorm]:
    """The batch norms of a network that have statistics, by name."""
    modules = network.named_modules()
    return {name: one for name, one in modules if isinstance(one, _BatchNorm) and one.running_mean is not None}


@contextmanager
def normalising(network: nn.Module, normalise: Normalise) -> Iterator[None]:
    """Within the context, the network's batch norms return what `normalise` does; afterwards they are as before."""
    norms = find_norms(network)

    def replace(name: str, norm: _BatchNorm) -> Callable[[Tensor], Tensor]:
        after = (one for one in (getattr(norm, "drop", None), getattr(norm, "act", None)) if one is not None)
        rest = nn.Sequential(*after)  # of timm's batch norms, which include their activation
        return lambda maps: rest(normalise(name, norm, maps))

    try:
        for name, norm in norms.items():
            norm.forward = replace(name, norm)  # type: ignore[method-assign, assignment]
        yield
    finally:
        for norm in norms.values():
            norm.__dict__.pop("forward", None)  # the class's own appears again


def norm_forward(norm: _BatchNorm, maps: Tensor) -> Tensor:
    """The maps as the batch norm itself normalises them, without the activation that timm's include."""
    plain = next(kind for kind in type(norm).__mro__ if kind.__module__.startswith("torch."))
    return plain.forward(norm, maps)  # type: ignore[attr-defined]


def scale_and_shift(maps: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """(B, C, ...) maps, with scale and shift of each image and channel, (B, C), in the precision of the maps."""
    shape = (*scale.shape, *([1] * (maps.ndim - 2)))
    return (maps * scale.view(shape)).add_(shift.view(shape)).to(maps.dtype)


def affine(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift that normalise by these statistics, in their precision, (..., C)."""
    scale = (variance + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight.detach().to(mean)
    shift = -mean * scale
    return scale, shift + norm.bias.detach().to(mean) if norm.affine else shift


def _own_variance(norm: _BatchNorm) -> Tensor:
    assert norm.running_var is not None, "it has running statistics"
    return norm.running_var
