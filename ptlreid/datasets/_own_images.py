"""The user's own images with their identities, cameras and parts, from a CSV, from folders or from file names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ptlreid.datasets._camera_tree import read_camera_tree
from ptlreid.datasets._image_list import read_list
from ptlreid.datasets._image_tree import read_tree
from ptlreid.datasets._left_out import LeftOut
from ptlreid.datasets._name_pattern import read_names
from ptlreid.datasets._own_image import FORMS, NO_IDENTITY, SPECIAL, OwnImage
from ptlreid.datasets.reader import Reject, refuse
from ptlreid.errors import DataError


@dataclass(frozen=True)
class Found:
    """The images of a source, sorted, each of a part train, test, query or gallery, or all without one.

    `reading`: how the source was understood. `left_out`: the files that are not used. `notes`: for the user.
    """

    images: list[OwnImage]
    reading: str
    left_out: list[LeftOut]
    notes: Sequence[str] = ()


def find_images(
    source: Path, *, layout: str | None, pattern: str | None, unlabelled: bool, reject: Reject = refuse
) -> Found:
    """The images in `source`, a CSV or a folder; `DataError` if its layout is unknown.

    `layout`: how to read the folders, if they do not tell. `pattern`: a regular expression for the file names.
    `unlabelled`: training images need no identity and get none; images of no part are for training. A missing image of
    a CSV goes to `reject`.
    """
    if source.is_dir():
        if pattern:
            images, left_out = read_names(source, pattern, unlabelled=unlabelled)
            reading = "names with --pattern"
        elif unlabelled:
            images, reading, left_out = read_camera_tree(source, layout)
        else:
            images, reading, left_out = read_tree(source, layout)
        found = Found(images, reading, left_out)
    elif source.suffix.lower() not in (".csv", ".tsv", ".txt"):
        raise DataError(f"{source}: neither an archive nor a CSV. {FORMS}")
    elif layout or pattern:
        raise DataError(
            f"{source}: --{'layout' if layout else 'pattern'} is for folders: a CSV states all. Leave it out."
        )
    else:
        images, notes = read_list(source, reject, unlabelled=unlabelled)
        found = Found(images, "a CSV", [], notes)
    return _choose_parts(source, found, unlabelled=unlabelled)


def _choose_parts(source: Path, found: Found, *, unlabelled: bool) -> Found:
    """The images with train, test, query and gallery as their only parts; the others are left out.

    Validation images are the test set if there is no other. A test set next to queries is their gallery. If
    `unlabelled`, training images lose their identities, and images of no part are training images.
    """
    given = {image.split for image in found.images}
    if given == {"", *given} and len(given) > 1:
        without = next(image for image in found.images if not image.split)
        raise DataError(f"{source}: {without.origin} is of no part, but others are. Move it into one of the parts.")
    tested = given & {"test", "query", "gallery"}
    if tested in ({"query"}, {"gallery"}, {"test", "gallery"}, {"test", "query", "gallery"}):
        raise DataError(
            f"{source}: has the parts {', '.join(sorted(tested))}: expected query and gallery, or test alone, which is "
            "divided into both. Rename or remove the other."
        )
    meaning = {
        "train_all": "train",
        "val": "" if tested else "test",
        "test": "gallery" if "query" in tested else "test",
        "extra": "",
    }
    images, left_out = [], list(found.left_out)
    for image in found.images:
        part = meaning.get(image.split, image.split) or "train" * (unlabelled and not image.split)
        if image.split and not part:
            left_out.append(LeftOut("is neither for training nor for testing", image.origin))
        elif part == "train" and unlabelled:
            images.append(replace(image, split=part, identity=NO_IDENTITY))
        elif part == "train" and image.identity in SPECIAL:
            left_out.append(LeftOut("is junk or a distractor, which only a gallery may hold", image.origin))
        elif part == "query" and image.identity in SPECIAL:
            raise DataError(
                f"{source}: {image.origin} is a query of pid {image.identity}, which has no matches. Remove it."
            )
        else:
            images.append(replace(image, split=part))
    return replace(found, images=images, left_out=left_out)
