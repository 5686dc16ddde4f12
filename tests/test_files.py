"""Atomic writes: a file is complete, or absent."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ptlreid import files, json_files
from ptlreid.errors import PtlreidError


def test_a_replaced_file_has_the_new_content_and_no_temporary_file_is_left(tmp_path):
    path = tmp_path / "new" / "file.txt"
    for text in ("one", "two"):
        with files.atomic_write(path) as temporary:
            temporary.write_text(text)
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_whoever_is_reading_the_old_file_reads_it_to_the_end(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with path.open() as reader:
        with files.atomic_write(path) as temporary:
            temporary.write_text("new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), files.atomic_write(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "expected room for 1,234 bytes, but "),
        (errno.EDQUOT, "expected room for 1,234 bytes within your quota"),
        (errno.EFBIG, "expected that a file may be large enough for 1,234 bytes"),
        (errno.EROFS, "expected permission to write in "),
        (errno.EACCES, "expected permission to write in "),
        (errno.EIO, "expected a folder to write in"),
    ],
)
@pytest.mark.parametrize("write", [files.atomic_write, files.atomic_output, files.unsynced_write])
def test_a_file_that_cannot_be_written_is_one_clear_message(tmp_path, write, number, words):
    path = tmp_path / "file.txt"
    reason = os.strerror(number)
    with pytest.raises(PtlreidError) as caught, write(path, 1234):
        raise OSError(number, reason)
    assert str(caught.value).startswith(f"{path}: cannot be written ({reason}): {words}")
    assert str(caught.value).endswith(", then run the command again.")
    assert list(tmp_path.iterdir()) == []


def test_a_library_sees_no_write_fail_and_the_caller_sees_the_first_that_did(tmp_path, monkeypatch):
    path = tmp_path / "file.bin"
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: None, raising=False)
    with (
        pytest.raises(PtlreidError, match="File too large"),
        file_size_limit(1000),
        files.atomic_output(path, 10_000) as output,
    ):
        assert (output.write(b"1" * 900), output.write(b"2" * 900), output.write(b"3" * 10)) == (900, 900, 10)
        assert (output.tell(), output.seek(0, os.SEEK_END)) == (1810, 1810)
        raise RuntimeError("the library's own words")
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.tuples(st.sampled_from("wst"), st.integers(0, 50), st.binary(max_size=20)), max_size=12))
@example([("w", 0, b"1"), ("t", 0, b""), ("w", 0, b""), ("s", 0, b"")])  # nothing is written beyond the end
def test_an_output_is_a_file_like_any_other(tmp_path_factory, steps):
    """The same writes, moves and cuts give the same bytes as in memory, whatever was reserved."""
    path, memory = tmp_path_factory.getbasetemp() / "output", io.BytesIO()
    with files.atomic_output(path, 1000) as output:
        for kind, number, data in steps:
            if kind == "w":
                assert output.write(data) == memory.write(data)
            elif kind == "s":
                assert output.seek(-min(number, len(memory.getvalue())), os.SEEK_END) == memory.seek(
                    -min(number, len(memory.getvalue())), os.SEEK_END
                )
            else:
                output.truncate(min(number, len(memory.getvalue())))
                memory.truncate(min(number, len(memory.getvalue())))
        output.truncate(len(memory.getvalue()))
    assert path.read_bytes() == memory.getvalue()


WRITER = """
import sys, time
from pathlib import Path
from ptlreid import files, json_files
with getattr(files, sys.argv[1])(Path(sys.argv[2])) as temporary:
    (temporary / "inside" if temporary.is_dir() else temporary).write_text("half")
    print("here", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("how", ["atomic_write", "atomic_folder"])
def test_what_a_killed_writer_leaves_is_removed_by_the_next_and_what_is_in_use_is_not(tmp_path, how):
    command = [sys.executable, "-c", WRITER, how, str(tmp_path / "slow")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        (left,) = tmp_path.iterdir()
        json_files.write_json(tmp_path / "other.json", {"number": 1})
        assert sorted(path.name for path in tmp_path.iterdir()) == [left.name, "other.json"]
        process.kill()
    assert left.exists()
    json_files.write_json(tmp_path / "other.json", {"number": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["other.json"]


def test_files_of_others_are_not_taken_for_abandoned(tmp_path):
    names = [".hidden", "film.part", ".film.part", ".film.12345678.part.txt", "a.12345678.part"]
    for name in names:
        (tmp_path / name).write_text("of another program")
    (tmp_path / ".link.12345678.part").symlink_to(tmp_path / ".hidden")
    json_files.write_json(tmp_path / "new.json", {"number": 1})
    expected = sorted([*names, ".link.12345678.part", "new.json"])
    assert sorted(path.name for path in tmp_path.iterdir()) == expected


def test_many_writers_at_once_do_not_remove_each_others_files(tmp_path):
    def write(number: int) -> None:
        for _ in range(30):
            json_files.write_json(tmp_path / f"{number}.json", {"number": number})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{number}.json" for number in range(8)]


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_folder_appears_complete_or_not_at_all(tmp_path):
    with pytest.raises(ValueError, match="stop"), files.atomic_folder(tmp_path / "half") as temporary:
        (temporary / "a").write_text("a")
        raise ValueError("stop")
    with files.atomic_folder(tmp_path / "whole") as temporary:
        (temporary / "a").write_text("a")
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "one").write_bytes(b"1")
    assert files.file_digest(tmp_path / "one") == hashlib.blake2b(b"1", digest_size=16).hexdigest()


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/null")])
def test_a_pipe_or_device_is_not_replaced(tmp_path, make):
    make(tmp_path / "out.csv")
    before = (tmp_path / "out.csv").stat().st_mode
    with (
        pytest.raises(PtlreidError, match="is a pipe or device, which a file would replace"),
        files.atomic_write(tmp_path / "out.csv"),
    ):
        pass
    assert (tmp_path / "out.csv").stat().st_mode == before
