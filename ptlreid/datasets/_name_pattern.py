"""The user's own images labelled by their names, with a regular expression of the user's (`--pattern`)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from ptlreid.datasets._left_out import LeftOut
from ptlreid.datasets._own_image import NO_IDENTITY, TRAINING, OwnImage, parse_part
from ptlreid.datasets._source_files import SourceFile, list_images
from ptlreid.errors import DataError

MAX_SECONDS = 60

# Runs in a process of its own, as nothing else can end a match that takes forever.
_MATCH = """
import json, re, sys, warnings
warnings.simplefilter("ignore")
pattern, names = json.load(sys.stdin)
match = re.compile(pattern).match
json.dump([found and found.groupdict() for found in map(match, names)], sys.stdout)
"""


def read_names(source: Path, pattern: str, *, unlabelled: bool) -> tuple[list[OwnImage], list[LeftOut]]:
    """The images below `source`, labelled by the groups of `pattern`, and what was left out.

    The pattern is matched with the beginning of the file name, or of the path below `source` if it contains a `/`. A
    group `camid_door` gives the camera `door` wherever it matches. If `unlabelled`, training images need no group
    `pid`. Raises `DataError` for a name that does not match.
    """
    files, left_out = list_images(source)
    return match_files(source, files, pattern, unlabelled=unlabelled), left_out


def match_files(source: Path, files: list[SourceFile], pattern: str, *, unlabelled: bool) -> list[OwnImage]:
    """The same for files that are listed already. `source`: what messages call them."""
    names = [file.origin if "/" in pattern else file.file.name for file in files]
    found = _match(pattern, names)
    unmatched = [
        file.origin
        for file, groups in zip(files, found, strict=True)
        if groups is None or not _find_identity(groups, unlabelled=unlabelled)
    ]
    if unmatched or not files:
        expected = "a match with every name, and an identity in those of test images"
        raise DataError(
            f"{source}: {len(unmatched):,} of {len(files):,} images do not match the pattern {pattern}"
            f"{f', such as {unmatched[0]}' if unmatched else ''}: expected "
            f"{expected if unlabelled else 'an identity in every name'}. Correct --pattern, or move these images away."
        )
    images = []
    for file, groups in zip(files, found, strict=True):
        assert groups is not None
        camera, split = _find_camera(groups), groups.get("split") or ""
        if not camera:
            raise DataError(f"{source}: the pattern {pattern} finds no camera in {file.origin}. Correct --pattern.")
        if split and not parse_part(split):
            raise DataError(
                f"{source}: the pattern {pattern} finds the part {split!r} in {file.origin}: expected train, val, "
                "test, query or gallery. Correct --pattern."
            )
        identity = _find_identity(groups, unlabelled=unlabelled)
        images.append(OwnImage(file.file, file.origin, identity, camera, parse_part(split)))
    return images


def _find_identity(groups: Mapping[str, str | None], *, unlabelled: bool) -> str:
    """The identity that the groups name, "" if they name none; that of training images is not read if `unlabelled`."""
    training = parse_part(groups.get("split") or "") in TRAINING
    return NO_IDENTITY if unlabelled and training else groups.get("pid") or ""


def _find_camera(groups: Mapping[str, str | None]) -> str:
    """The camera that the groups name; 1 if the pattern has no group for cameras, "" if none matched."""
    cameras = {name: value for name, value in groups.items() if name == "camid" or name.startswith("camid_")}
    named = [value if name == "camid" else name.removeprefix("camid_") for name, value in cameras.items() if value]
    return (named[0] or "") if named else "" if cameras else "1"


def _match(pattern: str, names: list[str]) -> list[dict[str, str | None] | None]:
    """The named groups of each name; None for a name that does not match."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _MATCH],
            input=json.dumps([pattern, names]),
            capture_output=True,
            text=True,
            timeout=MAX_SECONDS,
            check=True,
        )
    except subprocess.SubprocessError as error:
        fault = f"takes longer than {MAX_SECONDS} s" if isinstance(error, subprocess.TimeoutExpired) else "fails"
        raise DataError(
            f"The pattern {pattern} {fault}: expected one that matches in one pass. "
            "Avoid a repeated group that contains a repetition, such as (a+)+, in --pattern."
        ) from None
    found: list[dict[str, str | None] | None] = json.loads(done.stdout)
    return found
