"""A split of the user's own images: who is trained on, who is looked for, and which images are the queries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from ptlreid.errors import DataError
from ptlreid.records import DISTRACTOR

PARTS = ("train", "query", "gallery")

# Image numbers of one person, by camera.
_Seen = dict[int, list[int]]


def draw_split(images: Sequence[tuple[int, int, str]], seed: int, test_share: float) -> list[str]:
    """train, query or gallery for each image, given as (pid, camid, part).

    A part that was given stays; "test" is split into query and gallery here. Without any, `test_share` of the people
    are tested and no one is in both; people whom two cameras saw are shared out first, so that some are tested.
    Junk and distractors go to the gallery. Depends on the order of `images` and on `seed` alone.
    """
    parts = [part for _, _, part in images]
    rng = np.random.default_rng(seed)
    if not any(parts):
        test = _test_people(images, rng, test_share)
        parts = ["test" if pid in test or pid <= DISTRACTOR else "train" for pid, _, _ in images]
    waiting = [number for number, part in enumerate(parts) if part == "test"]
    queries = _queries(images, waiting, rng)
    for number in waiting:
        parts[number] = "query" if number in queries else "gallery"
    return parts


def protocol_for(images: Sequence[tuple[int, int, str]]) -> str:
    """`market` where a query, in (pid, camid, part), has a match by another camera, otherwise `any-camera`."""
    gallery = {(pid, camid) for pid, camid, part in images if part == "gallery" and pid > DISTRACTOR}
    cameras = defaultdict(set)
    for pid, camid in gallery:
        cameras[pid].add(camid)
    crossed = any(cameras[pid] - {camid} for pid, camid, part in images if part == "query")
    return "market" if crossed else "any-camera"


def _test_people(images: Sequence[tuple[int, int, str]], rng: np.random.Generator, share: float) -> set[int]:
    """The people to test, drawn apart from those whom two cameras saw and from the others."""
    cameras = defaultdict(set)
    for pid, camid, _ in images:
        if pid > DISTRACTOR:
            cameras[pid].add(camid)
    if len(cameras) < 2:
        raise DataError(
            f"{len(cameras)} person was found, expected 2 at least: one to train on and one to test with. Give more "
            "people, or a CSV with a column `split`."
        )
    crossed = [pid for pid in sorted(cameras) if len(cameras[pid]) > 1]
    alone = [pid for pid in sorted(cameras) if len(cameras[pid]) == 1]
    test: set[int] = set()
    for people in (crossed, alone):
        # Someone to test, and someone to train on.
        number = min(max(round(share * len(people)), 0 if test else 1), len(cameras) - 1 - len(test))
        test.update(int(pid) for pid in rng.permutation(people)[:number])
    return test


def _queries(images: Sequence[tuple[int, int, str]], waiting: Sequence[int], rng: np.random.Generator) -> set[int]:
    """The image numbers that are queries: by each camera one of each person, wherever a match stays."""
    people: dict[int, _Seen] = {}
    for number in waiting:
        pid, camid, _ = images[number]
        if pid > DISTRACTOR:
            people.setdefault(pid, {}).setdefault(camid, []).append(number)
    crossed = any(len(seen) > 1 for seen in people.values())
    return {number for pid in sorted(people) for number in _queries_of(people[pid], rng, crossed=crossed)}


def _queries_of(seen: _Seen, rng: np.random.Generator, *, crossed: bool) -> list[int]:
    """Queries of one person. With `crossed`, each has a match by another camera in what is left."""
    if crossed and len(seen) < 2:
        return []
    plenty = [camid for camid in sorted(seen) if len(seen[camid]) > 1]
    if not crossed:
        return [int(rng.choice(seen[camid])) for camid in plenty]
    # A camera with one image may give it up only if no camera has more: then the other cameras' images stay.
    cameras = plenty or sorted(seen)[:1]
    return [int(rng.choice(seen[camid])) for camid in cameras]
