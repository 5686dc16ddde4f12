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
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from ptlreid.datasets._synthetic.plans import plan
from ptlreid.datasets._synthetic.shots import write_shot
from ptlreid.datasets._synthetic.sites import Site
from ptlreid.errors import DataError, OptionError

Progress = Callable[[int, int], None]  # images done, images in all
_WORTHWHILE = 150  # images per process: with fewer, starting it costs more than it saves
_STEP = 20  # images between two reports


@dataclass(frozen=True)
class _Job:
    """What to draw; with `parts` processes, each draws the shots part, part + parts, ... of the plan."""

    site: Site
    folder: Path
    counts: tuple[int, int, int]  # identities, cameras, images per camera
    size: tuple[int, int]
    seed: int
    part: int = 0
    parts: int = 1


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
    """Write a small dataset of drawn pedestrians in the layout of Market-1501 into `folder`.

    The folders `bounding_box_train`, `query` and `bounding_box_test` hold JPEG files. Half of the identities, rounded
    up, are for training. Every camera sees every person `images_per_camera` times, 2 at least: of a test person one
    image per camera is the query and the rest are in the gallery, with junk images (pid -1, 5% of the gallery) and
    distractors (pid 0, 10%). `width` lies between a quarter of `height` and twice it. The bytes depend on the other
    options alone, not on `workers`; 0 is one per core. Raises `OptionError` before anything is written.
    """
    _check("identities", identities, 4, None)
    _check("cameras", cameras, 2, site.cameras)
    _check("images_per_camera", images_per_camera, 2, 1000)
    _check("height", height, 32, 1024)
    _check("width", width, max(16, height // 4), 2 * height)
    _check("seed", seed, 0, None)
    _check("workers", workers, 0, None)
    for name in ("bounding_box_train", "query", "bounding_box_test"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    counts = (identities, cameras, images_per_camera)
    total = len(plan(*counts))
    job = _Job(site, folder.resolve(), counts, (height, width), seed)
    report = progress or (lambda done, total: None)
    parts = min(workers, total) or min(os.cpu_count() or 1, max(1, total // _WORTHWHILE))
    if parts == 1:
        _draw(job, lambda done: report(done, total))
    else:
        _draw_apart(job, parts, lambda done: report(done, total))


def work() -> None:
    """The life of one process: draws the job in its argument, tells its standard output of every few images."""
    job: _Job = pickle.loads(bytes.fromhex(sys.argv[1]))
    told = 0

    def report(done: int) -> None:
        nonlocal told
        sys.stdout.write(f"{done - told}\n")
        sys.stdout.flush()
        told = done

    _draw(job, report)


def _check(name: str, given: int, least: int, most: int | None) -> None:
    if given < least or (most is not None and given > most):
        limits = f"at least {least}" if most is None else f"{least} to {most}"
        raise OptionError(f"{name}: {given} given, {limits} expected. Choose a number within these limits.")


def _draw(job: _Job, report: Callable[[int], None]) -> None:
    shots = plan(*job.counts)[job.part :: job.parts]
    for done, shot in enumerate(shots, start=1):
        write_shot(job.site, job.folder, shot, job.size, job.seed)
        if done % _STEP == 0 or done == len(shots):
            report(done)


def _draw_apart(job: _Job, parts: int, report: Callable[[int], None]) -> None:
    """Draw in `parts` processes, which all write their progress into one pipe."""
    reading, writing = os.pipe()
    crew: list[subprocess.Popen[str]] = []
    with ExitStack() as ending, os.fdopen(reading) as lines:
        try:
            for part in range(parts):
                crew.append(ending.enter_context(_start(replace(job, part=part, parts=parts), writing)))
                ending.callback(crew[-1].kill)  # whatever ends this call ends the process too
        finally:
            os.close(writing)
        done = 0
        for line in lines:
            done += int(line)
            report(done)
        for process in crew:
            _, complaint = process.communicate()
            if process.returncode != 0:
                last = (complaint.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
                raise DataError(f"{job.folder}: drawing stopped ({last}). Images are missing: draw them again.")


def _start(job: _Job, writing: int) -> subprocess.Popen[str]:
    command = "from ptlreid.datasets._synthetic.crews import work; work()"
    return subprocess.Popen(
        [sys.executable, "-c", command, pickle.dumps(job).hex()],
        cwd=Path(__file__).parents[2],  # where `ptlreid` is found
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
