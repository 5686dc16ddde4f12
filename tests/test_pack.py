"""`ptlreid pack`: packed images equal those decoded from the files, and those of changed files are not used."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import h5py
import miniatures
import numpy as np
import pytest
import torch
from conftest import write_image
from damage import damage_examples, damaged, within_seconds
from hypothesis import given
from hypothesis import strategies as st

from ptlreid import datasets, files, packs
from ptlreid.datasets._cuhk03_mat import unpack_mat
from ptlreid.errors import DataError, PtlreidError
from ptlreid.images import load_batches
from ptlreid.progress import Silent
from ptlreid.records import Records
from ptlreid.settings.prepare import PackSettings
from ptlreid.views import EvalView, TrainView, decode, resize
from ptlreid.workflows import pack as packing
from ptlreid.workflows.check import check

SIZE = PackSettings(height=48, width=24)
EVAL = EvalView(48, 24)
TRAIN = TrainView(48, 24, crop=0.0, flip=0.5, pad=4, erase=0.5)


class Notes(Silent):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def pack(folder: Path, size: PackSettings = SIZE, name: str = "") -> packing.Packing:
    return packing.pack(datasets.find(name or str(folder)), folder, size, Silent())


def train_of(folder: Path) -> Records:
    return datasets.load(str(folder), folder).train


def images(records: Records, view: EvalView | TrainView, workers: int = 0, notes: Notes | None = None) -> torch.Tensor:
    rows = np.array_split(np.arange(len(records)), 3)
    batches = load_batches(records.paths, view, rows, augmentation_seed=(1, 2), workers=workers, progress=notes)
    return torch.cat([batch.images for batch in batches])


def rewrite(path: Path, seed: int) -> None:
    """Other content, and another modification time on every file system."""
    changed = path.stat().st_mtime_ns
    write_image(path, seed)
    os.utime(path, ns=(changed, changed + 10**9))


@pytest.fixture
def folder(tmp_path):
    """Market's miniature, its images of several sizes."""
    miniatures.write_market(tmp_path / "market")
    for number, path in enumerate(sorted((tmp_path / "market" / "bounding_box_train").iterdir())[:8]):
        write_image(path, 500 + number, height=40 + 4 * number, width=20 + number % 3)
    return tmp_path / "market"


@pytest.fixture
def undecoded(monkeypatch):
    """Ends any attempt to decode an image, until it is undone."""

    def refuse(path: Path) -> np.ndarray:
        raise AssertionError(f"{path} was decoded")

    with pytest.MonkeyPatch.context() as patch:
        yield lambda: patch.setattr("ptlreid.images.decode", refuse)


@pytest.mark.parametrize("view", [EVAL, TRAIN], ids=["eval", "train"])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_to_the_last_bit(folder, undecoded, view, workers):
    records = train_of(folder)
    expected = images(records, view)
    pack(folder)
    undecoded()
    assert torch.equal(images(records, view, workers), expected)


def test_another_size_is_read_from_the_files(folder):
    records = train_of(folder)
    expected = images(records, EvalView(24, 12))
    pack(folder)
    notes = Notes()
    assert torch.equal(images(records, EvalView(24, 12), notes=notes), expected)
    assert notes.notes == []


def test_crops_are_cut_from_the_original_images_also_where_there_is_a_pack(folder):
    records, view = train_of(folder), TrainView(48, 24, crop=1.0, flip=0.5, pad=0, erase=0.0)
    expected = images(records, view)
    pack(folder)
    notes = Notes()
    assert torch.equal(images(records, view, notes=notes), expected)
    assert notes.notes == ["packs are not used for training: crops (--crop) are cut from the original images"]


def test_bicubic_images_have_a_pack_of_their_own(folder, undecoded):
    records, view = train_of(folder), EvalView(48, 24, "bicubic")
    expected = images(records, view)
    assert not torch.equal(expected, images(records, EVAL))
    bilinear, notes = pack(folder), Notes()
    assert torch.equal(images(records, view, notes=notes), expected)
    (note,) = notes.notes
    assert note == (
        f"{bilinear.file}: a pack of bilinear images: expected bicubic. Image files are decoded; `ptlreid pack "
        "--interpolation bicubic` packs them."
    )
    made = pack(folder, PackSettings(height=48, width=24, interpolation="bicubic"))
    assert made.file == folder / "packed-48x24-bicubic.h5"
    undecoded()
    notes = Notes()
    assert torch.equal(images(records, view, notes=notes), expected)
    assert len(packs.find_packed(records.paths, EVAL, notes)) == len(records)
    assert notes.notes == []


def test_a_pack_renamed_to_another_interpolation_is_not_used(folder):
    made = pack(folder)
    made.file.rename(folder / "packed-48x24-bicubic.h5")
    assert len(packs.find_packed(train_of(folder).paths, EvalView(48, 24, "bicubic"))) == 0


def test_a_pack_contains_all_parts_and_describes_their_files(folder):
    made = pack(folder)
    assert made == packing.Packing(folder / "packed-48x24.h5", 16 + 6 + 8, 16 + 6 + 8)
    with h5py.File(made.file) as content:
        index = hashlib.blake2b(digest_size=16)
        for key in ("paths", "states", "digests", "contents"):
            index.update(content[key][:].tobytes())
        assert dict(content.attrs) == {
            "schema": b"2",
            "height": 48,
            "width": 24,
            "decoding": 2,
            "interpolation": b"bilinear, antialiased",
            "index": index.hexdigest().encode(),
        }
        paths = content["paths"][:].tobytes().decode().split("\0")
        assert paths == sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.jpg"))
        assert content["digests"][3].tobytes().hex() == files.file_digest(folder / paths[3])
        assert content["contents"][3].tobytes() == hashlib.blake2b(content["images"][3], digest_size=16).digest()
        stat = (folder / paths[3]).stat()
        assert content["states"][3].tolist() == [stat.st_size, stat.st_mtime_ns]
        records = Records.make([folder / path for path in paths], [1] * 30, [1] * 30, "all")
        made.file.rename(folder / "aside.h5")
        assert np.array_equal(content["images"][:], images(records, EVAL).numpy())


@pytest.mark.parametrize("change", ["content", "time", "size"])
def test_an_image_that_changed_is_decoded_from_its_file_with_a_note(folder, change):
    pack(folder)
    victim = sorted((folder / "bounding_box_train").iterdir())[5]
    before = victim.stat()
    if change == "content":
        rewrite(victim, 99)
    elif change == "time":
        os.utime(victim, ns=(0, before.st_mtime_ns + 1))
    else:
        victim.write_bytes(victim.read_bytes() + b"\0")
        os.utime(victim, ns=(0, before.st_mtime_ns))
    records, notes = train_of(folder), Notes()
    assert len(packs.find_packed(records.paths, EVAL)) == 15
    found = images(records, EVAL, notes=notes)
    (folder / "packed-48x24.h5").unlink()
    assert torch.equal(found, images(records, EVAL))
    (note,) = notes.notes
    assert "packed-48x24.h5: 1 images are new or changed since it was built" in note
    assert victim.name in note
    assert "`ptlreid pack`" in note


def test_images_that_changed_places_are_not_mistaken(folder):
    pack(folder)
    first, second = sorted((folder / "query").iterdir())[:2]
    write_image(first, 97, height=80)
    for path in (first, second):
        os.utime(path, ns=(0, 10**18))  # as a copy that keeps no times leaves them: all alike
    assert first.stat().st_size != second.stat().st_size
    pack(folder)
    expected = images(datasets.load(str(folder), folder).query, EVAL)
    first.rename(folder / "aside")
    second.rename(first)
    (folder / "aside").rename(second)
    found = images(datasets.load(str(folder), folder).query, EVAL)
    assert torch.equal(found[[1, 0, *range(2, len(found))]], expected)


def test_a_copy_of_the_folder_reads_the_copied_pack(folder, undecoded):
    expected = images(train_of(folder), EVAL)
    pack(folder)
    moved = folder.with_name("moved")
    shutil.copytree(folder, moved)  # which keeps times
    shutil.rmtree(folder)
    undecoded()
    assert torch.equal(images(train_of(moved), EVAL), expected)


def test_a_union_takes_from_each_pack_what_is_there(folder, tmp_path):
    other = tmp_path / "data" / "duke"
    miniatures.write_duke(other)
    shutil.move(folder, tmp_path / "data" / "market")
    union = datasets.load("market+duke", tmp_path / "data").train
    expected = images(union, TRAIN)
    pack(other)
    assert len(packs.find_packed(union.paths, EVAL)) == len(union) // 2
    assert torch.equal(images(union, TRAIN), expected)
    pack(tmp_path / "data" / "market")
    assert len(packs.find_packed(union.paths, EVAL)) == len(union)
    assert torch.equal(images(union, TRAIN), expected)


def test_images_two_folders_deep_are_found_and_those_of_val_are_packed(tmp_path):
    miniatures.write_msmt17(tmp_path / "msmt17-v1", "v1")
    found = datasets.find("msmt17", tmp_path)
    made = packing.pack(found, tmp_path / "msmt17-v1", SIZE, Silent())
    assert made.images == 9 + 4 + 4
    assert len(packs.find_packed(datasets.load("msmt17:v1-val", tmp_path).train.paths, EVAL)) == 9


def test_a_second_variant_is_added_to_the_pack_of_the_first(tmp_path, monkeypatch):
    rows = miniatures.cuhk03_rows()
    monkeypatch.setattr("ptlreid.datasets.cuhk03.read_new_split", lambda: rows)
    miniatures.write_cuhk03(tmp_path / "cuhk-03.mat", rows)
    root = tmp_path / "data"
    for one in ("labeled", "detected"):  # into one folder, as version 0.1
        unpack_mat(tmp_path / "cuhk-03.mat", root / "cuhk03", one, Silent())
    labeled, detected = (
        packing.pack(datasets.find(f"cuhk03:{one}"), root / "cuhk03", SIZE, Silent()) for one in ("labeled", "detected")
    )
    assert labeled.new == labeled.images
    assert detected.images == labeled.images + detected.new
    for one in ("labeled", "detected"):
        train = datasets.load(f"cuhk03:{one}", root).train
        assert len(packs.find_packed(train.paths, EVAL)) == len(train)


def test_packing_again_decodes_changed_files_only(folder, monkeypatch):
    pack(folder)
    written = (folder / "packed-48x24.h5").stat().st_ino
    assert pack(folder).new == 0
    assert (folder / "packed-48x24.h5").stat().st_ino == written
    rewrite(folder / "query" / "0005_c1s1_000001_00.jpg", 99)
    write_image(folder / "query" / "0005_c1s1_000009_00.jpg", 98)
    (folder / "query" / "0006_c1s1_000001_00.jpg").unlink()
    decoded: list[str] = []
    decode = packing.decode
    monkeypatch.setattr(packing, "decode", lambda path: decoded.append(path.name) or decode(path))
    assert pack(folder) == packing.Packing(folder / "packed-48x24.h5", 30, 2)
    assert decoded == ["0005_c1s1_000001_00.jpg", "0005_c1s1_000009_00.jpg"]
    query = datasets.load(str(folder), folder).query
    found = images(query, EVAL)
    (folder / "packed-48x24.h5").unlink()
    assert torch.equal(found, images(query, EVAL))


def test_an_image_that_cannot_be_decoded_leaves_the_pack_as_it_was(folder):
    pack(folder)
    before = (folder / "packed-48x24.h5").read_bytes()
    (folder / "query" / "0005_c1s1_000001_00.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"0005_c1s1_000001_00\.jpg: not an image"):
        pack(folder)
    assert (folder / "packed-48x24.h5").read_bytes() == before
    assert list(folder.glob(".*.part")) == []


def test_leftovers_of_a_killed_writer_are_removed(folder):
    left = folder / ".packed-48x24.h5.abc.part"
    left.write_bytes(b"half of it")
    pack(folder)
    assert not left.exists()


def test_a_full_disk_is_reported_before_anything_is_written(folder, monkeypatch):
    def full(handle: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(packing, "decode", None)  # nothing is decoded
    lengths = sum(len(path.relative_to(folder).as_posix()) for path in folder.glob("*/*.jpg"))
    needed = 30 * 48 * 24 * 3 + 30 * 256 + lengths  # pixels, index, paths
    with pytest.raises(
        PtlreidError, match=rf"packed-48x24\.h5: cannot be written .* expected room for {needed:,} bytes"
    ):
        pack(folder)
    assert not list(folder.glob("*packed*"))


def damage(file: Path, kind: str) -> None:
    if kind == "of 0.1":  # strings of variable length in the earliest format of HDF5
        with h5py.File(file) as content:
            pixels = content["images"][:]
        with h5py.File(file, "w") as content:
            content["images"] = pixels
            content["paths"] = ["query/0005_c1s1_000001_00.jpg"] * len(pixels)
            content.attrs["schema"] = "1"
    elif kind == "cut":
        os.truncate(file, file.stat().st_size // 2)
    elif kind == "nothing":
        file.write_bytes(b"")
    else:
        with h5py.File(file, "r+") as content:
            if kind == "schema":
                content.attrs["schema"] = "0"
            elif kind == "interpolation":
                content.attrs["interpolation"] = "nearest"
            elif kind == "other path":
                content["paths"][0] ^= 1
            elif kind == "no index":
                del content["paths"]
            elif kind == "in pieces":
                pixels = content["images"][:]
                del content["images"]
                content.create_dataset("images", data=pixels, chunks=True)
            elif kind == "short index":
                del content["digests"]
                content.create_dataset("digests", data=["a"], dtype=h5py.string_dtype())


@pytest.mark.parametrize(
    "kind",
    ["cut", "nothing", "schema", "interpolation", "of 0.1", "no index", "short index", "other path", "in pieces"],
)
def test_an_incomplete_pack_is_not_used_with_a_note(folder, kind):
    pack(folder)
    damage(folder / "packed-48x24.h5", kind)
    records, notes = train_of(folder), Notes()
    found = images(records, EVAL, notes=notes)
    (note,) = notes.notes
    assert note.startswith(f"{folder / 'packed-48x24.h5'}: ")
    assert note.endswith("Until then, image files are decoded.")
    assert pack(folder).new == 30
    assert torch.equal(images(records, EVAL), found)


def test_a_pack_under_the_name_of_another_size_is_not_used(folder):
    pack(folder)
    (folder / "packed-48x24.h5").rename(folder / "packed-24x12.h5")
    assert len(packs.find_packed(train_of(folder).paths, EvalView(24, 12))) == 0


def test_a_pack_that_is_replaced_before_it_is_mapped_is_not_used(folder):
    pack(folder)
    records = train_of(folder)
    found = packs.find_packed(records.paths, EVAL)
    write_image(folder / "bounding_box_train" / "0001_c1s1_000000_00.jpg", 98)  # all others move on by one place
    pack(folder)
    assert found.get(0) is None


def findings(folder: Path) -> list[tuple[str, bool, str]]:
    report = check(datasets.find(str(folder)), folder, Silent())
    return [(fault.kind, fault.serious, str(fault)) for fault in report.faults]


def test_a_check_finds_nothing_wrong_with_a_new_pack(folder):
    pack(folder)
    assert findings(folder) == []


def test_a_check_counts_what_a_pack_lacks(folder):
    pack(folder)
    rewrite(folder / "query" / "0005_c1s1_000001_00.jpg", 99)
    ((kind, serious, text),) = findings(folder)
    assert (kind, serious) == ("pack", False)
    assert "lacks 1 images that are new or changed" in text
    assert "0005_c1s1_000001_00.jpg" in text
    pack(folder)
    assert findings(folder) == []


def test_a_check_sees_content_that_changed_under_the_same_size_and_time(folder):
    pack(folder)
    victim = folder / "query" / "0005_c1s1_000001_00.jpg"
    before, content = victim.stat(), bytearray(victim.read_bytes())
    content[-3] ^= 1
    victim.write_bytes(bytes(content))
    os.utime(victim, ns=(0, before.st_mtime_ns))
    ((kind, serious, text),) = findings(folder)
    assert (kind, serious) == ("pack", True)
    assert text.startswith(f"{victim}: its bytes changed although its size and time did not")
    assert "Remove the pack" in text


def test_a_check_sees_pixels_that_are_not_those_that_were_packed(folder):
    pack(folder)
    with h5py.File(folder / "packed-48x24.h5", "r+") as content:
        victim = content["paths"][:].tobytes().decode().split("\0")[7]
        content["images"][7, 3, 2, 1] ^= 1
    ((kind, serious, text),) = findings(folder)
    assert (kind, serious) == ("pack", True)
    assert victim in text
    rewrite(folder / "query" / "0005_c1s1_000001_00.jpg", 99)
    pack(folder)  # keeps what is intact
    assert findings(folder) == []
    packed = packs.find_packed([folder / victim], EVAL).get(0)
    assert packed is not None
    assert np.array_equal(packed, resize([decode(folder / victim)], EVAL)[0])


@damage_examples()
@given(data=st.data())
def test_a_damaged_pack_is_ignored_with_a_note_or_a_check_names_each_wrong_image(tmp_path, data):
    sound, file = tmp_path / "sound", tmp_path / "market" / "packed-48x24.h5"
    if not sound.exists():
        miniatures.write_market(file.parent)
        pack(file.parent)
        file.rename(sound)
    file.write_bytes(data.draw(damaged(sound.read_bytes())))
    paths, notes = [*file.parent.glob("*/*.jpg")], Notes()
    with within_seconds():
        found = packs.find_packed(paths, EVAL, notes)
        if not found:
            (note,) = notes.notes
            assert note.startswith(f"{file}: not a complete pack (")
            return
        named = "\n".join(map(str, packing.faults(file, {}, Silent())))
    assert (len(found), notes.notes) == (len(paths), [])
    for row, path in enumerate(paths):
        right = np.array_equal(found.get(row), resize([decode(path)], EVAL)[0])
        assert right != (f"the pixels of {path.relative_to(file.parent).as_posix()} in it have changed" in named)


def test_a_check_names_a_pack_that_cannot_be_used(folder):
    pack(folder)
    damage(folder / "packed-48x24.h5", "cut")
    ((kind, serious, text),) = findings(folder)
    assert (kind, serious) == ("pack", False)
    assert "not a complete pack" in text


def test_the_command_packs_what_it_prepares_and_training_reads_it(ptlreid, tmp_path):
    miniatures.write_market(tmp_path / "download")
    sizes = ("--height", 64, "--width", 32)
    code, out, err = ptlreid("prepare", "market", "--source", "download", "--pack", *sizes, "--json")
    assert code == 0, err
    made = json.loads(out)
    assert (made["prepared"], made["packed"], made["pack"]) == (True, 30, "data/market/packed-64x32.h5")
    code, out, err = ptlreid("prepare", "market", "--pack", *sizes)
    assert code == 0, err
    assert "Reused: data/market/packed-64x32.h5" in " ".join(out.split())
    train = ("--backbone", "tiny", "--init", "none", *sizes, "--epochs", 1, "--batch-size", 8, "--json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ptlreid.images.decode", None)
        code, _, err = ptlreid("finetune", "--data", "market", "--name", "run", *train)
    assert code == 0, err


def test_the_size_of_a_pack_comes_from_a_settings_file(ptlreid, tmp_path):
    miniatures.write_market(tmp_path / "data" / "market")
    (tmp_path / "pack.toml").write_text("height = 40\nwidth = 20\n")
    code, out, err = ptlreid("prepare", "market", "--pack", "--config", "pack.toml", "--width", 10, "--json")
    assert code == 0, err
    assert json.loads(out)["pack"] == "data/market/packed-40x10.h5"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("market", "--pack"), "was not found"),
        (("market", "--pack", "--identities", 3), "--identities does not apply to market"),
        (("market", "--pack", "--height", 0), "--height 0: expected an integer in [1, 2048]"),
    ],
)
def test_a_mistake_in_packing_is_one_clear_message(ptlreid, tmp_path, arguments, message):
    if message.startswith(("--", "height")):
        miniatures.write_market(tmp_path / "data" / "market")
    code, out, err = ptlreid("prepare", *arguments)
    assert (code, out) == (1, "")
    assert message in err
    assert err.startswith("error: ")
