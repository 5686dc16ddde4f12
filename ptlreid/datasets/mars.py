"""MARS, the video extension of Market-1501, as single frames: the one in the middle of each tracklet.

File names: `bbox_test/0002/0002C1T0001F001.jpg` is person 2, camera 1, tracklet 1, frame 1; `00-1C1T0001F001.jpg` is
junk. `info/test_name.txt` lists the frames. A row of `info/tracks_test_info.mat` is a tracklet: its first and last
frame as lines of that list, counted from 1, person and camera. `info/query_IDX.mat` has the rows that are queries.
"""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path

import numpy as np

from ptlreid.datasets._source_files import gather_splits
from ptlreid.datasets.reader import (
    DISTRACTOR,
    JUNK,
    DatasetInfo,
    Fault,
    Progress,
    Records,
    Reject,
    Splits,
    find_layout,
    is_image,
    list_files,
    list_folders,
    locate,
    refuse,
)
from ptlreid.file_kinds import identify

_ALL = "all"  # with the other frames that are in the folders, as junk

INFO = DatasetInfo(
    title="MARS (single frames)",
    names={"mars": ""},
    full_variants={"": _ALL},
    folders=("mars", "MARS"),
    citation="Zheng et al., MARS: A Video Benchmark for Large-Scale Person Re-identification, ECCV 2016",
    licence="None stated; made available for research.",
    terms="Research use; see the authors' page. The people in it were filmed on a campus.",
    source="https://github.com/liangzheng06/MARS-evaluation",
    note="MARS is read as one frame of each tracklet: scores are not comparable with those of video methods.",
    protocol="market",
    counts={  # of the lists that the authors publish
        "": {
            "train_images": 8298,
            "train_identities": 625,
            "query_images": 1980,
            "query_identities": 626,
            "gallery_images": 12180,
            "gallery_identities": 634,
            "cameras": 6,
        }
    },
)

_FRAMES = {"train": "bbox_train", "test": "bbox_test"}
_NAMES = {part: f"info/{part}_name.txt" for part in _FRAMES}
_TRACKS = {part: f"info/tracks_{part}_info.mat" for part in _FRAMES}
_QUERIES = "info/query_IDX.mat"
_LISTS = (*_NAMES.values(), *_TRACKS.values(), _QUERIES)
_LAYOUT = (*_FRAMES.values(), *_LISTS)
_NAME = re.compile(r"(?P<person>\d{2}(?:\d\d|-1))C(?P<camid>\d)T\d+F\d+\.jpg")
_MOST_BYTES = 1 << 21  # of a .mat file, forty times the largest: what it holds, compressed, is then less than memory
_MOST_NUMBERS = 1 << 22


def read(folder: Path, variant: str = "", reject: Reject = refuse) -> Splits:
    """The splits that the lists in `folder` name, one image for each tracklet, in their order.

    As in the authors' evaluation, the gallery has all test tracklets, the queries among them: a query does not find
    itself, as images of its person by its camera are ignored. Person 0 are distractors. Missing folders and lists go to
    `reject`, and so does a list that is damaged or does not agree with the names of the frames.
    """
    folder = find_layout(folder, _LAYOUT, reject, "Copy it there, or prepare the dataset again.")
    train, gallery = (_read_tracks(folder, part, reject) for part in _FRAMES)
    train = train.select(train.pids >= 0)
    query = gallery.select(_read_queries(folder / _QUERIES, gallery.pids, reject))
    if variant == _ALL:
        train = train.join(_find_other_frames(folder / _FRAMES["train"], train, reject))
        gallery = gallery.join(_find_other_frames(folder / _FRAMES["test"], gallery, reject))
    return Splits("mars", train, query, gallery, INFO.protocol)


def gather(source: Path, target: Path, variant: str, progress: Progress, reject: Reject) -> dict[str, Path]:
    """Link or copy the lists and the frames that are used, found in `source` at any level, into `target`."""
    folder = locate(source, _LAYOUT)
    lists = [folder / name for name in _LISTS]
    return gather_splits(folder, read(folder, variant, reject), target, progress, reject, lists=lists)


def _read_tracks(folder: Path, part: str, reject: Reject) -> Records:
    """The middle frame of each tracklet of `train` or `test`, the earlier of two; none if the lists are no use."""
    file, names = folder / _TRACKS[part], folder / _NAMES[part]
    if file.is_file() and names.is_file():  # otherwise, what is missing is reported with the layout
        try:
            tracks = _read_matrix(file, f"track_{part}_info", columns=4)
            lines = names.read_text(encoding="utf-8", errors="replace").splitlines()
            return _choose_frames(tracks, lines, folder / _FRAMES[part])
        except (OSError, ValueError) as error:
            reject(_describe(file, error))
    return Records.make([], [], [], "mars")


def _choose_frames(tracks: np.ndarray, lines: list[str], frames: Path) -> Records:
    """The frame for each row of `tracks`, (N, 4); `ValueError` where lines and rows do not agree."""
    paths = []
    for row, (first, last, pid, camid) in enumerate(tracks.tolist(), start=1):
        if not 1 <= first <= last <= len(lines):
            raise ValueError(f"row {row} has frames {first} to {last}, and the list of names {len(lines)} lines")
        line = (first + last) // 2
        match = _NAME.fullmatch(lines[line - 1].strip())
        if not match or (pid, camid) != (_number_person(match["person"]), int(match["camid"])):
            name = lines[line - 1].strip()[:40]
            raise ValueError(f"row {row} is of person {pid} by camera {camid}, line {line} of the names is {name!r}")
        paths.append(frames / match["person"] / match[0])
    pids = np.where(tracks[:, 2] == 0, DISTRACTOR, tracks[:, 2])
    return Records.make(paths, pids.tolist(), tracks[:, 3].tolist(), "mars")


def _number_person(name: str) -> int:
    return JUNK if name.endswith("-1") else int(name)


def _read_queries(file: Path, pids: np.ndarray, reject: Reject) -> np.ndarray:
    """The rows of the queries among the test tracklets, which have `pids`; none if the list is no use."""
    if file.is_file() and len(pids):
        try:
            rows = _read_matrix(file, "query_IDX", columns=None).ravel() - 1
            wrong = [row + 1 for row in rows.tolist() if not 0 <= row < len(pids) or pids[row] < 0]
            if wrong:
                raise ValueError(f"query {wrong[0]} is not a tracklet of a person")
            return rows
        except (OSError, ValueError) as error:
            reject(_describe(file, error))
    return np.empty(0, dtype=np.int64)


def _read_matrix(file: Path, name: str, *, columns: int | None) -> np.ndarray:
    """The (N, `columns`) int64 matrix `name` in a MATLAB 5 file; any shape that is not empty with None.

    `ValueError` if it is not there, is damaged or has other numbers than whole ones.
    """
    if file.stat().st_size > _MOST_BYTES:
        raise ValueError(f"larger than {_MOST_BYTES:,} bytes")
    try:
        matrix = _load_variable(file, name)
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if matrix.ndim != 2 or columns not in (None, matrix.shape[1]) or not matrix.size or matrix.dtype.kind not in "iuf":
        raise ValueError(f"{name} has the shape {matrix.shape} and the type {matrix.dtype}")
    numbers = matrix.astype(float)
    whole = (abs(numbers) < _MOST_NUMBERS) & (np.trunc(numbers) == numbers)
    if not whole.all():
        raise ValueError(f"{name} has {matrix[~whole][0]} in place of a whole number")
    return matrix.astype(np.int64)


def _load_variable(file: Path, name: str) -> np.ndarray:
    from scipy.io import loadmat, whosmat

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that occurs twice
        shape = {one: shape for one, shape, _ in whosmat(str(file))}[name]
        if math.prod(shape) > _MOST_NUMBERS:
            raise ValueError(f"{name} has the shape {shape}")
        return np.asarray(loadmat(str(file), variable_names=[name])[name])


def _find_other_frames(folder: Path, known: Records, reject: Reject) -> Records:
    """The images in the folders of persons in `folder` that are not `known`, as junk."""
    used = set(known.paths)
    files = [path for person in list_folders(folder, reject) for path in list_files(person, reject)]
    paths = [path for path in files if is_image(path) and path not in used]
    return Records.make(paths, [JUNK] * len(paths), [1] * len(paths), "mars")


def _describe(file: Path, error: Exception) -> Fault:
    fault = f"cannot be read as a list of MARS: it is {identify(file)} ({error})"
    return Fault("layout", file, fault, "Copy the folder info from the authors' repository again, all five files.")
