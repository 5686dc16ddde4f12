"""Which gallery images a search looks at, and who is searched for, in a gallery or in one part of it after another."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np

from ptlreid.errors import DataError
from ptlreid.retrieval.path_times import find_time
from ptlreid.retrieval.search import Person, Side, find_own
from ptlreid.settings import SearchSettings


@dataclass
class GalleryFilter:
    """The images that --camera, --glob, --after and --before leave, and what was seen of the parts of a gallery."""

    settings: SearchSettings
    _cameras: set[str] = field(default_factory=set)
    _first: str = ""
    _num_images: int = 0
    _any_time: bool = False
    _any_kept: bool = False

    @property
    def active(self) -> bool:
        """Whether any image may be left out."""
        return bool(self.settings.camera) or self.needs_paths

    @property
    def needs_paths(self) -> bool:
        """Whether the paths of images decide."""
        return bool(self.settings.glob or self.settings.after or self.settings.before)

    def keep(self, paths: np.ndarray, cameras: np.ndarray) -> np.ndarray:
        """(N,) bool: the images of a part that are searched. Both arguments: (N,) object arrays of str."""
        kept = np.ones(len(paths), dtype=bool)
        self._first, self._num_images = self._first or str(paths[0]), self._num_images + len(paths)
        if self.settings.camera:
            self._cameras |= set(cameras.tolist()) - {""}
            kept &= np.isin(cameras.astype(str), self.settings.camera)
        if self.settings.glob:
            pattern = self.settings.glob
            kept &= np.array([fnmatchcase(path, pattern) for path in paths.tolist()])
        if self.settings.after or self.settings.before:
            kept &= self._find_times(paths)
        self._any_kept |= bool(kept.any())
        return kept

    def check(self) -> None:
        """Raise `DataError` where no part has an image that is searched, or none of a camera that was named."""
        unknown = [name for name in self.settings.camera if name not in self._cameras]
        if unknown:
            raise DataError(
                f"--camera {unknown[0]}: no gallery image is known to be by it, expected one of "
                f"{', '.join(sorted(self._cameras)[:20]) or 'none, as no cameras are known'}. Correct it."
            )
        if (self.settings.after or self.settings.before) and not self._any_time:
            raise DataError(
                f"--after, --before: none of {self._num_images:,} paths states a time, expected some such as "
                f"2024-05-01/door/12-30-05.jpg; the first is {self._first}. Leave them out, or use --glob."
            )
        if not self._any_kept:
            raise DataError(
                "No gallery image is left by --camera, --glob, --after and --before: expected at least one. Change "
                "them."
            )

    def _find_times(self, paths: np.ndarray) -> np.ndarray:
        """(N,) bool: the images between the times; one whose path states none is not."""
        low, high = self.settings.times
        times = [find_time(path) for path in paths.tolist()]
        self._any_time |= any(times)
        return np.array(
            [time is not None and (low is None or time >= low) and (high is None or time < high) for time in times]
        )


def group_queries(query: Side, paths: np.ndarray, cameras: np.ndarray, settings: SearchSettings) -> list[Person]:
    """The people who are searched for, with the gallery images that are hidden from each.

    `paths`, `cameras`: (G,) object arrays of str, those of the gallery.
    """
    size = len(query.features)
    groups = [np.arange(size)] if settings.together else [np.array([row]) for row in range(size)]
    own = find_own(query.features.paths, paths) if settings.exclude_query else {}
    people = []
    for rows in groups:
        hidden = [own[row] for row in rows.tolist() if row in own]
        if settings.exclude_same_camera:
            names = set(query.cameras[rows].tolist())
            if "" in names:
                row = rows[query.cameras[rows].tolist().index("")]
                raise DataError(
                    f"{query.features.paths[row]}: its camera is not known, expected it for --exclude-same-camera. "
                    "Give it with --query-camera."
                )
            hidden.append(np.flatnonzero(np.isin(cameras.astype(str), sorted(names))))
        people.append(Person(rows, np.concatenate(hidden) if hidden else np.empty(0, dtype=np.int64)))
    return people
