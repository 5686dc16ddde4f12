"""Every image file read and decoded once, over all cores, in processes that load nothing but Pillow.

Not threads: decoding a small image is mostly Python's own work. Not a pool from `multiprocessing`: as in
`datasets/_synthetic/crews.py`, that would import the caller's main module in every process.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Literal

from PIL import Image, UnidentifiedImageError

from ptlreid.errors import PtlreidError
from ptlreid.progress import Progress

State = Literal["fine", "missing", "empty", "truncated", "undecodable"]

_BATCH = 64
_WORTHWHILE = 1000  # images for each process: with fewer, starting it costs more than it saves

# How files of these formats begin, and what their last bytes hold when nothing was cut off.
_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND"}


@dataclass(frozen=True)
class ImageCheck:
    """What one file holds. `digest`: of its bytes, "" where there are none. `error`: the decoder's words."""

    state: State
    digest: str
    error: str = ""


def check_image(path: Path) -> ImageCheck:
    """One file, read and decoded."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return ImageCheck("missing", "", error.strerror or str(error))
    if not content:
        return ImageCheck("empty", "")
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow can read in spite of a doubt, training reads as well
            with Image.open(io.BytesIO(content)) as image:
                image.draft("L", (1, 1))  # of a JPEG all bytes are parsed, and few pixels made: 1.4 times as fast
                image.load()
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        words = "" if isinstance(error, UnidentifiedImageError) else str(error)  # else an address in memory
        return ImageCheck("truncated" if _is_cut(content) else "undecodable", digest, words)
    return ImageCheck("fine", digest)


def check_images(paths: Sequence[Path], progress: Progress, processes: int | None = None) -> list[ImageCheck]:
    """A `Look` for each path, in order. `processes`: by default one for each core, none for a few images."""
    batches = [paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH)]
    if processes is None:
        processes = min(os.cpu_count() or 1, len(paths) // _WORTHWHILE)
    looks: list[ImageCheck] = []
    found: Iterator[list[ImageCheck]]
    with progress.task("decode images", len(paths)) as advance, ExitStack() as ending:
        if processes > 1:
            idle: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
            for _ in range(processes):
                idle.put(_start(ending))
            pool = ending.enter_context(ThreadPoolExecutor(processes))
            ending.callback(pool.shutdown, cancel_futures=True)  # an error, or Ctrl-C, waits for no more batches
            found = pool.map(lambda batch: _ask(idle, batch), batches)
        else:
            found = ([check_image(path) for path in batch] for batch in batches)
        for some in found:
            looks += some
            advance(len(looks))
    return looks


def work() -> None:
    """The life of one process: a line with a batch of paths comes in, a line with what they hold goes out."""
    for line in sys.stdin:
        looks = [astuple(check_image(Path(path))) for path in json.loads(line)]
        sys.stdout.write(json.dumps(looks) + "\n")
        sys.stdout.flush()


def _is_cut(content: bytes) -> bool:
    return any(content.startswith(begin) and end not in content[-64:] for begin, end in _ENDS.items())


def _ask(idle: SimpleQueue[subprocess.Popen[str]], batch: Sequence[Path]) -> list[ImageCheck]:
    """The looks of one batch, by a process that has nothing to do."""
    process = idle.get()
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(json.dumps([str(path.absolute()) for path in batch]) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except BrokenPipeError:
        line = ""
    idle.put(process)
    if not line:
        raise PtlreidError(
            f"{batch[0]}: a process that decoded this image or one of the {len(batch) - 1} after it was ended, "
            "perhaps for lack of memory. Run the command again."
        )
    return [ImageCheck(*one) for one in json.loads(line)]


def _start(ending: ExitStack) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", "from ptlreid.workflows.image_check import work; work()"],
        cwd=Path(__file__).parents[2],  # where `ptlreid` is found
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        start_new_session=True,  # Ctrl-C is for the caller, who ends this process
    )
    ending.enter_context(process)
    ending.callback(process.kill)  # whatever ends the work ends the process too
    return process
