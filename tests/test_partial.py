"""Partial feature files: only intact blocks of rows are reused."""

from __future__ import annotations

import numpy as np
import pytest

from ptlreid.cache import partial

FINGERPRINT = {"weights": "abc", "dtype": "float32"}
ROWS = np.arange(30, dtype=np.float32).reshape(10, 3)


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file of which four rows, in two blocks, were stored."""
    monkeypatch.setattr(partial, "BLOCK_ROWS", 2)
    keep(tmp_path / "f.h5", ROWS[:5])
    return tmp_path / "f.h5"


def keep(file, rows: np.ndarray, fingerprint: dict[str, str] = FINGERPRINT) -> np.ndarray:
    """Adds rows one by one, is interrupted, and returns the rows that were stored before."""
    found = None
    with pytest.raises(KeyboardInterrupt), partial.open_partial(file, fingerprint) as kept:
        found = kept.rows
        for row in rows:
            kept.append(row[None])
        raise KeyboardInterrupt
    return found


def test_complete_blocks_are_found_and_extended(file):
    np.testing.assert_array_equal(keep(file, ROWS[4:7]), ROWS[:4])
    np.testing.assert_array_equal(keep(file, ROWS[:0]), ROWS[:6])
    assert partial.count_rows(file, FINGERPRINT) == 6


def test_nothing_is_left_when_the_work_is_done(file):
    with partial.open_partial(file, FINGERPRINT):
        pass
    assert list(file.parent.iterdir()) == []
    assert partial.count_rows(file, FINGERPRINT) == 0


@pytest.mark.parametrize("cut", [1, 16, 17, 40, 47, 48])
def test_a_truncated_block_does_not_count(file, cut):
    """The last block has 8 bytes of shape, 24 of rows and 16 of digest."""
    path = partial.partial_path(file)
    path.write_bytes(path.read_bytes()[:-cut])
    assert partial.count_rows(file, FINGERPRINT) == 2
    np.testing.assert_array_equal(keep(file, ROWS[2:4]), ROWS[:2])
    np.testing.assert_array_equal(keep(file, ROWS[:0]), ROWS[:4])


@pytest.mark.parametrize(("byte", "left"), [(-1, 2), (-20, 2), (-44, 2), (-50, 0), (-90, 0)])
def test_neither_a_damaged_block_nor_any_after_it_counts(file, byte, left):
    path = partial.partial_path(file)
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(bytes(content))
    assert len(keep(file, ROWS[:0])) == left


def test_a_damaged_shape_does_not_read_forever(file):
    path = partial.partial_path(file)
    path.write_bytes(path.read_bytes()[:-48] + b"\xff" * 48)
    assert partial.count_rows(file, FINGERPRINT) == 2


@pytest.mark.parametrize("content", [b"", b"{}\n", b"not ours at all", b"\x00" * 500])
def test_a_file_of_another_kind_holds_no_rows(file, content):
    partial.partial_path(file).write_bytes(content)
    assert partial.count_rows(file, FINGERPRINT) == 0
    assert len(keep(file, ROWS[:2])) == 0
    np.testing.assert_array_equal(keep(file, ROWS[:0]), ROWS[:2])


def test_rows_of_another_fingerprint_are_dropped(file):
    assert len(keep(file, ROWS[:0], FINGERPRINT | {"weights": "abd"})) == 0


def test_a_second_process_stores_nothing_and_does_no_harm(file):
    with partial.open_partial(file, FINGERPRINT) as first:
        with partial.open_partial(file, FINGERPRINT) as second:
            assert len(second.rows) == 0
            second.append(ROWS)
        first.append(ROWS[4:6])
        assert partial.count_rows(file, FINGERPRINT) == 6
