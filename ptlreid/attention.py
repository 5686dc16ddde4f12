"""Where two images agree: the inner product of their features, position by position of the network's last map.

No gradients. With average pooling and a linear head (a 1×1 convolution, a BNNeck), the feature of an image is the mean
over positions of e(p), which the head makes of the map at p alone, and its inner product with the feature q of another
image is the mean of q · e(p): every position has an exact share. docs/search.md says what else is an approximation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptlreid.errors import DataError, OptionError
from ptlreid.features import Extractor
from ptlreid.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Reading:
    """`feature`: (D,), before L2 normalisation. `positions`: (H, W, D), what the head makes of each position alone."""

    feature: np.ndarray
    positions: np.ndarray

    def agree(self, other: np.ndarray) -> np.ndarray:
        """(H, W) in [0, 1]: the share of each position in the inner product with another feature, over the largest.

        Positions that take away from it are 0; all are where none adds to it.
        """
        shares = np.maximum(self.positions @ other, 0)
        return shares / (shares.max() or 1)


@dataclass(frozen=True)
class Agreement:
    """Where an image of a query, and a hit, at this rank, agree: a map of each, as `Reading.agree` has it."""

    rank: int
    query: Path
    hit: Path
    query_map: np.ndarray
    hit_map: np.ndarray


def explain_hits(
    queries: Sequence[Mapping[str, Any]], extractor: Extractor, progress: Progress
) -> list[list[Agreement]]:
    """For each query, in the form of `ptlreid search --json`, the agreement of each of its hits.

    Of several images of a query, the one with the most similar feature (cosine) is compared. Hits and queries whose
    files cannot be read are left out. Raises `OptionError` for a network without one map of positions.
    """
    explained = []
    with progress.task("compare positions", len(queries)) as advance:
        for done, one in enumerate(queries, start=1):
            images = read_positions(extractor, [Path(path) for path in one["paths"]])
            hits = read_positions(extractor, [Path(hit["path"]) for hit in one["hits"]])
            ranked = [(hit["rank"], Path(hit["path"])) for hit in one["hits"]]
            readable = [(rank, path) for rank, path in ranked if images and path in hits]
            explained.append([_compare(rank, path, hits[path], images) for rank, path in readable])
            advance(done)
    return explained


def read_positions(extractor: Extractor, paths: Sequence[Path]) -> dict[Path, Reading]:
    """The reading of each image; files that cannot be read are left out.

    Images are normalised as those of no known camera, and float32 is used whatever the extractor's precision.
    """
    import torch

    from ptlreid.views import decode, resize

    network = _find_network(extractor)
    readings: dict[Path, Reading] = {}
    names = list(dict.fromkeys(paths))
    for at in range(0, len(names), extractor.batch_size):
        pixels = {}
        for path in names[at : at + extractor.batch_size]:
            with suppress(DataError):
                pixels[path] = decode(path)
        if pixels:
            images = torch.from_numpy(resize([*pixels.values()], extractor.view))
            rows = zip(pixels, *_forward(extractor, network, images), strict=True)
            readings |= {path: Reading(feature, positions) for path, feature, positions in rows}
    return readings


def _compare(rank: int, path: Path, hit: Reading, images: Mapping[Path, Reading]) -> Agreement:
    lengths = {one: float(np.linalg.norm(images[one].feature)) or 1.0 for one in images}
    nearest = max(images, key=lambda one: float(images[one].feature @ hit.feature) / lengths[one])
    query = images[nearest]
    return Agreement(rank, nearest, path, query.agree(hit.feature), hit.agree(query.feature))


def _find_network(extractor: Extractor) -> Any:
    """The network; `OptionError` unless it pools the positions of one map."""
    from ptlreid.models.head import Head

    spec = getattr(extractor.model, "spec", None)  # a network in memory has none, and that of an ONNX graph no parts
    if getattr(spec, "pool", "") == "token" or not isinstance(getattr(extractor.network, "head", None), Head):
        raise OptionError(
            f"--attention: the feature of {getattr(spec, 'backbone', 'this network')} is not made of the positions of "
            "one map, as that of a ResNet is: expected such a network. Leave it out, or search with another run."
        )
    return extractor.network.eval()


def _forward(extractor: Extractor, network: Any, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(B, D) features and (B, H, W, D) positions of (B, H, W, 3) uint8 images, summed with those of their mirror images
    if the extractor flips.
    """
    import torch

    from ptlreid.devices import float32_arithmetic
    from ptlreid.views import standardize

    with torch.inference_mode(), float32_arithmetic(tf32=False):
        upright = standardize(images.to(extractor.placement.device))
        features, positions = _read_map(extractor, network, upright, 0)
        if extractor.readout.flip:
            mirrored, others = _read_map(extractor, network, upright.flip(3), 1)
            features, positions = features + mirrored, positions + others.flip(2)
    return features.cpu().numpy(), positions.cpu().numpy()


def _read_map(extractor: Extractor, network: Any, images: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """(B, D) features, and (B, H, W, D) those of each position. `side`: of the centres, 0, or 1 for mirror images."""
    maps: list[Tensor] = []
    hook = network.head.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0]))
    try:
        with _no_camera(extractor, network, len(images)) as centres:
            features = network(images).embedding - centres[side]
    finally:
        hook.remove()
    (top,) = maps  # (B, C, H, W)
    alone = top.permute(0, 2, 3, 1).reshape(-1, top.shape[1], 1, 1)
    with _no_camera(extractor, network, len(alone)) as centres:
        positions = network.head(alone).embedding - centres[side]
    return features, positions.unflatten(0, (len(top), *top.shape[2:]))


@contextmanager
def _no_camera(extractor: Extractor, network: Any, count: int) -> Iterator[Tensor]:
    """Within the context, so many images are normalised as those of no known camera; yields their (2, B, D) centres."""
    import torch

    if extractor.norms is None:
        yield torch.zeros(2, 1, 1, device=extractor.placement.device)
        return
    with extractor.norms.select(network, np.full(count, extractor.norms.num_cameras)) as centres:
        yield centres
