"""The split of the user's own images: training and test identities, and which test images are queries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from ptlreid.errors import DataError

PARTS = ("train", "query", "gallery")

# Row numbers of the images of one identity, by camera.
_ByCamera = dict[int, list[int]]


def split_images(images: Sequence[tuple[int, int, str]], *, seed: int, test_share: float) -> list[str]:
    """train, query or gallery for each image, given as (pid, camid, part).

    A given part is kept; "test" is split into query and gallery here. If no part is given, a fraction `test_share` of
    the identities is the test set, disjoint from the training set. Identities seen by two cameras and those seen by one
    are divided separately, so that some of the former are tested. Junk and distractors go to the gallery. Depends only
    on `seed` and the order of `images`.
    """
    parts = [part for _, _, part in images]
    rng = np.random.default_rng(seed)
    if not any(parts):
        test = _choose_test_identities(images, rng, test_share)
        parts = ["test" if pid in test or pid < 0 else "train" for pid, _, _ in images]
    rows = [row for row, part in enumerate(parts) if part == "test"]
    queries = _choose_queries(images, rows, rng)
    for row in rows:
        parts[row] = "query" if row in queries else "gallery"
    return parts


def choose_protocol(images: Sequence[tuple[int, int, str]]) -> str:
    """`market` if some query, in (pid, camid, part), has a match in another camera, otherwise `any-camera`.

    `market` if all images are for training, too.
    """
    gallery = {(pid, camid) for pid, camid, part in images if part == "gallery" and pid >= 0}
    cameras = defaultdict(set)
    for pid, camid in gallery:
        cameras[pid].add(camid)
    crossed = any(cameras[pid] - {camid} for pid, camid, part in images if part == "query")
    return "market" if crossed or all(part == "train" for _, _, part in images) else "any-camera"


def _choose_test_identities(
    images: Sequence[tuple[int, int, str]], rng: np.random.Generator, test_share: float
) -> set[int]:
    """The test pids, sampled separately from those seen by two cameras and from the others."""
    cameras = defaultdict(set)
    for pid, camid, _ in images:
        if pid >= 0:
            cameras[pid].add(camid)
    if len(cameras) < 2:
        raise DataError(
            f"{len(cameras)} {'identity' if cameras else 'identities'} found: expected at least 2, one to train on and "
            "one to test. Give more identities, or a CSV with a column `split`; add --unlabelled if none is known."
        )
    several = [pid for pid in sorted(cameras) if len(cameras[pid]) > 1]
    single = [pid for pid in sorted(cameras) if len(cameras[pid]) == 1]
    test: set[int] = set()
    for pids in (several, single):
        # At least one to test, and at least one to train on.
        number = min(max(round(test_share * len(pids)), 0 if test else 1), len(cameras) - 1 - len(test))
        test.update(int(pid) for pid in rng.permutation(pids)[:number])
    return test


def _choose_queries(images: Sequence[tuple[int, int, str]], rows: Sequence[int], rng: np.random.Generator) -> set[int]:
    """The rows of queries: one of each identity and camera, as far as a match remains."""
    identities: dict[int, _ByCamera] = {}
    for row in rows:
        pid, camid, _ = images[row]
        if pid >= 0:
            identities.setdefault(pid, {}).setdefault(camid, []).append(row)
    crossed = any(len(by_camera) > 1 for by_camera in identities.values())
    return {row for pid in sorted(identities) for row in _choose_queries_of(identities[pid], rng, crossed=crossed)}


def _choose_queries_of(by_camera: _ByCamera, rng: np.random.Generator, *, crossed: bool) -> list[int]:
    """Queries of one identity. With `crossed`, each has a match in another camera among the remaining images."""
    if crossed and len(by_camera) < 2:
        return []
    plenty = [camid for camid in sorted(by_camera) if len(by_camera[camid]) > 1]
    if not crossed:
        return [int(rng.choice(by_camera[camid])) for camid in plenty]
    # A camera with a single image provides a query only if no camera has more: the other cameras' images remain.
    cameras = plenty or sorted(by_camera)[:1]
    return [int(rng.choice(by_camera[camid])) for camid in cameras]
