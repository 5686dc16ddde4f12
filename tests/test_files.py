"""Atomic writes: a file is complete, or absent."""

from __future__ import annotations

import errno
import hashlib

import pytest

from ptlreid import files
from ptlreid.errors import DataError, PtlreidError


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


def test_a_full_disk_is_one_clear_message(tmp_path):
    path = tmp_path / "file.txt"
    with (
        pytest.raises(PtlreidError, match=r"file\.txt: cannot be written \(No space left on device\)"),
        files.atomic_write(path),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_complete_or_not_at_all(tmp_path):
    with pytest.raises(ValueError, match="stop"), files.atomic_folder(tmp_path / "half") as temporary:
        (temporary / "a").write_text("a")
        raise ValueError("stop")
    with files.atomic_folder(tmp_path / "whole") as temporary:
        (temporary / "a").write_text("a")
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_json_round_trip(tmp_path):
    files.write_json(tmp_path / "a.json", {"mAP": 0.5, "name": "é"})
    assert files.read_json(tmp_path / "a.json") == {"mAP": 0.5, "name": "é"}
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DataError, match="not readable as JSON"):
        files.read_json(tmp_path / "a.json")


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "one").write_bytes(b"1")
    assert files.file_digest(tmp_path / "one") == hashlib.blake2b(b"1", digest_size=16).hexdigest()
