"""Renders a site: composes each planned image from its parts and writes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ptlreid.cores import available_cores
from ptlreid.datasets._synthetic.cameras import Camera, capture
from ptlreid.datasets._synthetic.figures import Canvas, render_figure, render_tube
from ptlreid.datasets._synthetic.people import Person, sample_person, solid_texture
from ptlreid.datasets._synthetic.plan import (
    FRAMES_PER_DAY,
    Shot,
    file_name,
    frame_number,
    make_generator,
    plan_shots,
    sample_tracklet,
)
from ptlreid.datasets._synthetic.poses import Pose, View
from ptlreid.datasets._synthetic.scenes import ROWS, crop_scene, smooth_noise
from ptlreid.datasets._synthetic.sites import Site, build_camera
from ptlreid.errors import OptionError
from ptlreid.records import JUNK
from ptlreid.workers import WorkerPool

_BATCH_SIZE = 20
_IMAGES_PER_PROCESS = 150  # with fewer, starting a process costs more than it saves


@dataclass(frozen=True)
class _Batch:
    """Some images to render. `size`: (height, width)."""

    site: Site
    folder: Path
    size: tuple[int, int]
    seed: int
    shots: list[Shot]


def render_site(
    site: Site,
    folder: Path,
    *,
    identities: int,
    cameras: int,
    images_per_camera: int,
    height: int,
    width: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    processes: int = 0,
) -> None:
    """Write a small dataset of synthetic pedestrians in the layout of Market-1501 into `folder`.

    The folders `bounding_box_train`, `query` and `bounding_box_test` hold JPEG files. Half of the identities, rounded
    up, are for training. Every camera takes `images_per_camera` images, at least 2, of every identity: of a test
    identity one image per camera is the query and the rest are in the gallery, with junk images (pid -1, 5% of the
    gallery) and distractors (pid 0, 10%). `width` is between a quarter of `height` and twice it. `progress` gets the
    images written so far and their total. The bytes depend on the other options only, not on `processes`; 0 is one per
    core. Raises `OptionError` before anything is written.
    """
    _check_range("identities", identities, 4, None)
    _check_range("cameras", cameras, 2, site.cameras)
    _check_range("images_per_camera", images_per_camera, 2, 1000)
    _check_range("height", height, 32, 1024)
    _check_range("width", width, max(16, height // 4), 2 * height)
    _check_range("seed", seed, 0, None)
    _check_range("processes", processes, 0, None)
    for name in ("bounding_box_train", "query", "bounding_box_test"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    shots = plan_shots(identities, cameras, images_per_camera)
    batches = [
        _Batch(site, folder.resolve(), (height, width), seed, shots[start : start + _BATCH_SIZE])
        for start in range(0, len(shots), _BATCH_SIZE)
    ]
    processes = processes or min(available_cores(), len(shots) // _IMAGES_PER_PROCESS)
    with WorkerPool(_render_batch, min(processes, len(batches)), describe=lambda batch: str(batch.folder)) as pool:
        done = 0
        for count in pool.map(batches):
            done += count
            if progress:
                progress(done, len(shots))


def _check_range(name: str, given: int, lowest: int, highest: int | None) -> None:
    if given < lowest or (highest is not None and given > highest):
        expected = f"at least {lowest}" if highest is None else f"{lowest} to {highest}"
        raise OptionError(f"{name} = {given}: expected {expected}. Choose a number in this range.")


def _render_batch(batch: _Batch) -> int:
    """Render a batch; returns the number of images."""
    for shot in batch.shots:
        _render_shot(batch, shot)
    return len(batch.shots)


def _render_shot(batch: _Batch, shot: Shot) -> None:
    """Write one image as JPEG; its bytes depend on the arguments only."""
    site, seed, size = batch.site, batch.seed, batch.size
    camera = build_camera(site, shot.camera)
    tracklet = sample_tracklet(site, seed, shot, camera.direction)
    frame = frame_number(tracklet, shot)
    # From here on the order of the calls is the order of the random numbers: another order would give other images.
    generator = make_generator(site, seed, 3, shot.pid + 1, shot.camera, shot.index)
    columns = round(ROWS * size[1] / size[0])
    background, folds = crop_scene(camera.scene, columns, generator), _crop_folds(columns, generator)
    canvas = Canvas(background, folds, camera.light_angle, camera.ambient)
    _render_bystander(canvas, site, camera, generator)
    view = _sample_view(canvas, camera, tracklet.yaw + float(generator.normal(0.0, 0.2)), shot, generator)
    render_figure(canvas, _find_person(site, seed, shot), _sample_pose(generator), view)
    if generator.random() < camera.occlusion_probability:
        _render_occluder(canvas, generator)
    image = capture(canvas.pixels, camera, frame / FRAMES_PER_DAY, size, generator)
    image.save(batch.folder / shot.split / file_name(shot, frame), quality=camera.jpeg_quality)


def _find_person(site: Site, seed: int, shot: Shot) -> Person:
    """The person of a shot: one for all images of an identity; junk and distractors each show another person."""
    key = 0 if shot.pid > 0 else shot.index
    return sample_person(site.population, make_generator(site, seed, 1, shot.pid + 1, key))


def _sample_pose(generator: np.random.Generator) -> Pose:
    walking = generator.random() < 0.85
    elbows = generator.choice((0.15, 0.3, 0.5, 1.5), size=2, p=(0.35, 0.35, 0.2, 0.1))
    return Pose(
        phase=float(generator.uniform(0.0, 2.0 * np.pi)),
        stride=float(generator.uniform(0.28, 0.48) if walking else generator.uniform(0.02, 0.10)),
        elbow_angles=(float(elbows[0]), float(elbows[1])),
        lean=float(generator.uniform(0.0, 0.04)),
    )


def _sample_view(canvas: Canvas, camera: Camera, yaw: float, shot: Shot, generator: np.random.Generator) -> View:
    """A random crop around the person; for junk, of a part of the person, or of one that is small or cut off."""
    rows, columns = canvas.pixels.shape[:2]
    jitter = camera.crop_jitter
    height = camera.person_height * (1.0 + jitter * generator.normal())
    x, y = (0.5 + jitter * generator.normal()), 0.5 + 0.5 * height + 0.4 * jitter * generator.normal()
    if shot.pid == JUNK:
        height *= generator.choice((0.45, 1.8, 2.4))
        x = generator.choice((0.0, 0.25, 0.9, 1.05))
        y = generator.uniform(0.6, 1.9)
    # A detector crops a person to the same height in the image, whatever the tilt.
    return View(float(x * columns), float(y * rows), float(height * rows / np.cos(camera.tilt)), camera.tilt, yaw)


def _render_bystander(canvas: Canvas, site: Site, camera: Camera, generator: np.random.Generator) -> None:
    """Occasionally another person, farther away and partly outside the crop."""
    rows, columns = canvas.pixels.shape[:2]
    if generator.random() < 0.25:
        share = generator.uniform(0.5, 0.85)
        x = generator.choice((-0.05, 0.08, 0.92, 1.05)) * columns
        height = share * rows / np.cos(camera.tilt)
        yaw = float(generator.uniform(0.0, 2.0 * np.pi))
        view = View(float(x), float(rows * generator.uniform(0.70, 0.9)), float(height), camera.tilt, yaw)
        render_figure(canvas, sample_person(site.population, generator), _sample_pose(generator), view)


def _crop_folds(columns: int, generator: np.random.Generator) -> np.ndarray:
    """(ROWS, columns): a random part of the one texture that all creases are taken from."""
    cloth = _render_folds()
    top, left = (int(generator.integers(end)) for end in (cloth.shape[0] - ROWS, cloth.shape[1] - columns))
    return cloth[top : top + ROWS, left : left + columns]


@lru_cache(maxsize=1)
def _render_folds() -> np.ndarray:
    generator = np.random.default_rng(5)
    coarse = 0.06 * smooth_noise(2 * ROWS, 1024, (14, 6), generator)
    return coarse + 0.04 * smooth_noise(2 * ROWS, 1024, (5, 4), generator)


def _render_occluder(canvas: Canvas, generator: np.random.Generator) -> None:
    """A random object between the camera and the person."""
    (_render_pole, _render_bush, _render_car)[int(generator.integers(3))](canvas, generator)


def _render_pole(canvas: Canvas, generator: np.random.Generator) -> None:
    rows, columns = canvas.pixels.shape[:2]
    x = float(generator.uniform(0.1, 0.9) * columns)
    grey = float(generator.uniform(0.2, 0.7))
    ends = np.array([[x, -5.0], [x, rows + 5.0]])
    radius = float(generator.uniform(0.03, 0.07) * columns)
    render_tube(canvas, ends, (radius,), solid_texture((grey, grey, grey)), flatness=4.0)


def _render_bush(canvas: Canvas, generator: np.random.Generator) -> None:
    rows, columns = canvas.pixels.shape[:2]
    noise = smooth_noise(rows, columns, (9, 9), generator)
    edge = rows * generator.uniform(0.68, 0.88) + rows * 0.05 * noise[0]
    leaves = (np.arange(rows)[:, None] > edge)[..., None]
    green = np.array([0.16, 0.30, 0.10], dtype=np.float32) * (1.0 + 0.4 * noise)[..., None]
    np.copyto(canvas.pixels, green, where=leaves)


def _render_car(canvas: Canvas, generator: np.random.Generator) -> None:
    """The bonnet of a parked car that comes in from one side."""
    rows, columns = canvas.pixels.shape[:2]
    red, green, blue = generator.uniform(0.1, 0.9, 3)
    texture = solid_texture((float(red), float(green), float(blue)))
    y = rows * float(generator.uniform(0.86, 0.95))
    start = float(generator.choice((-0.3, 1.3)))
    end = float(generator.uniform(0.38, 0.62))
    ends = np.array([[columns * start, y], [columns * end, y + 4]])
    render_tube(canvas, ends, (rows * 0.13, rows * 0.12, rows * 0.10), texture, flatness=1.5)
    wheel = np.array([[columns * (end + (start - end) * 0.35), rows * 0.98]] * 2)
    render_tube(canvas, wheel, (rows * 0.07,), solid_texture((0.07, 0.07, 0.08)))
