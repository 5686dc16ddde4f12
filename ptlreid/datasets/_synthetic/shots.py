"""One image from its plan: who, where, when, then drawn, photographed and written."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from ptlreid.datasets._synthetic.body_parts import Easel
from ptlreid.datasets._synthetic.cameras import Camera, photograph
from ptlreid.datasets._synthetic.figures import draw_figure
from ptlreid.datasets._synthetic.occluders import draw_occluder
from ptlreid.datasets._synthetic.people import Person, sample_person
from ptlreid.datasets._synthetic.plans import DAY, JUNK, Shot, chance, file_name, frame_number, visit
from ptlreid.datasets._synthetic.poses import Pose, View
from ptlreid.datasets._synthetic.scenes import ROWS, cut_scene, grain
from ptlreid.datasets._synthetic.sites import Site, camera


def write_shot(site: Site, folder: Path, shot: Shot, size: tuple[int, int], seed: int) -> None:
    """Draw one shot and write it as JPEG; `size` = (height, width). Nothing but the arguments decides its bytes."""
    seeing = camera(site, shot.camera)
    passing = visit(site, seed, shot, seeing.path)
    number = frame_number(passing, shot)
    generator = chance(site, seed, 3, shot.pid + 1, shot.camera, shot.index)
    columns = round(ROWS * size[1] / size[0])
    easel = Easel(cut_scene(seeing.scene, columns, generator), _folds(columns, generator), seeing.light, seeing.ambient)
    _passers_by(easel, site, seeing, generator)
    view = _view(easel, seeing, passing.yaw + float(generator.normal(0.0, 0.2)), shot, generator)
    draw_figure(easel, _person(site, seed, shot), _pose(view.yaw, generator), view)
    if generator.random() < seeing.occlusion:
        draw_occluder(easel, generator)
    picture = photograph(easel.canvas, seeing, number / DAY, size, generator)
    picture.save(folder / shot.split / file_name(shot, number), quality=seeing.quality)


def _person(site: Site, seed: int, shot: Shot) -> Person:
    """The same for every shot of an identity; junk and distractors are each somebody else."""
    key = 0 if shot.pid > 0 else shot.index
    return sample_person(site.crowd, chance(site, seed, 1, shot.pid + 1, key))


def _pose(yaw: float, generator: np.random.Generator) -> Pose:
    walking = generator.random() < 0.85
    bends = generator.choice((0.15, 0.3, 0.5, 1.5), size=2, p=(0.35, 0.35, 0.2, 0.1))
    return Pose(
        yaw=yaw,
        phase=float(generator.uniform(0.0, 2.0 * np.pi)),
        stride=float(generator.uniform(0.28, 0.48) if walking else generator.uniform(0.02, 0.10)),
        bends=(float(bends[0]), float(bends[1])),
        lean=float(generator.uniform(0.0, 0.04)),
    )


def _view(easel: Easel, seeing: Camera, yaw: float, shot: Shot, generator: np.random.Generator) -> View:
    """Where the crop lies about the person; a junk crop shows a part of one, or little of one."""
    rows, columns = easel.canvas.shape[:2]
    share = seeing.tightness * (1.0 + seeing.jitter * generator.normal())
    x, y = (0.5 + seeing.jitter * generator.normal()), 0.5 + 0.5 * share + 0.4 * seeing.jitter * generator.normal()
    if shot.pid == JUNK:
        share *= generator.choice((0.45, 1.8, 2.4))
        x = generator.choice((0.0, 0.25, 0.9, 1.05))
        y = generator.uniform(0.6, 1.9)
    # The body is as high in the crop whatever the tilt, for so a detector cuts it.
    return View(float(x * columns), float(y * rows), float(share * rows / np.cos(seeing.tilt)), seeing.tilt, yaw)


def _passers_by(easel: Easel, site: Site, seeing: Camera, generator: np.random.Generator) -> None:
    """Now and then someone else, farther off and half out of the crop."""
    rows, columns = easel.canvas.shape[:2]
    if generator.random() < 0.25:
        share = generator.uniform(0.5, 0.85)
        x = generator.choice((-0.05, 0.08, 0.92, 1.05)) * columns
        height = share * rows / np.cos(seeing.tilt)
        yaw = float(generator.uniform(0.0, 2.0 * np.pi))
        view = View(float(x), float(rows * generator.uniform(0.70, 0.9)), float(height), seeing.tilt, yaw)
        draw_figure(easel, sample_person(site.crowd, generator), _pose(yaw, generator), view)


def _folds(columns: int, generator: np.random.Generator) -> np.ndarray:
    """(ROWS, columns) a piece of the one cloth that all creases come from."""
    cloth = _crumpled()
    top, left = (int(generator.integers(end)) for end in (cloth.shape[0] - ROWS, cloth.shape[1] - columns))
    return cloth[top : top + ROWS, left : left + columns]


@lru_cache(maxsize=1)
def _crumpled() -> np.ndarray:
    generator = np.random.default_rng(5)
    wide = 0.06 * grain(2 * ROWS, 1024, (14, 6), generator)
    return wide + 0.04 * grain(2 * ROWS, 1024, (5, 4), generator)
