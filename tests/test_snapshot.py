"""A folder that was searched is known again as long as no file in it has changed."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import h5py
import pytest
from conftest import tiny_network, write_image
from hypothesis import given
from hypothesis import strategies as st

import ptlreid as package
from ptlreid import contents, datasets
from ptlreid.datasets._source_files import list_images, list_names
from ptlreid.models import weights
from ptlreid.network_types import NetworkSpec
from ptlreid.progress import Silent
from ptlreid.runs import RunFolder
from ptlreid.settings import FinetuneSettings


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def run(tmp_path, market_folder, monkeypatch) -> RunFolder:
    """A run of the tiny backbone, and `crops` with five images by two cameras, all written long ago."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(contents, "MARGIN_NS", 0)
    folder = RunFolder(tmp_path / "runs" / "tiny")
    settings = {"data": "market", "backbone": "tiny", "init": "none", "height": 64, "width": 32}
    folder.claim(FinetuneSettings.resolve(None, **settings), datasets.load("market", market_folder.parent))
    weights.save(tiny_network(classes=4), NetworkSpec("tiny", True, "slot", 4, 64, 32), folder.weights())
    for number in range(5):
        write_image(tmp_path / "crops" / f"cam{number % 2}" / f"{number}.jpg", 600 + number)
    (tmp_path / "crops" / "note.jpeg.txt").touch()
    write_image(tmp_path / "query.jpg", 700)
    return folder


def search(run: RunFolder, gallery: str = "crops", **settings: object):
    """Hits with distances, and whether the folder was known."""
    notes = Notes()
    found = package.search("query.jpg", gallery, run, device="cpu", progress=notes, **settings)
    hits = {hit["path"]: hit["distance"] for hit in found["queries"][0]["hits"]}
    return hits, any("as at the last search" in note for note in notes.notes)


def test_the_second_search_knows_the_folder_and_gives_the_same(run):
    first, known = search(run)
    assert not known
    assert search(run) == (first, True)
    filtered, known = search(run, camera=["cam1"])
    assert (set(filtered), known) == ({"crops/cam1/1.jpg", "crops/cam1/3.jpg"}, True)
    os.chdir("crops")
    try:
        moved = package.search("../query.jpg", ".", run, device="cpu")["queries"][0]["hits"]
    finally:
        os.chdir("..")
    assert {f"crops/{hit['path']}" for hit in moved} == set(first)


def edit(path: Path) -> None:
    """Another image of the same size in bytes, with the times restored."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    other = path.with_suffix(".tmp.jpg")
    write_image(other, 999)
    replacement = other.read_bytes()
    other.unlink()
    path.write_bytes(replacement[: len(content)].ljust(len(content), b"\0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        lambda: edit(Path("crops/cam0/0.jpg")),
        lambda: write_image(Path("crops/cam0/new.jpg"), 5),
        lambda: Path("crops/cam0/0.jpg").unlink(),
        lambda: Path("crops/cam0/0.jpg").rename("crops/cam1/0.jpg"),
        lambda: shutil.copytree("crops/cam0", "crops/cam2"),
        lambda: (Path("crops/note.jpeg.txt").unlink(), write_image(Path("crops/note.jpeg.txt/0.jpg"), 5)),
    ],
)
def test_any_change_in_the_folder_is_noticed(run, change):
    first, _ = search(run)
    change()
    found, known = search(run)
    assert not known
    shutil.rmtree(run.features)
    assert search(run) == (found, False)
    assert found != first


def test_another_reading_or_damage_is_noticed(run):
    first, _ = search(run)
    assert not search(run, layout="files")[1]
    assert not search(run, flip=True)[1]
    assert search(run, flip=True)[1]
    assert not search(run)[1]
    file = run.features / "crops.last.h5"
    with h5py.File(file) as content:
        offset = content["features"].id.get_offset()
    damaged = bytearray(file.read_bytes())
    damaged[offset + 5] ^= 1
    file.write_bytes(damaged)
    assert search(run) == (first, False)
    (noted,) = run.features.glob("*.known.npz")
    noted.write_bytes(noted.read_bytes()[:-30])
    assert search(run) == (first, False)


def test_a_folder_that_is_being_written_to_is_not_noted(run, monkeypatch):
    monkeypatch.setattr(contents, "MARGIN_NS", 3600 * 10**9)
    search(run)
    assert not search(run)[1]


def test_verified_digests_are_not_taken_from_the_last_search(run):
    search(run)
    with contents.verify_all(Silent()):
        assert not search(run)[1]


FOLDERS = ["a", "b", ".hidden", "c d"]
FILES = ["1.jpg", "2.JPG", "x.png", "note.txt", ".h.jpg", "Thumbs.db", "noext", "é.jpeg", "._1.jpg", "jpg", "a.b.jpg"]
NAMES = st.lists(st.tuples(st.lists(st.sampled_from(FOLDERS), max_size=2), st.sampled_from(FILES)), max_size=12)


@given(NAMES)
def test_names_are_listed_as_images_are(entries):
    with tempfile.TemporaryDirectory() as place:
        for folders, name in entries:
            file = Path(place, *folders, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        listing = list_names(Path(place))
        assert listing is not None
        assert listing.images == [image.origin for image in list_images(Path(place))[0]]
        files = {path.relative_to(place) for path in Path(place).rglob("*") if path.is_file()}
        shown = {path for path in files if not any(part.startswith(".") for part in path.parts)}
        assert {*map(Path, listing.images + listing.others)} == shown - {
            path for path in shown if path.name == "Thumbs.db"
        }


def test_a_link_to_a_folder_is_left_to_the_slow_way(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert list_names(tmp_path) is None
    assert list_names(tmp_path / "nowhere") is None
