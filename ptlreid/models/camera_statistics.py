"""The statistics of a site's cameras: batch norm's for the maps of each camera, and the mean feature. NumPy only.

docs/file-formats.md describes the file, `cameras.safetensors`, which lies next to the weights it belongs to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ptlreid.errors import CheckpointError, DataError
from ptlreid.files import atomic_write, file_digest
from ptlreid.json_files import parse_json
from ptlreid.schemas import CamerasDescription

SCHEMA = 1
SHRINKAGE = 16.0  # a camera's statistics are averaged with those of its site, which count for so many images
_SHOWN = 6
_METADATA_KEY = "ptlreid"  # of the description in a safetensors header
_REMEDY = "Remove it and repeat the command that adapted the run: it writes the file again."
_FILES = {"weights.safetensors": "cameras.safetensors", "best.safetensors": "best-cameras.safetensors"}


@dataclass(frozen=True)
class CameraNames:
    """The K cameras that a network knows. `names`: (dataset, number) of each."""

    names: list[tuple[str, int]]

    def find_rows(self, sources: np.ndarray, camids: np.ndarray) -> np.ndarray:
        """(N,) int64: the row of each image's camera; K where the camera is not known."""
        known = {name: row for row, name in enumerate(self.names)}
        pairs = zip(sources.tolist(), camids.tolist(), strict=True)
        return np.array([known.get(pair, len(known)) for pair in pairs], dtype=np.int64)

    def describe_unknown(self, sources: np.ndarray, camids: np.ndarray) -> str | None:
        """A note on the cameras of images that have no statistics here; None if all have."""
        unknown = self.find_rows(sources, camids) == len(self.names)
        if not unknown.any():
            return None
        cameras = sorted(set(zip(sources[unknown].tolist(), camids[unknown].tolist(), strict=True)))
        shown = ", ".join(f"{camera} of {data}" for data, camera in cameras[:_SHOWN])
        what = "camera" if len(cameras) == 1 else "cameras"
        return (
            f"no statistics of {what} {shown}{', ...' * (len(cameras) > _SHOWN)}: {int(unknown.sum()):,} of "
            f"{len(unknown):,} images are normalised by those of the site that the run was adapted to"
        )


@dataclass(frozen=True)
class GraphCameras(CameraNames):
    """The cameras whose statistics are in an ONNX graph. `input`: the input that takes their rows."""

    input: str

    @property
    def digest(self) -> str:
        """A digest of the names in order: the statistics themselves are in that of the graph."""
        return hashlib.blake2b(json.dumps(self.names).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class CameraStatistics(CameraNames):
    """What images of K cameras look like to one network.

    `images`: (K,) int64, images behind its statistics. `norms`: for each
    batch norm of the network by name, the means and the (biased) variances of what it normalises, (K, C) float32 each.
    `centres`: (2, K + 1, D) float32, the mean feature of images, and of mirrored images; the last row is that of the
    site, for a camera that is not known. `digest`: of the file, "" for statistics that were not read from one.
    """

    images: np.ndarray
    norms: Mapping[str, tuple[np.ndarray, np.ndarray]]
    centres: np.ndarray
    digest: str = ""

    def describe_doubts(self) -> list[str]:
        """What is doubtful about them, a sentence or two each: one camera, or cameras with few images."""
        if len(self.names) == 1:
            return [
                "All images are from one camera: it has the statistics of the site. Check that the dataset states the "
                "cameras, or add images from others."
            ]
        if few := int((self.images < SHRINKAGE).sum()):
            return [
                f"{few:,} of {len(self.names):,} cameras have fewer than {SHRINKAGE:.0f} images: expected more, as the "
                "statistics of the site count more than theirs. Add images."
            ]
        return []


def own_share(images: int) -> float:
    """The weight of a camera's own statistics, of so many images; the rest is that of its site."""
    return images / (images + SHRINKAGE)


def cameras_file(weights: Path) -> Path:
    """Where the statistics of cameras that belong to a weights file are, if there are any."""
    return weights.with_name(_FILES.get(weights.name, f"{weights.stem}-cameras.safetensors"))


def save_cameras(statistics: CameraStatistics, weights: Path) -> None:
    """Write the statistics next to the weights file that they belong to, atomically."""
    from safetensors.numpy import save as serialise

    tensors = {"images": statistics.images, "centres": statistics.centres}
    for name, (means, variances) in statistics.norms.items():
        tensors |= {f"{name}.mean": means, f"{name}.variance": variances}
    cameras = [{"data": data, "camera": camera} for data, camera in statistics.names]
    description = {"schema": SCHEMA, "weights": file_digest(weights), "cameras": cameras}
    content = serialise(tensors, metadata={_METADATA_KEY: json.dumps(description, sort_keys=True)})
    with atomic_write(cameras_file(weights), len(content)) as temporary:
        temporary.write_bytes(content)


def read_cameras(weights: Path, digest: str) -> CameraStatistics | None:
    """The statistics of cameras that belong to a weights file, None without any. `digest`: of that file.

    `CheckpointError` for a file that is damaged, or that belongs to other weights.
    """
    from safetensors import SafetensorError, safe_open

    file = cameras_file(weights)
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="np") as content:
            text = (content.metadata() or {}).get(_METADATA_KEY, "")
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118, it is no dict
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: not a complete safetensors file ({error}). {_REMEDY}") from None
    try:
        described = parse_json(text.encode(), CamerasDescription, str(file), _REMEDY)
    except DataError as error:
        raise CheckpointError(str(error)) from None
    if described["weights"] != digest:
        raise CheckpointError(f"{file}: belongs to other weights than {weights.name}. {_REMEDY}")
    names = [(camera["data"], camera["camera"]) for camera in described["cameras"]]
    return _check(names, tensors, file)


def _check(names: list[tuple[str, int]], tensors: Mapping[str, np.ndarray], file: Path) -> CameraStatistics:
    """The statistics in the tensors of a file; `CheckpointError` where shape, type or values are not as written."""
    count = len(names)
    norms = sorted(name.removesuffix(".mean") for name in tensors if name.endswith(".mean"))
    pairs = {name: (tensors[f"{name}.mean"], tensors.get(f"{name}.variance", np.empty(0))) for name in norms}
    images, centres = tensors.get("images", np.empty(0)), tensors.get("centres", np.empty(0))
    values = [centres, *(one for pair in pairs.values() for one in pair)]
    sound = (
        len(set(names)) == count > 0
        and images.shape == (count,)
        and images.dtype == np.int64
        and centres.ndim == 3
        and centres.shape[:2] == (2, count + 1)
        and all(mean.shape == variance.shape and mean.shape[:1] == (count,) for mean, variance in pairs.values())
        and all(one.dtype == np.float32 and bool(np.isfinite(one).all()) for one in values)
        and all(bool((variance >= 0).all()) for _, variance in pairs.values())
        and len(tensors) == 2 + 2 * len(pairs)
    )
    if not sound:
        raise CheckpointError(f"{file}: its tensors are not statistics of {count} cameras. {_REMEDY}")
    return CameraStatistics(names, images, pairs, centres, file_digest(file))
