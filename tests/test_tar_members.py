"""Members of tar files by their place: what `tarfile` reads from the same files, and what is refused."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptlreid import tar_headers, tar_members
from ptlreid.errors import DataError
from ptlreid.tar_members import OpenTar, open_content, stat_content, stat_opened

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
ENTRIES = {"b.jpg": b"second", "a.jpg": b"first" * 200, "sub/c.json": b"", "d.jpg": bytes(512)}


def member(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def write_tar(path: Path, entries: dict[str, bytes], form: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in entries.items():
            tar.addfile(member(name, len(content)), io.BytesIO(content))
    return path


def read_all(path: Path) -> dict[str, bytes]:
    with OpenTar(path) as tar:
        return {name: tar.open(name).read() for name in tar.names()}


def content_of(path: Path) -> bytes:
    with open_content(path) as stream:
        return stream.read()


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as raised, OpenTar(path):
        pass
    return str(raised.value)


_PARTS = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60)
_NAMES = st.lists(_PARTS.filter(lambda part: part not in (".", "..")), min_size=1, max_size=5).map("/".join)


@settings(max_examples=40)
@given(st.dictionaries(_NAMES, st.binary(max_size=1500), max_size=5), st.sampled_from(FORMATS[1:]))
def test_names_and_contents_are_those_that_tarfile_reads(tmp_path_factory, entries, form):
    """Long names are GNU's headers, or pax's; names up to 100 bytes are in the header itself."""
    path = write_tar(tmp_path_factory.mktemp("t") / "x.tar", entries, form)
    with tarfile.open(path) as tar:
        expected = {one.name: tar.extractfile(one).read() for one in tar}
    assert read_all(path) == expected
    with OpenTar(path) as tar:
        assert tar.names() == sorted(entries, key=os.fsencode)


def test_a_long_name_of_posix_is_in_two_fields(tmp_path):
    name = f"{'d' * 90}/{'e' * 60}.jpg"
    assert read_all(write_tar(tmp_path / "x.tar", {name: b"x"})) == {name: b"x"}


def test_a_name_that_is_not_utf8_is_kept_byte_for_byte(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    write_tar(tmp_path / "x.tar", {name: b"x"}, tarfile.GNU_FORMAT)
    assert open_content(tmp_path / "x.tar" / name).read() == b"x"


def test_sizes_of_pax_and_of_gnus_binary_form_are_read(tmp_path):
    """Of files from 8 GiB on, octal digits have no room: here in small, so that a wrong size finds no next header."""
    pax = write_tar(tmp_path / "pax.tar", {})
    info, content = member("a.jpg", 0, pax_headers={"size": "700", "comment": "x"}), b"y" * 700
    with pax.open("wb") as stream:
        stream.write(info.tobuf(tarfile.PAX_FORMAT) + content + bytes(324) + member("b.jpg", 0).tobuf() + bytes(1024))
    assert read_all(pax) == {"a.jpg": content, "b.jpg": b""}
    gnu, header = tmp_path / "gnu.tar", bytearray(member("a.jpg", 700).tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = b"\x80" + (700).to_bytes(11)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    gnu.write_bytes(header + content + bytes(324) + bytes(1024))
    assert read_all(gnu) == {"a.jpg": content}


def test_members_are_found_by_path_and_ordinary_files_are_read_as_before(tmp_path):
    write_tar(tmp_path / "x.tar", ENTRIES)
    (tmp_path / "plain.jpg").write_bytes(b"plain")
    (tmp_path / "folder.tar").mkdir()
    (tmp_path / "folder.tar" / "a.jpg").write_bytes(b"a file in a folder")
    write_tar(tmp_path / "folder.tar" / "y.tar", {"sub/a.jpg": b"inner"})
    assert content_of(tmp_path / "plain.jpg") == b"plain"
    assert content_of(tmp_path / "folder.tar" / "a.jpg") == b"a file in a folder"
    assert content_of(tmp_path / "folder.tar" / "y.tar" / "sub" / "a.jpg") == b"inner"
    assert {name: content_of(tmp_path / "x.tar" / name) for name in ENTRIES} == ENTRIES
    for path in ("x.tar/none.jpg", "x.tar/sub", "none.tar/a.jpg", "plain.jpg/a.jpg", "x.tar/a.jpg/b.jpg"):
        with pytest.raises((FileNotFoundError, NotADirectoryError)):
            open_content(tmp_path / path)


def test_a_member_has_the_state_of_its_tar_file(tmp_path):
    path = write_tar(tmp_path / "x.tar", ENTRIES)
    (tmp_path / "plain.jpg").write_bytes(b"plain")
    with open_content(path / "a.jpg") as inner, open_content(tmp_path / "plain.jpg") as outer:
        states = [stat_opened(inner), stat_content(path / "a.jpg"), path.stat()]
        # Without the time of the last access, which reading changes.
        assert len({(one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_ino) for one in states}) == 1
        assert stat_opened(outer).st_ino == stat_content(tmp_path / "plain.jpg").st_ino
    with pytest.raises(NotADirectoryError):
        stat_content(tmp_path / "plain.jpg" / "a.jpg")


def test_a_member_larger_than_allowed_is_not_read(tmp_path):
    write_tar(tmp_path / "x.tar", ENTRIES)
    with pytest.raises(OSError, match="larger than 999 bytes"):
        open_content(tmp_path / "x.tar" / "a.jpg", most_bytes=999)
    assert len(open_content(tmp_path / "x.tar" / "a.jpg", most_bytes=1000).read()) == 1000


def test_the_headers_are_read_once_and_again_after_a_change(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "x.tar", ENTRIES)
    calls = []
    read = tar_members.read_entries
    monkeypatch.setattr(tar_members, "read_entries", lambda *given: calls.append(given) or read(*given))
    for _ in range(3):
        assert open_content(path / "b.jpg").read() == b"second"
    assert len(calls) == 1
    write_tar(path, {"0.jpg": b"more", **ENTRIES, "b.jpg": b"third"})
    assert open_content(path / "b.jpg").read() == b"third"
    assert len(calls) == 2


def test_indexes_that_were_not_used_lately_are_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_members, "_MOST_MEMBERS", 9)
    monkeypatch.setattr(tar_members, "_indexes", {})
    paths = [write_tar(tmp_path / f"{number}.tar", ENTRIES) for number in range(3)]
    for number in (0, 1, 0, 2):
        open_content(paths[number] / "a.jpg")
    assert [Path(key[0]).name for key in tar_members._indexes] == ["0.tar", "2.tar"]


def damaged(path: Path, change) -> Path:
    content = bytearray(write_tar(path, ENTRIES).read_bytes())
    path.write_bytes(change(content))
    return path


def flip(content: bytearray, at: int) -> bytearray:
    content[at] ^= 4
    return content


# Headers are at 0, 1,024, 2,560 and 3,072, contents behind them; the end mark is at 4,096.
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:1030], "ends at byte 1,030, without the zeros that mark"),
        (lambda content: content[:1024], "ends at byte 1,024, without the zeros that mark"),
        (lambda content: content[:4096], "ends at byte 4,096, without the zeros that mark"),
        (lambda content: content[:2500], "ends at byte 2,500, inside a.jpg, which ends at byte 2,536"),
        (lambda content: content[:4095], "ends at byte 4,095, inside d.jpg, which ends at byte 4,096"),
        (lambda content: flip(content, 1030), "no header of a member at byte 1,024: it is damaged"),
        (lambda content: flip(content, 2560 + 124), "no header of a member at byte 2,560: it is damaged"),
        (lambda content: content + content, "holds more behind its end mark"),
        (lambda content: b"", "is an empty file: expected a tar file"),
        (lambda content: b"some text", "is text ('some text'): expected a tar file"),
        (gzip.compress, "is a gzip archive: expected a tar file without compression"),
    ],
)
def test_a_cut_damaged_or_compressed_file_is_refused(tmp_path, change, message):
    assert message in refusal(damaged(tmp_path / "x.tar", change))


def test_one_block_of_zeros_is_an_end(tmp_path):
    assert read_all(damaged(tmp_path / "x.tar", lambda content: content[: 4096 + 512])) == ENTRIES


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("info", "message"),
    [
        (
            member("b.jpg", kind=tarfile.SYMTYPE, linkname="a.jpg"),
            "b.jpg is a symbolic link: expected files",
        ),
        (member("b.jpg", kind=tarfile.LNKTYPE, linkname="a.jpg"), "b.jpg is a hard link"),
        (member("b.jpg", kind=tarfile.FIFOTYPE), "b.jpg is a device, a pipe or of an unknown kind"),
        (member("b.jpg", kind=tarfile.GNUTYPE_SPARSE), "b.jpg is a sparse file"),
        (member("/etc/b.jpg"), "a member is called /etc/b.jpg: expected a name without `..`"),
        (member("s/../../b.jpg"), "a member is called s/../../b.jpg: expected"),
        (member(""), "a member is called nothing: expected"),
        (member("./a.jpg"), "two members are called a.jpg: expected each name once"),
        (member(".//a.jpg"), "two members are called a.jpg"),
    ],
)
def test_a_member_that_is_no_file_of_its_own_is_refused(tmp_path, info, message, form):
    with tarfile.open(tmp_path / "x.tar", "w", format=form) as tar:
        tar.addfile(member("a.jpg"))
        tar.addfile(info)
    assert message in refusal(tmp_path / "x.tar")


@pytest.mark.parametrize("form", FORMATS[1:])
def test_a_link_of_long_names_is_refused_by_its_own(tmp_path, form):
    with tarfile.open(tmp_path / "x.tar", "w", format=form) as tar:
        tar.addfile(member("n" * 150, kind=tarfile.SYMTYPE, linkname="x" * 150))
    assert f"{'n' * 150} is a symbolic link" in refusal(tmp_path / "x.tar")


def test_folders_and_headers_for_all_members_are_passed_over(tmp_path):
    """As `git archive` writes them; a folder of old tar files is a file whose name ends in a slash."""
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x"}) as tar:
        tar.addfile(member("./", kind=tarfile.DIRTYPE))
        tar.addfile(member("./sub/", kind=tarfile.AREGTYPE))
        tar.addfile(member("./sub/a.jpg", 1), io.BytesIO(b"x"))
    assert read_all(tmp_path / "x.tar") == {"sub/a.jpg": b"x"}


def pax(records: bytes) -> bytes:
    header = member("PaxHeaders/a.jpg", len(records), tarfile.XHDTYPE).tobuf(tarfile.USTAR_FORMAT)
    return header + records + bytes(-len(records) % 512) + member("a.jpg").tobuf() + bytes(1024)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (b"x path=b.jpg\n", "no header of a member at byte 512"),
        (b"0 path=b.jpg\n", "no header of a member at byte 512"),
        (b"99 path=b.jpg\n", "no header of a member at byte 512"),
        (b"14 path b.jpg\n", "no header of a member at byte 512"),
        (b"22 GNU.sparse.major=1\n", "a member is a sparse file"),
        (b" " * (1 << 20) + b" ", "a name or pax header of 1,048,577 bytes at byte 512"),
    ],
)
def test_a_pax_header_that_cannot_be_read_is_refused(tmp_path, records, message):
    (tmp_path / "x.tar").write_bytes(pax(records))
    assert message in refusal(tmp_path / "x.tar")


def test_a_file_that_was_cut_while_it_was_open_is_an_error(tmp_path):
    path = write_tar(tmp_path / "x.tar", ENTRIES)
    with OpenTar(path) as tar:
        os.truncate(path, 3600)
        with pytest.raises(OSError, match="cut while it was read"):
            tar.open("d.jpg")


@settings(max_examples=20)
@given(st.binary(min_size=512, max_size=512))
def test_the_checksum_is_the_sum_of_all_bytes(block):
    assert zlib.adler32(block) & 0xFFFF == (1 + sum(block)) % tar_headers._ADLER
