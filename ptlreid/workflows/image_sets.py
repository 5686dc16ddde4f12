"""Images whose features belong in one file: of any source, or of the parts of a prepared dataset."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np

from ptlreid import contents, datasets
from ptlreid.datasets._loose_images import (
    STANDARD_INPUT,
    LooseImages,
    find_loose_images,
    parse_listed,
    place_at_site,
)
from ptlreid.datasets.folder import read_cameras
from ptlreid.errors import DataError, OptionError
from ptlreid.evaluation import cache_file
from ptlreid.progress import Progress
from ptlreid.records import Records
from ptlreid.runs import RunFolder
from ptlreid.settings.embed import ImagesSettings

PARTS = ("train", "query", "gallery")
_LOOSE_ONLY = ("layout", "pattern", "site")


@dataclass(frozen=True)
class ImageSet:
    """Images whose features belong in one file. `name`: of that file. `cache`: of their features in the run.

    `names`: what their source calls identities and cameras where that is no number, (N,) object arrays of str by
    `identities` and `cameras`. `skipped`: images that were left out, with the reason.
    """

    name: str
    cache: Path
    records: Records
    names: Mapping[str, np.ndarray]
    skipped: Mapping[str, str]

    def select(self, rows: np.ndarray) -> ImageSet:
        """The images at the rows."""
        names = {key: column[rows] for key, column in self.names.items()}
        return replace(self, records=self.records.select(rows), names=names)

    def without(self, bad: Mapping[int, str]) -> ImageSet:
        """The images without those at the rows `bad`, each with a reason."""
        skipped = {str(self.records.paths[row]): reason for row, reason in bad.items()}
        return replace(self.select(np.setdiff1d(np.arange(len(self.records)), list(bad))), skipped=skipped)


def find_image_sets(
    sources: Sequence[str],
    run: RunFolder,
    settings: ImagesSettings,
    progress: Progress,
    *,
    parts: Sequence[str],
    listed: bytes = b"",
    prepared: bool = False,
) -> list[ImageSet]:
    """The images of the sources: one set, with a note on how they were read; of a prepared dataset one for each part.

    `parts`: those that are wanted of a prepared dataset; the ones without images are left out. `prepared`: the source
    is one. The digests of other images are kept with their features in the run's folder, and not next to the images.
    """
    known = sources[0] == STANDARD_INPUT or Path(sources[0]).exists()
    is_path = known or (bool(Path(sources[0]).suffix) and not _is_prepared(sources[0], settings))
    if not prepared and (len(sources) > 1 or is_path):
        listed_paths = parse_listed(listed)
        images = find_loose_images(sources, layout=settings.layout, pattern=settings.pattern, listed=listed_paths)
        for note in images.notes:
            progress.note(note)
        return [place_images(images, run, settings)]
    given = [f"--{name}" for name in _LOOSE_ONLY if name in settings.model_fields_set]
    if given:
        raise OptionError(f"{', '.join(given)}: for images that are not prepared: expected none. Leave it out.")
    splits = datasets.load(sources[0], Path(settings.root))
    records = dict(zip(PARTS, splits.parts, strict=True))
    name = splits.name.replace(":", "-")
    sets = [
        ImageSet(f"{name}.{part}", cache_file(run, splits, part, settings), records[part], {}, {})
        for part in parts
        if len(records[part])
    ]
    if not sets:
        raise DataError(f"{splits.name}: its part {parts[0]} is empty, expected images. Choose another part.")
    return sets


def _is_prepared(source: str, settings: ImagesSettings) -> bool:
    """Whether there is a dataset of this name, which may have a dot in it."""
    return (Path(settings.root) / source.partition(":")[0]).is_dir()


def place_images(images: LooseImages, run: RunFolder, settings: ImagesSettings, folder: str = "") -> ImageSet:
    """The images with the place of their features, in a `folder` of the run's features, and as seen by a --site."""
    if settings.site:
        images = _place(images, settings.site, Path(settings.root))
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", images.name).strip(".-") or "images"
    if images.folder is not None and not folder:
        key, stem = str(images.folder.resolve()), name
        contents.use_index(images.folder, run.features / f"{name}.{_digest(key)}.contents.npz")
    else:  # several lists may name images of one folder
        stem = f"{name}-{_digest(chr(0).join(str(path.absolute()) for path in images.records.paths))}"
    file = run.features / folder / f"{stem}.{settings.weights}.h5"
    given = {"identities": images.identities, "cameras": images.cameras}
    return ImageSet(name, file, images.records, _name_others(given, images.records), {})


def known_folder_file(folder: Path, run: RunFolder, settings: ImagesSettings) -> Path:
    """Where it is noted that the features of a folder's images are current: see `cache.snapshot`."""
    return run.features / f"{_digest(str(folder.resolve()))}.{settings.weights}.known.npz"


def _place(images: LooseImages, site: str, root: Path) -> LooseImages:
    """The images as taken by the cameras of the dataset called `site`."""
    dataset = datasets.find(site, root)
    folder = dataset.folder(root)
    sources = np.concatenate([part.sources for part in dataset.read(folder).parts])
    return place_at_site(images, str(sources[0]), read_cameras(folder))


def _digest(text: str) -> str:
    return blake2b(text.encode(errors="surrogateescape"), digest_size=8).hexdigest()


def _name_others(given: Mapping[str, np.ndarray], records: Records) -> dict[str, np.ndarray]:
    """The columns of names in which some name is not the number that the records have."""
    numbers = {"identities": records.pids, "cameras": records.camids}
    return {
        key: column
        for key, column in given.items()
        if any(name not in ("", str(number)) for name, number in zip(column, numbers[key].tolist(), strict=True))
    }
