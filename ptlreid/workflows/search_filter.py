"""Which gallery images a search looks at, and who is searched for, in a gallery or in one part of it after another."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np

from ptlreid.errors import DataError
from ptlreid.progress import Progress
from ptlreid.retrieval.path_times import find_time
from ptlreid.retrieval.search import Person, Side, find_own
from ptlreid.settings import SearchSettings


@dataclass
class GalleryFilter:
    """The images that the options of a search leave, and what was seen of the parts of a gallery.

    These are --camera, --glob, --after and --before; --exclude-same-camera leaves out others for each query, and only
    what cannot be decided is counted here.
    """

    settings: SearchSettings
    _cameras: set[str] = field(default_factory=set)
    _first: str = ""
    _num_images: int = 0
    _any_kept: bool = False
    _without_camera: int = 0
    _without_time: int = 0
    _first_without_time: str = ""

    @property
    def active(self) -> bool:
        """Whether any image may be left out."""
        return self.needs_cameras or self.needs_paths

    @property
    def needs_cameras(self) -> bool:
        """Whether the cameras of images decide."""
        return bool(self.settings.camera or self.settings.exclude_same_camera)

    @property
    def needs_paths(self) -> bool:
        """Whether the paths of images decide."""
        return bool(self.settings.glob) or self._by_time

    @property
    def _by_time(self) -> bool:
        return bool(self.settings.after or self.settings.before)

    def keep(self, paths: np.ndarray, cameras: np.ndarray) -> np.ndarray:
        """(N,) bool: the images of a part that are searched. Both arguments: (N,) object arrays of str."""
        kept = np.ones(len(paths), dtype=bool)
        if not len(paths):
            return kept
        self._first, self._num_images = self._first or str(paths[0]), self._num_images + len(paths)
        if self.needs_cameras:
            self._cameras |= set(cameras.tolist()) - {""}
            self._without_camera += int(np.count_nonzero(cameras == ""))
        if self.settings.camera:
            kept &= np.isin(cameras.astype(str), self.settings.camera)
        if self.settings.glob:
            pattern = self.settings.glob
            kept &= np.array([fnmatchcase(path, pattern) for path in paths.tolist()])
        if self._by_time:
            kept &= self._find_times(paths)
        self._any_kept |= bool(kept.any())
        return kept

    def finish(self, progress: Progress) -> None:
        """Note how many images were left out, or not, because their camera or time is not known.

        Raises `DataError` where an option could decide nothing, or leaves no image.
        """
        unknown = [name for name in self.settings.camera if name not in self._cameras]
        if unknown:
            raise DataError(
                f"--camera {unknown[0]}: no gallery image is known to be by it, expected one of "
                f"{', '.join(sorted(self._cameras)[:20]) or 'none, as no cameras are known'}. Correct it."
            )
        if self.settings.exclude_same_camera and not self._cameras:
            raise DataError(
                f"--exclude-same-camera: of none of {self._num_images:,} gallery images is the camera known, expected "
                "it in their names (_c2), folders or a CSV. Leave the option out."
            )
        if self._by_time and self._without_time == self._num_images:
            raise DataError(
                f"--after, --before: none of {self._num_images:,} paths states a time, expected some such as "
                f"2024-05-01/door/12-30-05.jpg; the first is {self._first}. Leave them out, or use --glob."
            )
        if not self._any_kept:
            raise DataError(
                "No gallery image is left by --camera, --glob, --after and --before: expected at least one. Change "
                "them."
            )
        if self._without_camera:
            fate = "left out" if self.settings.camera else "searched for every query"
            progress.note(
                f"{self._without_camera:,} of {self._num_images:,} gallery images are by no known camera: {fate}"
            )
        if self._without_time:
            progress.note(
                f"{self._without_time:,} of {self._num_images:,} paths state no time: left out; the first is "
                f"{self._first_without_time}"
            )

    def _find_times(self, paths: np.ndarray) -> np.ndarray:
        """(N,) bool: the images between the times; one whose path states none is not."""
        low, high = self.settings.times
        times = [find_time(path) for path in paths.tolist()]
        missing = [path for path, time in zip(paths.tolist(), times, strict=True) if time is None]
        self._without_time += len(missing)
        self._first_without_time = self._first_without_time or next(iter(missing), "")
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
