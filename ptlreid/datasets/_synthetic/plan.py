"""The images of a synthetic dataset: identities, cameras, times, and file names as in Market-1501."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ptlreid.datasets._synthetic.sites import Site
from ptlreid.records import JUNK

FRAMES_PER_DAY = 100_000
_DISTRACTOR = 0  # as in file names; JUNK is -1 there, too
Split = Literal["bounding_box_train", "query", "bounding_box_test"]


@dataclass(frozen=True)
class Shot:
    """One image to render: image `index` of identity `pid` at camera `camera` (from 1)."""

    split: Split
    pid: int
    camera: int
    index: int


@dataclass(frozen=True)
class Tracklet:
    """A person passing a camera: the first frame, the frames between two images, and the mean yaw of the body."""

    first_frame: int
    frame_gap: int
    yaw: float


def plan_shots(identities: int, cameras: int, images_per_camera: int) -> list[Shot]:
    """All images: identities in order of pid, then junk, then distractors.

    Half of the identities, rounded up, are for training. Every camera takes `images_per_camera` images of every
    identity; of a test identity the first one at each camera is the query. Of the gallery 5% are junk and 10%
    distractors, at least one of each.
    """
    shots: list[Shot] = []
    for pid in range(1, identities + 1):
        train = pid <= (identities + 1) // 2
        for camera in range(1, cameras + 1):
            for index in range(images_per_camera):
                split: Split = "bounding_box_train" if train else "query" if index == 0 else "bounding_box_test"
                shots.append(Shot(split, pid, camera, index))
    num_gallery = sum(shot.split == "bounding_box_test" for shot in shots)
    for pid, share in ((JUNK, 0.05), (_DISTRACTOR, 0.10)):
        for index in range(max(1, round(num_gallery * share / 0.85))):
            shots.append(Shot("bounding_box_test", pid, 1 + index % cameras, index))
    return shots


def make_generator(site: Site, seed: int, *key: int) -> np.random.Generator:
    """The random generator for `key`: the same whatever else is rendered before or with it."""
    return np.random.default_rng((seed, site.seed, *key))


def sample_tracklet(site: Site, seed: int, shot: Shot, direction: float) -> Tracklet:
    """The tracklet that a shot belongs to: one for each identity and camera, and one for each junk or distractor."""
    single = shot.pid <= _DISTRACTOR
    generator = make_generator(site, seed, 2, shot.pid + 1, shot.camera, shot.index if single else 0)
    first_frame = int(generator.integers(FRAMES_PER_DAY))
    if single:  # multiples modulo a prime are all different, so that no two files have the same name
        first_frame = 61_803 * (shot.index + 1) % 99_991
    turn = np.pi * float(generator.random() < 0.5)  # along the path or back
    yaw = direction + turn + float(generator.normal(0.0, 0.45))
    return Tracklet(first_frame, int(generator.integers(5, 40)), yaw)


def frame_number(tracklet: Tracklet, shot: Shot) -> int:
    """The frame number of a shot within its tracklet."""
    return tracklet.first_frame + (tracklet.frame_gap * shot.index if shot.pid > _DISTRACTOR else 0)


def file_name(shot: Shot, frame: int) -> str:
    """As in Market-1501: `0002_c1s1_000451_03.jpg`; the sequence, `s1` to `s3`, is the third of the day."""
    pid = "-1" if shot.pid == JUNK else f"{shot.pid:04d}"
    sequence = 1 + min(2, 3 * frame // FRAMES_PER_DAY)
    return f"{pid}_c{shot.camera}s{sequence}_{frame:06d}_{1 + shot.index % 99:02d}.jpg"
