"""Which images a dataset has and what their files are called, after Market-1501."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ptlreid.datasets._synthetic.sites import Site

DAY = 100_000  # frames
Split = Literal["bounding_box_train", "query", "bounding_box_test"]
JUNK, DISTRACTOR = -1, 0


@dataclass(frozen=True)
class Shot:
    """One image to draw: image `index` of person `pid` at camera `camera` (from 1)."""

    split: Split
    pid: int
    camera: int
    index: int


@dataclass(frozen=True)
class Visit:
    """Someone passing a camera: the first frame, frames from one image to the next, and the yaw of the body."""

    frame: int
    gap: int
    yaw: float


def plan(identities: int, cameras: int, images_per_camera: int) -> list[Shot]:
    """All images: people in order of pid, then junk, then distractors.

    Half of the identities, rounded up, are for training. Every camera sees every person `images_per_camera` times;
    of a test person the first image at each camera is the query. Of the gallery 5% are junk and 10% distractors,
    one at least of each.
    """
    shots: list[Shot] = []
    for pid in range(1, identities + 1):
        train = pid <= (identities + 1) // 2
        for camera in range(1, cameras + 1):
            for index in range(images_per_camera):
                split: Split = "bounding_box_train" if train else "query" if index == 0 else "bounding_box_test"
                shots.append(Shot(split, pid, camera, index))
    people = sum(shot.split == "bounding_box_test" for shot in shots)
    for pid, share in ((JUNK, 0.05), (DISTRACTOR, 0.10)):
        for index in range(max(1, round(people * share / 0.85))):
            shots.append(Shot("bounding_box_test", pid, 1 + index % cameras, index))
    return shots


def chance(site: Site, seed: int, *key: int) -> np.random.Generator:
    """The generator for what `key` names: the same wherever and whenever it is asked for."""
    return np.random.default_rng((seed, site.key, *key))


def visit(site: Site, seed: int, shot: Shot, path: float) -> Visit:
    """How the person of a shot passes the camera; all images of a person at a camera share one visit."""
    stranger = shot.pid <= DISTRACTOR
    generator = chance(site, seed, 2, shot.pid + 1, shot.camera, shot.index if stranger else 0)
    start = int(generator.integers(DAY))
    if stranger:  # seen once each; multiples modulo a prime never meet, so no two files have one name
        start = 61_803 * (shot.index + 1) % 99_991
    away = np.pi * float(generator.random() < 0.5)  # along the path or back
    yaw = path + away + float(generator.normal(0.0, 0.45))
    return Visit(start, int(generator.integers(5, 40)), yaw)


def frame_number(passing: Visit, shot: Shot) -> int:
    """The frame number of a shot within its visit."""
    return passing.frame + (passing.gap * shot.index if shot.pid > DISTRACTOR else 0)


def file_name(shot: Shot, number: int) -> str:
    """As in Market-1501: `0002_c1s1_000451_03.jpg`; the sequence is the third of the day."""
    pid = "-1" if shot.pid == JUNK else f"{shot.pid:04d}"
    sequence = 1 + min(2, 3 * number // DAY)
    return f"{pid}_c{shot.camera}s{sequence}_{number:06d}_{1 + shot.index % 99:02d}.jpg"
