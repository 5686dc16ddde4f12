"""Archives unpacked safely."""

from __future__ import annotations

import io
import tarfile
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptlreid.datasets import _unpack
from ptlreid.datasets._unpack import is_archive, unpack
from ptlreid.errors import DataError
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
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["a.jpg"]
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


def test_only_archives_are_archives(tmp_path):
    (tmp_path / "a.csv").write_text("path,pid,camid\n")
    (tmp_path / "a.txt").write_text("text")
    assert not any(is_archive(tmp_path / name) for name in ("a.csv", "a.txt", "", "none"))
    assert is_archive(tar_of(tmp_path / "a.bin", (entry("a.jpg"), b"1")))


@given(st.text(st.sampled_from("./\\:ab"), max_size=12))
def test_whatever_its_name_an_entry_stays_inside(tmp_path_factory, name):
    target = tmp_path_factory.getbasetemp().resolve() / "target"
    try:
        place = target / _unpack._resolve_path(target, _unpack._Member(name, 1, "file", None))
    except DataError:
        return
    assert place.resolve().is_relative_to(target)
