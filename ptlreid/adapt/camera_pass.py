"""The statistics of a site and of its cameras, from unlabelled images: two passes without gradient.

Adaptive batch normalisation (AdaBN, Li et al. 2016), camera by camera (Zhuang et al., ECCV 2020).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ptlreid import contents, distributed
from ptlreid.errors import DataError
from ptlreid.features import Extractor
from ptlreid.images import load_batches
from ptlreid.models.camera_norm import affine, find_norms, normalising, scale_and_shift
from ptlreid.models.camera_statistics import CameraStatistics, own_share
from ptlreid.models.network import Network
from ptlreid.progress import Progress, Silent
from ptlreid.records import Records
from ptlreid.views import standardize

GROUP = 64  # images that are normalised together, at most
T = TypeVar("T", Tensor, np.ndarray)
_FEATURES = ("features", "features of mirrored images")  # among the moments; no batch norm has such a name


@dataclass(frozen=True)
class Moments:
    """By name, the means and mean squares, (C,) float64, of what batch norms take in, and of features."""

    means: dict[str, np.ndarray]
    squares: dict[str, np.ndarray]

    def shrink(self, site: Moments, images: int) -> Moments:
        """The moments of a camera with so many images, averaged with those of its site."""
        share = own_share(images)
        return Moments(
            {name: _mix(own, site.means[name], share) for name, own in self.means.items()},
            {name: _mix(own, site.squares[name], share) for name, own in self.squares.items()},
        )

    def normal(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Mean and (biased) variance."""
        return self.means[name], np.maximum(self.squares[name] - self.means[name] ** 2, 0)


def collect_cameras(extractor: Extractor, records: Records, progress: Progress | None = None) -> CameraStatistics:
    """The statistics of each camera of `records`; those of the site become the own ones of the extractor's network.

    Images are put in the order of their content, a camera's are divided into equal groups of at most 64, and each group
    passes through the network in eval mode, except that batch norm normalises it by its own statistics, as in training.
    A camera's statistics are those of all that a batch norm takes in from its images: they depend on neither batch size
    nor order, up to rounding. Those of the site are taken before, from groups of all its images.

    A camera with few images shrinks towards the site: means, mean squares and mean feature are averaged with those of
    the site, see `own_share`. Identities are not read. A network without batch norm has mean features alone. Several
    processes share the groups. `DataError` for an image that cannot be decoded, or without images.
    """
    if not len(records):
        raise DataError("There are no training images: expected those of the site. Choose another dataset.")
    digests = distributed.run_on_main(lambda: contents.digest_each(records.paths))
    order = np.lexsort(digests.T)
    cameras = records.cameras()
    names = sorted(set(cameras))
    rows = [np.array([row for row in order.tolist() if cameras[row] == name]) for name in names]
    with (progress or Silent()).task("camera statistics", 2 * len(records)) as advance:
        site = _pass(extractor, records, order, None)
        _set_own(extractor, site)
        done = len(records)
        advance(done)
        found = []
        for part in rows:
            found.append(_pass(extractor, records, part, site).shrink(site, len(part)))
            done += len(part)
            advance(done)
    return _statistics(names, [len(part) for part in rows], found, site)


def _pass(extractor: Extractor, records: Records, rows: np.ndarray, site: Moments | None) -> Moments:
    """The moments of the images at `rows`. `site`: the moments that those of each group shrink towards, if any."""
    groups = np.array_split(rows, math.ceil(len(rows) / GROUP))
    own = groups[distributed.rank() :: distributed.world_size()] if distributed.active() else groups
    collector = _Collector(extractor, site, share=1 if site is None else own_share(len(rows)))
    outcome: dict[str, _Sums] | DataError
    try:
        outcome = collector.collect(records, own)
    except DataError as error:
        outcome = error
    sums: dict[str, _Sums] = {}
    for part in distributed.all_gather(outcome):
        if isinstance(part, DataError):
            raise part
        for name, (count, total, squares) in part.items():
            before = sums.get(name, (0, 0.0, 0.0))
            sums[name] = (before[0] + count, before[1] + total, before[2] + squares)
    return Moments(
        {name: total / count for name, (count, total, _) in sums.items()},
        {name: squares / count for name, (count, _, squares) in sums.items()},
    )


_Sums = tuple[int, Any, Any]  # the number of values of each channel, their sum and the sum of their squares


class _Collector:
    """Passes groups of images through the network, and sums up what its batch norms take in and what comes out.

    `share`: that of a group's own statistics in those that normalise it; the rest is the site's.
    """

    def __init__(self, extractor: Extractor, site: Moments | None, share: float) -> None:
        self._extractor, self._site, self._share = extractor, site, share
        self._sums: dict[str, _Sums] = {}

    def collect(self, records: Records, groups: Sequence[np.ndarray]) -> dict[str, _Sums]:
        """The sums over all images of the groups, by name."""
        extractor, network = self._extractor, self._extractor.network
        assert isinstance(network, Network), "a graph is not adapted"
        readout = replace(extractor.readout, flip=False, normalize=False)
        mode = network.training
        network.eval()
        place = extractor.placement
        batches = load_batches(records.paths, extractor.view, groups, workers=place.workers, pin_for=place.device)
        try:
            for batch in batches:
                images = standardize(batch.images.to(place.device, non_blocking=True))
                with torch.inference_mode(), normalising(network, self._normalise):
                    features = network.features(torch.cat([images, images.flip(3)]), readout)
                for name, one in zip(_FEATURES, features.chunk(2), strict=True):
                    self._add(name, one)
        finally:
            batches.close()
            network.train(mode)
        return self._sums

    def _normalise(self, name: str, norm: _BatchNorm, maps: Tensor) -> Tensor:
        """The maps of images and of their mirror images, both normalised by the statistics of the images."""
        mean, square = self._add(name, maps[: len(maps) // 2])
        if self._site is not None:
            mean = _mix(mean, torch.from_numpy(self._site.means[name]).to(mean), self._share)
            square = _mix(square, torch.from_numpy(self._site.squares[name]).to(square), self._share)
        scale, shift = affine(norm, mean, (square - mean**2).clamp(min=0))
        return scale_and_shift(maps, scale.float()[None], shift.float()[None])

    def _add(self, name: str, values: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and mean square of each channel of (B, C, ...) values, (C,) float64, also added to the sums."""
        others = [dim for dim in range(values.ndim) if dim != 1]
        variance, mean = (one.double() for one in torch.var_mean(values.float(), others, correction=0))
        square = variance + mean**2
        count = values.numel() // values.shape[1]
        before = self._sums.get(name, (0, 0.0, 0.0))
        total, squares = (count * one.cpu().numpy() for one in (mean, square))
        self._sums[name] = (before[0] + count, before[1] + total, before[2] + squares)
        return mean, square


def _set_own(extractor: Extractor, site: Moments) -> None:
    """Make the site's statistics those of the network's batch norms that took part."""
    assert isinstance(extractor.network, Network), "a graph is not adapted"
    for name, norm in find_norms(extractor.network).items():
        if name in site.means:
            assert norm.running_mean is not None and norm.running_var is not None, "found by its statistics"
            mean, variance = site.normal(name)
            norm.running_mean.copy_(torch.from_numpy(mean))
            norm.running_var.copy_(torch.from_numpy(variance))


def _statistics(
    names: list[tuple[str, int]], images: list[int], cameras: list[Moments], site: Moments
) -> CameraStatistics:
    norms = {}
    for name in site.means:
        if name not in _FEATURES:
            pairs = [one.normal(name) for one in cameras]
            norms[name] = (_stack(mean for mean, _ in pairs), _stack(variance for _, variance in pairs))
    centres = np.stack([_stack(one.means[name] for one in (*cameras, site)) for name in _FEATURES])
    return CameraStatistics(names, np.array(images, dtype=np.int64), norms, centres)


def _stack(rows: Iterable[np.ndarray]) -> np.ndarray:
    return np.stack(list(rows)).astype(np.float32)


def _mix(own: T, site: T, share: float) -> T:
    return share * own + (1 - share) * site
