"""The two sides of a search with a run: a gallery and queries, of images or of features that the run extracted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import time_ns
from typing import Any

import numpy as np

from ptlreid import cache, distributed
from ptlreid.cache import snapshot
from ptlreid.datasets._image_tree import parse_camera
from ptlreid.datasets._loose_images import LooseImages, find_loose_images, parse_listed
from ptlreid.errors import DataError, OptionError
from ptlreid.features import Extractor
from ptlreid.network_types import Readout
from ptlreid.progress import Progress
from ptlreid.records import UNKNOWN_CAMERA
from ptlreid.retrieval import feature_files
from ptlreid.retrieval.array_files import SUFFIXES
from ptlreid.retrieval.index_file import Index, is_index_folder
from ptlreid.retrieval.search import Side, find_own, name_cameras
from ptlreid.retrieval.shards import Shards, is_shard_folder
from ptlreid.retrieval.types import Features
from ptlreid.runs import RunFolder
from ptlreid.settings import SearchSettings
from ptlreid.workflows import embed
from ptlreid.workflows.image_sets import find_image_sets, known_folder_file, place_images
from ptlreid.workflows.search_shards import sample_side, select_side

_KEPT_QUERIES = 200  # files of query features in a run


@dataclass(frozen=True)
class Gallery:
    """A gallery, and the extractor that reads query features as those of the gallery were read.

    `sources`: (N,) object array of str, the dataset of each image, "" where it is of none. `current`: whether the
    features are those of the images as they are now. `shards`: those that are searched in place of `side`, which then
    has one image of them. `index`: the one that searches them.
    """

    side: Side
    extractor: Extractor
    sources: np.ndarray
    current: bool
    shards: Shards | None = None
    index: Index | None = None


def load_gallery(
    gallery: str, run: RunFolder, extractor: Extractor, settings: SearchSettings, progress: Progress
) -> Gallery:
    """The gallery in a feature file, of a prepared dataset, or of any images, whose features are cached in the run."""
    file = Path(gallery)
    index = Index.open(file, progress) if is_index_folder(file) else None
    if index or (is_shard_folder(file) and not settings.rerank):
        shards = index.shards if index else Shards.open(file, progress)
        side = select_side(shards, np.arange(1))
        extractor = _agree(file, shards.attributes, extractor, settings)
        return Gallery(side, extractor, np.full(1, "", dtype=object), current=False, shards=shards, index=index)
    if file.suffix in SUFFIXES or is_shard_folder(file):
        side, extractor = _read_gallery(file, extractor, settings, progress)
        return Gallery(side, extractor, np.full(len(side.features), "", dtype=object), current=False)
    if file.is_dir() and settings.site is None:
        return _load_folder(file, run, extractor, settings, progress)
    (images,) = find_image_sets([gallery], run, settings, progress, parts=["gallery"])
    images, features = embed.extract(images, extractor, settings, progress)
    side = Side(features, name_cameras(features.camids, images.names))
    return Gallery(side, extractor, images.records.sources, current=True)


def _load_folder(
    folder: Path, run: RunFolder, extractor: Extractor, settings: SearchSettings, progress: Progress
) -> Gallery:
    """The images of a folder: as the last search found them, if no file has changed since."""
    key = snapshot.describe(extractor, {name: getattr(settings, name) for name in ("dtype", "layout", "pattern")})
    file, began_ns = known_folder_file(folder, run, settings), time_ns()
    if found := distributed.run_on_main(lambda: snapshot.find(file, folder, key)):
        features, sources = found.features, np.full(len(found.features), found.source, dtype=object)
        progress.note(f"{folder}: {len(features):,} images as at the last search, no image decoded")
        embed.note_cameras(sources, features.camids, extractor, settings, progress)
        return Gallery(Side(features, found.cameras), extractor, sources, current=True)
    (images,) = find_image_sets([str(folder)], run, settings, progress, parts=[])
    images, features = embed.extract(images, extractor, settings, progress)
    side, records = Side(features, name_cameras(features.camids, images.names)), images.records
    if not images.skipped and distributed.is_main():
        features_file = cache.find_file(images.cache, extractor, records, settings.dtype)
        about: dict[str, Any] = {"features_file": features_file, "records": records, "cameras": side.cameras}
        snapshot.save(file, folder, key, began_ns=began_ns, **about)
    return Gallery(side, extractor, records.sources, current=True)


def load_queries(
    queries: Sequence[str],
    run: RunFolder,
    gallery: Gallery,
    settings: SearchSettings,
    progress: Progress,
    *,
    listed: bytes,
) -> Side:
    """The features of query images, cached in the run; of one that is in the gallery those of the gallery.

    The camera of an image is the given one, that of the same file in the gallery, or the one that its name has.
    """
    loose = find_loose_images(queries, layout=None, pattern=None, listed=parse_listed(listed), labelled=False)
    if gallery.shards is not None and (settings.exclude_same_camera or gallery.extractor.cameras):
        side = sample_side(gallery.shards, [str(path) for path in loose.records.paths])
        gallery = replace(gallery, side=side, sources=np.full(len(side.features), "", dtype=object))
    own = find_own(loose.records.paths, gallery.side.features.paths)
    loose = _find_cameras(loose, own, gallery, settings)
    known = {row: int(columns[0]) for row, columns in own.items()} if gallery.current else {}
    new = np.setdiff1d(np.arange(len(loose.records)), [*known])
    parts = [gallery.side.features.select(np.array([*known.values()]))] if known else []
    images = place_images(loose.select(new), run, settings, folder="queries") if len(new) else None
    if images and known and settings.skip_bad:  # what is left may be in the gallery
        images = embed.skip_bad_images(images, progress)
        new = new[np.isin(loose.records.paths[new].astype(str), images.records.paths.astype(str))]
    if images and len(images.records):
        images, features = embed.extract(images, gallery.extractor, settings, progress)
        embed.forget_oldest(images.cache.parent, _KEPT_QUERIES)
        new = new[np.isin(loose.records.paths[new].astype(str), features.paths.astype(str))]
        parts.append(features)
    rows = np.array([*known, *new.tolist()])
    order = np.argsort(rows)
    features = replace(_join(parts).select(order), paths=loose.records.paths[rows[order]].astype(str).astype(object))
    return Side(features, loose.cameras[rows[order]])


def _join(parts: Sequence[Features]) -> Features:
    columns = zip(*((one.matrix, one.pids, one.camids, one.paths) for one in parts), strict=True)
    return Features(*(np.concatenate(column) for column in columns))


def _find_cameras(
    loose: LooseImages, own: Mapping[int, np.ndarray], gallery: Gallery, settings: SearchSettings
) -> LooseImages:
    """The query images with their cameras. One that is in the gallery is of the same dataset."""
    side, records = gallery.side, loose.records
    numbers = dict(zip(side.cameras.tolist(), side.features.camids.tolist(), strict=True))
    cameras, sources = np.empty(len(records), dtype=object), records.sources.copy()
    for row, path in enumerate(records.paths):
        in_gallery = own.get(row, np.empty(0, dtype=np.int64))
        cameras[row] = settings.query_camera or (
            side.cameras[in_gallery[0]] if len(in_gallery) else parse_camera(Path(path).name)
        )
        if len(in_gallery):
            sources[row] = gallery.sources[in_gallery[0]]
    camids = np.array([numbers.get(name, UNKNOWN_CAMERA) for name in cameras], dtype=np.int64)
    return replace(loose, cameras=cameras, records=replace(records, camids=camids, sources=sources))


def _read_gallery(
    file: Path, extractor: Extractor, settings: SearchSettings, progress: Progress
) -> tuple[Side, Extractor]:
    """The features in `file`, and the extractor that reads query features as they were read.

    Raises `DataError` where the file states other weights, images of another size or other statistics of cameras.
    """
    content = feature_files.read_in_place(file)
    features, stated = content.features, content.attributes
    if "weights" not in stated:
        progress.note(f"{file}: does not state its weights; expected features of this run, read in the same way")
    else:
        extractor = _agree(file, stated, extractor, settings)
    return Side(features, name_cameras(features.camids, content.names)), extractor


def _agree(file: Path, stated: Mapping[str, str], extractor: Extractor, settings: SearchSettings) -> Extractor:
    """The extractor with the readout that the file states."""
    ours = {"weights": extractor.digest, "view": json.dumps(extractor.view.describe(), sort_keys=True)}
    differing = [name for name, value in ours.items() if stated.get(name, "") != value]
    if bool(stated.get("cameras")) != bool(extractor.cameras):
        differing.append("statistics of cameras")
    if differing:
        raise DataError(
            f"{file}: extracted with other {' and '.join(differing)} than those of this run. Extract it again: "
            f"`ptlreid embed FOLDER --run RUN --out {file}`."
        )
    readout = Readout(**json.loads(stated["readout"]))
    for name in ("flip", "normalize", "amp"):
        if name in settings.model_fields_set and getattr(settings, name) not in (None, getattr(readout, name)):
            raise OptionError(
                f"{name} = {getattr(settings, name)!r}, but {file} was extracted with {getattr(readout, name)!r}: "
                "expected the same. Leave it out, or extract the gallery again."
            )
    return replace(extractor, readout=replace(readout, channels_last=extractor.readout.channels_last))
