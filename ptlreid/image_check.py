"""Reads and decodes every image file once, on all cores, in processes that load nothing but Pillow."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ptlreid.cores import available_cores
from ptlreid.image_files import decode_image
from ptlreid.progress import Progress
from ptlreid.tar_members import open_content
from ptlreid.workers import WorkerPool

State = Literal["fine", "missing", "empty", "truncated", "undecodable"]

_BATCH_SIZE = 64
_IMAGES_PER_PROCESS = 1000  # with fewer, starting a process costs more than it saves

# The first bytes of each format, and the marker among the last bytes of a complete file.
_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND"}


@dataclass(frozen=True)
class ImageCheck:
    """The state of one file. `digest`: of its bytes, "" for a missing or empty file. `error`: the decoder's message."""

    state: State
    digest: str
    error: str = ""


def check_images(paths: Sequence[Path], progress: Progress, processes: int | None = None) -> list[ImageCheck]:
    """An `ImageCheck` for each path, in order.

    `processes`: 0 or 1 decodes in this process; by default one per core, but none for fewer than 2,000 images.
    """
    starts = range(0, len(paths), _BATCH_SIZE)
    batches = [[path.absolute() for path in paths[start : start + _BATCH_SIZE]] for start in starts]
    if processes is None:
        processes = min(available_cores(), len(paths) // _IMAGES_PER_PROCESS)
    checks: list[ImageCheck] = []
    with (
        progress.task("decode images", len(paths)) as advance,
        WorkerPool(_check_batch, processes, describe=_describe_batch) as pool,
    ):
        for batch in pool.map(batches):
            checks += batch
            advance(len(checks))
    return checks


def check_image(path: Path) -> ImageCheck:
    """The state of one file, found by reading and decoding it."""
    try:
        with open_content(path) as stream:
            content = stream.read()
    except OSError as error:
        return ImageCheck("missing", "", error.strerror or str(error))
    if not content:
        return ImageCheck("empty", "")
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    try:
        # The draft parses all bytes of a JPEG, but computes few pixels: 1.4 times as fast.
        decode_image(io.BytesIO(content), draft=("L", (1, 1)))
    except ValueError as error:
        return ImageCheck("truncated" if _is_truncated(content) else "undecodable", digest, str(error))
    return ImageCheck("fine", digest)


def _check_batch(paths: Sequence[Path]) -> list[ImageCheck]:
    return [check_image(path) for path in paths]


def _describe_batch(paths: Sequence[Path]) -> str:
    return f"{paths[0]} or one of the {len(paths) - 1} images after it"


def _is_truncated(content: bytes) -> bool:
    return any(content.startswith(begin) and end not in content[-64:] for begin, end in _ENDS.items())
