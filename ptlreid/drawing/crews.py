"""Draws a site on one or several cores, in processes that load nothing but NumPy and Pillow.

Not a pool from `multiprocessing`: that would import the caller's main module in every process, with torch in it,
and never end in a script without a main guard. Here each process is a fresh interpreter running this module.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ptlreid.drawing.plans import Shot, plan
from ptlreid.drawing.shots import write_shot
from ptlreid.drawing.sites import Site
from ptlreid.errors import DataError, OptionError

Progress = Callable[[int, int], None]  # images done, images in all
_SMALL = 300  # images: below, starting processes costs more than it saves
_STEP = 20  # images between two reports


@dataclass(frozen=True)
class _Job:
    site: Site
    folder: Path
    shots: list[Shot]
    size: tuple[int, int]
    seed: int


def draw_site(
    site: Site,
    folder: Path,
    *,
    identities: int,
    cameras: int,
    images_per_camera: int,
    height: int,
    width: int,
    seed: int,
    progress: Progress | None = None,
    workers: int = 0,
) -> None:
    """Write a small data set of drawn pedestrians in the layout of Market-1501 into `folder`.

    The folders `bounding_box_train`, `query` and `bounding_box_test` hold JPEG files. Half of the identities, rounded
    up, are for training. Every camera sees every person `images_per_camera` times, 2 at least, for each test person
    has one query image per camera and the rest in the gallery. There are junk images (pid -1, 5% of the gallery) and
    distractors (pid 0, 10%). The bytes depend on the options and the seed alone, not on `workers`; 0 is one per core.
    """
    _check("identities", identities, 4, None)
    _check("cameras", cameras, 2, site.cameras)
    _check("images_per_camera", images_per_camera, 2, 1000)
    _check("height", height, 32, 1024)
    _check("width", width, 16, 1024)
    _check("seed", seed, 0, None)
    _check("workers", workers, 0, None)
    for name in ("bounding_box_train", "query", "bounding_box_test"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    shots = plan(identities, cameras, images_per_camera)
    report = progress or (lambda done, total: None)
    cores = min(workers or len(os.sched_getaffinity(0)), len(shots))
    if cores == 1 or (workers == 0 and len(shots) < _SMALL):
        _draw(_Job(site, folder, shots, (height, width), seed), lambda done: report(done, len(shots)))
    else:
        jobs = [_Job(site, folder.resolve(), shots[k::cores], (height, width), seed) for k in range(cores)]
        _draw_apart(jobs, report, len(shots))


def _check(name: str, given: int, least: int, most: int | None) -> None:
    if given < least or (most is not None and given > most):
        limits = f"at least {least}" if most is None else f"{least} to {most}"
        raise OptionError(f"{name}: {given} given, {limits} expected. Choose a number in that range.")


def _draw(job: _Job, report: Callable[[int], None]) -> None:
    for done, shot in enumerate(job.shots, start=1):
        write_shot(job.site, job.folder, shot, job.size, job.seed)
        if done % _STEP == 0 or done == len(job.shots):
            report(done)


def _draw_apart(jobs: list[_Job], report: Progress, total: int) -> None:
    """Run each job in a process of its own; all of them write what they did into one pipe."""
    reading, writing = os.pipe()
    crew = [_start(writing) for _ in jobs]
    os.close(writing)
    try:
        for process, job in zip(crew, jobs, strict=True):
            assert process.stdin is not None
            with process.stdin as pipe:
                pickle.dump(job, pipe)
        done = 0
        with os.fdopen(reading) as lines:
            for line in lines:
                done += int(line)
                report(done, total)
        for process in crew:
            if process.wait() != 0:
                raise DataError("a drawing process failed")
    finally:
        for process in crew:
            process.kill()
            process.wait()


def _start(writing: int) -> subprocess.Popen[bytes]:
    package = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", "from ptlreid.drawing.crews import work; work()"], cwd=package, stdin=subprocess.PIPE, stdout=writing
    )


def work() -> None:
    """The life of one process: a job from standard input, numbers of images done to standard output."""
    job: _Job = pickle.load(sys.stdin.buffer)
    last = 0
    def report(done: int) -> None:
        nonlocal last
        sys.stdout.write(f"{done - last}\n")
        sys.stdout.flush()
        last = done
    _draw(job, report)

