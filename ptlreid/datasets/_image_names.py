"""Images of public datasets whose names say what they show, and draws of identities by number."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path

from ptlreid.datasets.reader import Fault, Reject, is_folder, is_image, list_files, list_folders


def match_images(
    folder: Path, pattern: re.Pattern[str], example: str, reject: Reject, *, inner: bool = False
) -> list[tuple[Path, re.Match[str]]]:
    """The images in `folder`, sorted, and the match of each with `pattern`, from the beginning of its name.

    With `inner`, those in the folders in it, and paths such as `001/A_1.jpg` in place of names. An image that does not
    match goes to `reject`, and so does a folder without images; `example` shows what was expected.
    """
    faults: list[Fault] = []
    folders = list_folders(folder, faults.append) if inner else [folder]
    images = [path for one in folders for path in list_files(one, faults.append) if is_image(path)]
    if is_folder(folder) and not images and not faults:
        faults.append(Fault("layout", folder, "holds no image", f"Expected files such as {example}."))
    found = []
    for path in images:
        if match := pattern.match(path.relative_to(folder).as_posix()):
            found.append((path, match))
        else:
            remedy = f"Expected a name such as {example}. Rename the file, or remove it."
            faults.append(Fault("name", path, "the name does not give what it shows", remedy))
    for fault in faults:
        reject(fault)
    return found


def read_lines(
    file: Path, pattern: re.Pattern[str], example: str, reject: Reject
) -> Iterator[tuple[int, re.Match[str]]]:
    """The number of each line of a list, from 1, and its match; others go to `reject`, but for empty ones.

    Nothing if the file does not exist, which `find_layout` reports.
    """
    if not file.is_file():
        return
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if match := pattern.fullmatch(line.strip()):
            yield number, match
        elif line.strip():
            remedy = f"Expected a line such as `{example}` as line {number}. Unpack the list again."
            reject(Fault("name", file, f"{line.strip()!r} does not name an image", remedy))


def draw(numbers: Iterable[int], seed: str) -> list[int]:
    """The numbers in a random order that depends on `seed` alone: that of their digests, equal on every machine."""
    return sorted(numbers, key=lambda number: blake2b(f"{seed}/{number}".encode(), digest_size=16).digest())
