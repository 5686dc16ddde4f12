"""The memory of cluster centroids, and the contrastive loss of adaptation against it.

Cluster contrast: Dai et al., "Cluster contrast for unsupervised person re-identification", ACCV 2022. Camera-aware
proxies: Wang et al., AAAI 2021 (CAP). Outliers as instances of their own: Ge et al., NeurIPS 2020 (SpCL).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ptlreid.devices import without_autocast
from ptlreid.distributed import gather_batch


@dataclass(frozen=True)
class MemoryOptions:
    """What the memory holds and how its loss is computed.

    `temperature`: published are 0.05 (cluster contrast, SpCL) and 0.07 (CAP). `momentum`: the share of an entry that an
    image leaves of it; 0.1 in the commands of cluster contrast, 0.2 in CAP and SpCL. `proxies`: an entry per camera
    of a cluster. `inter_weight`: of the term between cameras, 0.5 in CAP, which has it from the sixth epoch on.
    `hard_negatives`: proxies of other clusters in that term, 50 in CAP. `outliers`: an entry for each outlier;
    otherwise outliers have no part in the loss.
    """

    temperature: float
    momentum: float
    proxies: bool
    inter_weight: float
    hard_negatives: int
    outliers: bool


class ClusterMemory:
    """One L2-normalised vector, an entry, per cluster, or per cluster and camera.

    `entries`: (E, D) float32, in the order of `labels`, and within a label of `cameras`. `labels`: (N,) int64, the
    cluster of each training image, -1 for an outlier. `cameras`: (N,) int64 from 0. All are on the network's device.
    See `build_memory`. Entries per camera need `options.proxies` and images of more than one camera.
    """

    def __init__(self, entries: Tensor, labels: Tensor, cameras: Tensor, options: MemoryOptions) -> None:
        self.entries, self.labels, self.cameras, self.options = entries, labels, cameras, options
        self._layout = _arrange(labels, cameras, options)
        if len(entries) != len(self._layout.clusters):
            raise ValueError(f"{len(entries)} entries, expected {len(self._layout.clusters)}")

    def terms(self, embedding: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """The terms of the loss, scalars: `cluster`, or `intra` and `inter` if entries are per camera.

        `embedding`: (B, D), which is L2-normalised here. `rows`: (B,) int64, the images' places among the N. With the
        cosine s of an image and an entry over the temperature, `cluster` is -log(exp s(own) / sum over all of exp s)
        (cluster contrast), and `intra` the same over the entries of the image's camera (CAP). `inter` (CAP) is
        the mean of -log(exp s(p) / sum over P and Q of exp s) over p in P: P are the entries of the image's cluster in
        other cameras, Q the nearest ones of other clusters.

        Each term is the mean over the images that have it, in the batch of all processes; 0 with zero gradient if there
        are none. CAP's released code sums the cameras' means instead, and counts the image's own entry to P.
        """
        vectors, own = self._select(embedding, rows)
        with without_autocast(embedding.device):
            logits = vectors @ self.entries.T / self.options.temperature  # (M, E)
        if not self._layout.per_camera:
            return {"cluster": _contrast(logits, own)}
        cameras = self._layout.cameras
        elsewhere = cameras != cameras[own, None]
        intra = _contrast(logits.masked_fill(elsewhere, -torch.inf), own)
        return {"intra": intra, "inter": self.options.inter_weight * self._inter(logits, own, elsewhere)}

    def update(self, embedding: Tensor, rows: Tensor) -> None:
        """Move the entries towards the batch of all processes: entry ← momentum · entry + (1 - momentum) · embedding.

        Image by image in the order of the batch, L2-normalised after each, as all three papers' released code does it.
        Call it once per batch, after `terms`, before or after the backward pass.
        """
        momentum = self.options.momentum
        vectors, own = self._select(embedding.detach(), rows)
        entries = self.entries.clone()  # the backward pass needs the old ones
        # Entries are independent of each other: the first images of all of them at once, then the second ones, ...
        turns = (own == own[:, None]).tril(-1).sum(dim=1)
        for turn in turns.unique():
            now = own[turns == turn]
            entries[now] = F.normalize(momentum * entries[now] + (1 - momentum) * vectors[turns == turn])
        self.entries = entries

    def state(self) -> dict[str, Tensor]:
        """`entries`, `labels` and `cameras`, on the CPU: see `restore_memory`."""
        return {"entries": self.entries.cpu(), "labels": self.labels.cpu(), "cameras": self.cameras.cpu()}

    def _select(self, embedding: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The L2-normalised embeddings of the images that have an entry, (M, D), and these entries, (M,)."""
        own = self._layout.entry[gather_batch(rows)]
        vectors = F.normalize(gather_batch(embedding).float())
        return vectors[own >= 0], own[own >= 0]

    def _inter(self, logits: Tensor, own: Tensor, elsewhere: Tensor) -> Tensor:
        clusters = self._layout.clusters
        same = clusters == clusters[own, None]
        positive = same & elsewhere
        some = positive.any(dim=1)
        logits, same, positive = logits[some], same[some], positive[some]
        hard = logits.masked_fill(same, -torch.inf).topk(min(self.options.hard_negatives, len(clusters)), dim=1).values
        total = torch.cat([logits.masked_fill(~positive, -torch.inf), hard], dim=1).logsumexp(dim=1)
        return _mean(total - (logits * positive).sum(dim=1) / positive.sum(dim=1))


@dataclass(frozen=True)
class _Layout:
    """`entry`: (N,), of each image, -1 for none. `clusters`, `cameras`: (E,), of each entry."""

    entry: Tensor
    clusters: Tensor
    cameras: Tensor
    per_camera: bool


def build_memory(
    features: np.ndarray, labels: np.ndarray, cameras: np.ndarray, options: MemoryOptions, device: torch.device
) -> ClusterMemory:
    """The memory of (N, D) float32 features: each entry is the L2-normalised mean of its L2-normalised features.

    `labels`, `cameras`: (N,) int64, see `ClusterMemory`. Several processes give the same.
    """
    state = {"labels": torch.tensor(labels), "cameras": torch.tensor(cameras)}
    layout = _arrange(**state, options=options)
    kept = layout.entry >= 0
    # On the CPU, where the order of a sum is fixed: the memory is the same in all processes.
    sums = torch.zeros(len(layout.clusters), features.shape[1])
    sums.index_add_(0, layout.entry[kept], F.normalize(torch.from_numpy(features[kept.numpy()])))
    return restore_memory({"entries": F.normalize(sums), **state}, options, device)


def restore_memory(state: dict[str, Tensor], options: MemoryOptions, device: torch.device) -> ClusterMemory:
    """The memory whose `state` was saved; `ValueError` or `KeyError` for one of another kind."""
    entries, labels, cameras = (state[name].to(device) for name in ("entries", "labels", "cameras"))
    return ClusterMemory(entries, labels, cameras, options)


def _arrange(labels: Tensor, cameras: Tensor, options: MemoryOptions) -> _Layout:
    outlier = labels < 0
    if options.outliers:  # each is a cluster of one image
        further = labels.max() + 1 + torch.arange(int(outlier.sum()), device=labels.device)
        labels = labels.masked_scatter(outlier, further)
    kept = labels >= 0
    num_cameras = int(cameras.max()) + 1
    per_camera = options.proxies and len(cameras.unique()) > 1
    keys = labels * num_cameras + cameras if per_camera else labels * num_cameras
    found, places = keys[kept].unique(return_inverse=True)
    entry = torch.full_like(labels, -1)
    entry[kept] = places
    return _Layout(entry, found // num_cameras, found % num_cameras, per_camera)


def _contrast(logits: Tensor, own: Tensor) -> Tensor:
    """The mean cross-entropy over images of (M, E) logits, with `own` (M,) as the classes."""
    return _mean(logits.logsumexp(dim=1) - logits.gather(1, own[:, None])[:, 0])


def _mean(values: Tensor) -> Tensor:
    """The mean of (M,) values, 0 if there are none."""
    return values.sum() / max(1, len(values))
