"""Archives unpacked safely."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
from damage import damage_examples, damaged, within_seconds
from hypothesis import given
from hypothesis import strategies as st

from ptlreid.datasets import _unpack
from ptlreid.datasets._unpack import is_archive, unpack
from ptlreid.errors import DataError, PtlreidError
from ptlreid.progress import Silent


def tar_of(file, *entries):
    """A tar file of (TarInfo, bytes)."""
    with tarfile.open(file, "w") as stream:
        for entry, content in entries:
            entry.size = len(content)
            stream.addfile(entry, io.BytesIO(content))
    return file


def entry(name, kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("name", ["../evil.jpg", "set/../../evil.jpg", "/etc/evil.jpg", "..\\evil.jpg", "C:/evil.jpg"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_path_out_of_the_folder_is_refused(tmp_path, name, kind):
    file = tmp_path / f"a.{kind}"
    if kind == "tar":
        tar_of(file, (entry("set/fine.jpg"), b"1"), (entry(name), b"2"))
    else:
        with zipfile.ZipFile(file, "w") as content:
            content.writestr(name, b"2")
    with pytest.raises(DataError, match="leads out of the target folder"):
        unpack(file, tmp_path / "in" / "target", Silent())
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_link_or_a_device_in_a_tar_file_is_refused(tmp_path, kind):
    file = tar_of(tmp_path / "a.tar", (entry("set/link.jpg", kind, "/etc/passwd"), b""))
    with pytest.raises(DataError, match=r"'set/link\.jpg' is a link or a device"):
        unpack(file, tmp_path / "target", Silent())
    assert not (tmp_path / "target" / "set" / "link.jpg").is_symlink()


def test_a_link_in_a_zip_file_is_refused(tmp_path):
    link = zipfile.ZipInfo("set/link.jpg")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as content:
        content.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="is a link or a device"):
        unpack(tmp_path / "a.zip", tmp_path / "target", Silent())


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_more_than_the_limit_is_refused_before_it_is_written(tmp_path, kind):
    file = tmp_path / f"a.{kind}"
    if kind == "tar":
        tar_of(file, (entry("a.jpg"), b"0" * 600), (entry("b.jpg"), b"0" * 401))
    else:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as content:
            content.writestr("a.jpg", b"0" * 600)
            content.writestr("b.jpg", b"0" * 401)
    with pytest.raises(DataError, match="holds more than 1,000 bytes"):
        unpack(file, tmp_path / "target", Silent(), max_bytes=1000)
    # Only a zip file states what it holds in advance.
    assert [path.name for path in tmp_path.glob("target/*")] == (["a.jpg"] if kind == "tar" else [])
    unpack(file, tmp_path / "target", Silent(), max_bytes=1001)


def test_strays_are_left_in_the_archive(tmp_path):
    names = ("a.jpg", "._a.jpg", "Thumbs.db", ".DS_Store")
    file = tar_of(tmp_path / "a.tar", *((entry(name), b"1") for name in names))
    unpack(file, tmp_path / "target", Silent())
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["a.jpg"]


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_damaged_archive_is_one_message(tmp_path, name):
    plain = tar_of(tmp_path / "a.tar", (entry("a.jpg"), bytes(range(256)) * 400))
    if name == "a.zip":
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as content:
            content.write(plain, "a.jpg")
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[:200] + bytes(40) + whole[240:])
    else:
        with tarfile.open(tmp_path / name, "w:gz") as stream:
            stream.add(plain, "a.jpg")
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(tmp_path / name, tmp_path / "target", Silent())
    assert not (tmp_path / "target" / "a.jpg").exists()


def test_what_is_no_archive_is_not_taken_for_one(tmp_path):
    (tmp_path / "a.csv").write_text("path,pid,camid\n")
    assert not any(is_archive(tmp_path / name) for name in ("a.csv", "", "none"))
    assert is_archive(tar_of(tmp_path / "a.bin", (entry("a.jpg"), b"1")))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"<!DOCTYPE html><html>Log in", "an HTML page"),
        (b"", "an empty file"),
        (b"PK\x03\x04" + bytes(100), "a ZIP archive, incomplete or damaged"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(100), "a 7z archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    ],
)
def test_a_file_that_is_no_archive_is_named_by_what_it_is(tmp_path, content, kind):
    (tmp_path / "market.zip").write_bytes(content)
    message = rf"market\.zip: not an archive that can be unpacked: it is {kind}.*\. Expected a complete zip or tar file"
    with pytest.raises(DataError, match=message):
        is_archive(tmp_path / "market.zip")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_an_archive_without_files_is_refused(tmp_path, kind):
    file = tmp_path / f"a.{kind}"
    if kind == "zip":
        zipfile.ZipFile(file, "w").close()
    else:
        tarfile.open(file, "w:gz" if kind == "tar.gz" else "w").close()
    with pytest.raises(DataError, match="holds no file"):
        unpack(file, tmp_path / "target", Silent())


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_that_unpacks_to_far_more_than_itself_is_refused(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(_unpack, "_SMALL", 1 << 20)
    plain = tmp_path / "zeros.jpg"
    plain.write_bytes(bytes(2 << 20))
    file = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as content:
            content.write(plain, "zeros.jpg")
    else:
        with tarfile.open(file, "w:gz") as stream:
            stream.add(plain, "zeros.jpg")
    with pytest.raises(DataError, match=f"a.{kind}: holds more than 100 times its own size, which no images give"):
        unpack(file, tmp_path / "target", Silent())
    assert not list(tmp_path.glob("target/*"))


def test_too_many_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(_unpack, "MAX_FILES", 2)
    entries = [(entry(f"{number}.jpg"), b"1") for number in range(3)]
    unpack(tar_of(tmp_path / "two.tar", *entries[:2]), tmp_path / "two", Silent())
    with pytest.raises(DataError, match="holds more than 2 files"):
        unpack(tar_of(tmp_path / "three.tar", *entries), tmp_path / "three", Silent())


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_without_room_on_the_disk_is_refused_before_it_is_unpacked(tmp_path, kind, monkeypatch):
    file = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as content:
            content.writestr("a.jpg", bytes(4000))
    else:
        tar_of(file, (entry("a.jpg"), bytes(4000)))
    needed = 4000 if kind == "zip" else 10_240  # a tar file is padded to blocks of 10,240 bytes
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6 - needed + 1, needed - 1))
    with pytest.raises(PtlreidError, match=rf"expected room for {needed:,} bytes, but {needed - 1:,} bytes are free"):
        unpack(file, tmp_path / "target", Silent())
    assert not (tmp_path / "target").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6 - needed, needed))
    unpack(file, tmp_path / "target", Silent())


def test_a_public_dataset_may_hold_a_multiple_of_what_it_holds():
    # 1,000 images of at most 128 KiB, and 8 GiB of other files; own images any number.
    counts = {"": {"train_images": 600, "query_images": 400, "train_identities": 7}, "small": {"train_images": 5}}
    assert _unpack.most_bytes(counts) == 1000 * 2**17 + 8 * 2**30
    assert _unpack.most_bytes({}) == _unpack.MAX_BYTES


FILES = {f"set/{number}.jpg": np.random.default_rng(number).bytes(700) for number in range(4)} | {
    "list.txt": b"1\n" * 300
}


def zip_of_files(compression: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as content:
        for name, data in FILES.items():
            content.writestr(name, data)
    return stream.getvalue()


def tar_of_files(mode: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as content:
        for name, data in FILES.items():
            info = entry(name)
            info.size = len(data)
            content.addfile(info, io.BytesIO(data))
    return stream.getvalue()


@pytest.mark.parametrize(
    "whole",
    [zip_of_files(zipfile.ZIP_STORED), zip_of_files(zipfile.ZIP_DEFLATED), tar_of_files("w:gz"), tar_of_files("w:xz")],
    ids=["zip", "deflated zip", "tar.gz", "tar.xz"],
)
@damage_examples()
@given(data=st.data())
def test_a_damaged_archive_gives_the_right_files_or_one_message(tmp_path_factory, whole, data):
    """Both have checksums: of every file, and of the stream."""
    folder = tmp_path_factory.mktemp("damaged")
    file = folder / "a.bin"
    file.write_bytes(data.draw(damaged(whole)))
    with within_seconds():
        try:
            if not is_archive(file):
                raise DataError("not an archive")
            unpack(file, folder / "target", Silent())
        except PtlreidError:
            return
    found = {
        str(path.relative_to(folder / "target")): path for path in (folder / "target").rglob("*") if path.is_file()
    }
    assert {name: path.read_bytes() for name, path in found.items()} == FILES


@given(st.text(st.sampled_from("./\\:ab"), max_size=12))
def test_whatever_its_name_an_entry_stays_inside(tmp_path_factory, name):
    target = tmp_path_factory.getbasetemp().resolve() / "target"
    try:
        place = target / _unpack._resolve_path(target, _unpack._Member(name, 1, "file", None))
    except DataError:
        return
    assert place.resolve().is_relative_to(target)
