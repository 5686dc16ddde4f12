"""`ptlreid embed`: features of any images with the weights of a run, for other programs and for `ptlreid search`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ptlreid import cache, distributed
from ptlreid.errors import DataError, OptionError
from ptlreid.features import Extractor
from ptlreid.image_check import check_images
from ptlreid.progress import Progress
from ptlreid.records import UNKNOWN_CAMERA
from ptlreid.retrieval import feature_exports
from ptlreid.retrieval.types import Features
from ptlreid.runs import RunFolder
from ptlreid.settings import EmbedSettings
from ptlreid.settings.embed import ImagesSettings
from ptlreid.workflows.image_sets import PARTS, ImageSet, find_image_sets

_SHOWN = 20  # images that are named in a message


def embed(
    sources: Sequence[str], run: RunFolder, settings: EmbedSettings, out: Path, progress: Progress, *, listed: bytes
) -> dict[str, Any]:
    """What was written, with the settings in effect: docs/search.md.

    `out`: a file of one of the formats; or a folder, which gets one .h5, or one for each part of a dataset, or shards.
    `listed`: what standard input holds, the paths of the source `-`. Raises `OptionError` for a format that cannot be
    written, before any work.
    """
    from ptlreid.workflows import embed_shards  # which needs this module

    is_file = bool(out.suffix) and not out.is_dir() and not settings.shards
    if settings.shards:
        embed_shards.check_folder(out)
    elif is_file:
        feature_exports.check_format(out)
    if settings.part and len(sources) > 1:
        raise OptionError(f"--part {settings.part} with {len(sources)} sources: expected one dataset. Give its name.")
    find = partial(find_image_sets, sources, run, settings, progress, listed=listed)
    parts = [settings.part] if settings.part else PARTS
    image_sets = distributed.run_on_main(lambda: find(parts=parts, prepared=settings.part is not None))
    if is_file and len(image_sets) > 1:
        raise OptionError(
            f"--out {out}: one file, but {sources[0]} has {len(image_sets)} parts: expected a folder. Give one, or "
            "choose a part with --part."
        )
    if settings.shards and len(image_sets) > 1:
        raise OptionError(
            f"--shards: {sources[0]} has {len(image_sets)} parts, expected one. Choose a part with --part."
        )
    extractor = Extractor.from_run(run, settings)
    written = []
    for images in image_sets:
        if settings.shards:
            written.append(embed_shards.embed_shards(images, extractor, settings, out, progress))
            continue
        file = out if is_file else out / f"{images.name}.h5"
        written.append(_embed_set(images, extractor, settings, file, progress))
    readout = {"flip": extractor.readout.flip, "normalize": extractor.readout.normalize}
    in_effect = settings.model_copy(update=readout).model_dump()
    return {"run": str(run.path), "weights_digest": extractor.digest, "files": written, "settings": in_effect}


def forget_oldest(folder: Path, kept: int) -> None:
    """Of the feature files in a folder, keep so many, the latest."""
    with suppress(OSError):  # another process may remove the same
        files = sorted(folder.glob("*.h5"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for file in files[kept:]:
            file.unlink()


def extract(
    images: ImageSet, extractor: Extractor, settings: ImagesSettings, progress: Progress
) -> tuple[ImageSet, Features]:
    """The images and their features, cached in the run or extracted into its cache.

    With `skip_bad`, images that cannot be read are left out of both, with a note on each. Raises `DataError` that names
    them otherwise.
    """
    if settings.skip_bad:
        images = skip_bad_images(images, progress)
        if not len(images.records):
            raise none_readable(images)
    note_cameras(images.records.sources, images.records.camids, extractor, settings, progress)
    with naming_bad_images(images, settings, progress):
        features = cache.load_or_extract(
            images.cache, extractor, images.records, dtype=settings.dtype, progress=progress
        )
    return images, features


def skip_bad_images(images: ImageSet, progress: Progress) -> ImageSet:
    """The images that can be read, perhaps none, with a note on each of the others."""
    bad = distributed.run_on_main(lambda: _find_bad(images, progress))
    images = images.without(bad)
    for path, reason in images.skipped.items():
        progress.note(f"skipped: {path} ({reason})")
    return images


def none_readable(images: ImageSet) -> DataError:
    """The error where all images were skipped."""
    return DataError(f"{images.name}: none of its {len(images.skipped):,} images can be read. Give other images.")


@contextmanager
def naming_bad_images(images: ImageSet, settings: ImagesSettings, progress: Progress) -> Iterator[None]:
    """Within the block, a `DataError` becomes one that names all images that cannot be read, if there are any."""
    try:
        yield
    except DataError:
        bad = {} if settings.skip_bad else distributed.run_on_main(lambda: _find_bad(images, progress))
        if not bad:
            raise
        raise _refuse(images.without(bad), len(images.records)) from None


def _find_bad(images: ImageSet, progress: Progress) -> dict[int, str]:
    """The rows of images that cannot be read, with the reason.

    Images with cached features are not decoded again, if none of them has changed since.
    """
    paths = [str(path) for path in images.records.paths]
    known = cache.read_paths(images.cache)
    cached = [row for row, path in enumerate(paths) if path in known]
    if cached and not cache.has_images(images.cache, images.records.select(np.array(cached))):
        known = set()
    rows = [row for row, path in enumerate(paths) if path not in known]
    checks = check_images([images.records.paths[row] for row in rows], progress) if rows else []
    return {row: check.error or check.state for row, check in zip(rows, checks, strict=True) if check.state != "fine"}


def _refuse(images: ImageSet, count: int) -> DataError:
    lines = [f"  {path}: {reason}" for path, reason in [*images.skipped.items()][:_SHOWN]]
    lines += [f"  ... and {len(images.skipped) - _SHOWN:,} more"] if len(images.skipped) > _SHOWN else []
    return DataError(
        "\n".join(
            [
                f"{images.name}: {len(images.skipped):,} of {count:,} images cannot be read, expected all. Replace "
                "them, or leave them out with --skip-bad.",
                *lines,
            ]
        )
    )


def note_cameras(
    sources: np.ndarray, camids: np.ndarray, extractor: Extractor, settings: ImagesSettings, progress: Progress
) -> None:
    """Notes on images that are normalised by the statistics of the site, and on a --site without effect."""
    if extractor.cameras is None:
        if settings.site:
            progress.note("--site has no effect: the run has no statistics of cameras, or they are not used")
        return
    advice = "" if settings.site else "; if they are of a dataset's cameras, name it with --site"
    if (camids == UNKNOWN_CAMERA).all():
        progress.note(f"no cameras are known: all images are normalised by the statistics of the adapted site{advice}")
    elif note := extractor.cameras.describe_unknown(sources, camids):
        progress.note(f"{note}{advice}")


def _embed_set(
    images: ImageSet, extractor: Extractor, settings: EmbedSettings, file: Path, progress: Progress
) -> dict[str, Any]:
    """What was written of one set of images."""
    images, features = extract(images, extractor, settings, progress)

    def write() -> None:
        if file.suffix in feature_exports.HDF5:
            expected = cache.fingerprint(extractor, images.records, settings.dtype)
            cache.write_copy(file, features, expected, names=images.names)
        else:
            feature_exports.export(file, features, images.names, dtype=settings.dtype)

    distributed.run_on_main(write)
    return {
        "files": [str(one) for one in feature_exports.files_of(file)],
        "images": len(features),
        "width": features.width,
        "identities": len(np.unique(features.pids[features.pids >= 0])),
        "cameras": len(np.unique(features.camids[features.camids >= 0])),
        "skipped": [{"path": path, "reason": reason} for path, reason in images.skipped.items()],
    }
