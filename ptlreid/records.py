"""Image records and the splits of a dataset: arrays, checked when created. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ptlreid.errors import DataError

# Identities are 0 or more.
JUNK = -1  # a false or poor detection: left out of the gallery
DISTRACTOR = -2  # a gallery image that matches no query: Market-1501 names it 0000
UNLABELLED = -1  # the pid of all training images of a dataset without identities
UNKNOWN_CAMERA = -1  # of images that were not prepared; cameras are 0 or more


@dataclass(frozen=True)
class Records:
    """N images with their identities and cameras.

    `paths`: (N,) object array of `Path`. `pids`, `camids`: (N,) int64; identities are 0 or more, pid -1 is junk, -2 a
    distractor. `sources`: (N,) object array, the name of the dataset that each image comes from. `clothes`: (N,) int64,
    numbers of the clothes of an identity, or None if the dataset does not label them; two identities may have the same
    numbers.
    """

    paths: np.ndarray
    pids: np.ndarray
    camids: np.ndarray
    sources: np.ndarray
    clothes: np.ndarray | None = None

    def __post_init__(self) -> None:
        numbers = [column for column in (self.pids, self.camids, self.clothes) if column is not None]
        lengths = {len(self.paths), len(self.sources), *map(len, numbers)}
        if len(lengths) != 1:
            raise ValueError(f"paths, pids, camids, sources and clothes differ in length: {sorted(lengths)}")
        if any(column.dtype != np.int64 for column in numbers):
            types = ", ".join(str(column.dtype) for column in numbers)
            raise ValueError(f"pids, camids and clothes: expected int64, got {types}")

    @classmethod
    def make(
        cls, paths: list[Path], pids: list[int], camids: list[int], source: str, clothes: list[int] | None = None
    ) -> Records:
        """Records of one dataset from plain lists."""
        files = np.empty(len(paths), dtype=object)
        files[:] = paths
        sources = np.full(len(paths), source, dtype=object)
        numbers = np.asarray(pids, dtype=np.int64), np.asarray(camids, dtype=np.int64)
        return cls(files, *numbers, sources, None if clothes is None else np.asarray(clothes, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def num_identities(self) -> int:
        """Number of identities, without junk and distractors."""
        return len(np.unique(self.pids[self.pids >= 0]))

    def count(self) -> dict[str, int]:
        """The number of images, identities and cameras."""
        return {"images": len(self), "identities": self.num_identities, "cameras": len(set(self.cameras()))}

    def cameras(self) -> list[tuple[str, int]]:
        """(N,) the camera of each image: the name of its dataset, and the number there."""
        return list(zip(self.sources.tolist(), self.camids.tolist(), strict=True))

    def select(self, rows: np.ndarray) -> Records:
        """The records at `rows`: indices in the order given, or a boolean mask."""
        clothes = None if self.clothes is None else self.clothes[rows]
        return Records(self.paths[rows], self.pids[rows], self.camids[rows], self.sources[rows], clothes)

    def join(self, other: Records) -> Records:
        """These records, then those of `other`, with the labels of each as they are; clothes only if both have them."""
        ours, theirs = ((one.paths, one.pids, one.camids, one.sources) for one in (self, other))
        paths, pids, camids, sources = (np.concatenate(pair) for pair in zip(ours, theirs, strict=True))
        clothes = [one.clothes for one in (self, other) if one.clothes is not None]
        return Records(paths, pids, camids, sources, np.concatenate(clothes) if len(clothes) == 2 else None)

    def labels(self) -> np.ndarray:
        """(N,) training labels 0 .. classes - 1, in ascending order of pid."""
        return np.unique(self.pids, return_inverse=True)[1].astype(np.int64)


@dataclass(frozen=True)
class Splits:
    """A dataset: training images, queries and gallery. `protocol`: the name of its evaluation protocol.

    The training part may have no identities, see `unlabelled`.
    """

    name: str
    train: Records
    query: Records
    gallery: Records
    protocol: str

    @property
    def has_test(self) -> bool:
        """Whether there are images to evaluate on."""
        return len(self.query) > 0 and len(self.gallery) > 0

    @property
    def unlabelled(self) -> bool:
        """Whether there are training images, and none has an identity."""
        return len(self.train) > 0 and bool((self.train.pids == UNLABELLED).all())

    def without_identities(self) -> Splits:
        """The same splits without the identities of the training images; queries and gallery keep theirs."""
        return replace(self, train=replace(self.train, pids=np.full_like(self.train.pids, UNLABELLED)))

    def require_test(self) -> Splits:
        """These splits; `DataError` if they have no test set."""
        if not self.has_test:
            raise DataError(
                f"{self.name}: {len(self.query)} query and {len(self.gallery)} gallery images: expected a test set to "
                "evaluate on. Choose a dataset that has one."
            )
        return self

    def find_misreadings(self) -> list[str]:
        """Signs that something else was taken for identities, such as folders of cameras or parts; none is usual."""
        parts = zip(("training", "query", "gallery"), self.parts, strict=True)
        signs = [f"only one identity among the {name} images" for name, part in parts if part.num_identities == 1]
        labelled = self.parts[1:] if self.unlabelled else self.parts
        pids = np.concatenate([part.pids for part in labelled])
        identities, cameras = len(np.unique(pids[pids >= 0])), len({one for part in labelled for one in part.cameras()})
        if cameras > identities > 0:
            signs.append(f"there are more cameras ({cameras:,}) than identities ({identities:,})")
        return signs

    def require_train(self) -> Splits:
        """These splits; `DataError` if they are `unlabelled`, or likely misread, see `find_misreadings`."""
        if self.unlabelled:
            raise DataError(
                f"{self.name}: its training images have no identities: expected a labelled dataset to train on. Adapt "
                f"a trained run to these images with `ptlreid adapt --run RUN --data {self.name}`."
            )
        signs = self.find_misreadings()
        if signs:
            raise DataError(
                f"{self.name}: {'; '.join(signs)}: expected at least two identities in each part, and no more cameras "
                "than identities. Check that the folders or names of its images were read as you mean them, and add "
                "identities if they were."
            )
        return self

    def rename(self, name: str, source: str | None = None) -> Splits:
        """The same splits under another name; `source`, by default that name, becomes the source of all images."""
        train, query, gallery = (
            replace(part, sources=np.full(len(part), source or name, dtype=object)) for part in self.parts
        )
        return Splits(name, train, query, gallery, self.protocol)

    @property
    def parts(self) -> tuple[Records, Records, Records]:
        """Train, query and gallery."""
        return self.train, self.query, self.gallery
