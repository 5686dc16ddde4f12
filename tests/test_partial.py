"""Partial feature files: only intact blocks of rows are reused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from damage import damage_examples, damaged, within_seconds
from hypothesis import given
from hypothesis import strategies as st

from ptlreid.cache import partial
from ptlreid.errors import PtlreidError

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


def test_a_link_in_place_of_the_rows_is_refused_and_its_target_left_alone(tmp_path):
    (tmp_path / "diary").write_text("dear diary")
    (tmp_path / "f.partial").symlink_to(tmp_path / "diary")
    assert partial.count_rows(tmp_path / "f.h5", FINGERPRINT) == 0
    with (
        pytest.raises(PtlreidError, match=r"f\.partial: is no regular file"),
        partial.open_partial(tmp_path / "f.h5", FINGERPRINT),
    ):
        pass
    assert (tmp_path / "diary").read_text() == "dear diary"


def test_abandoned_rows_are_removed_and_those_in_use_are_not(file):
    with pytest.raises(KeyboardInterrupt), partial.open_partial(file, FINGERPRINT):
        partial.remove_abandoned(file)
        assert partial.partial_path(file).exists()
        raise KeyboardInterrupt
    partial.remove_abandoned(file)
    assert not partial.partial_path(file).exists()
    partial.remove_abandoned(file)


@damage_examples()
@given(data=st.data())
def test_damaged_rows_are_ignored_from_the_damage_on(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("rows") / "f.h5"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partial, "BLOCK_ROWS", 2)
        keep(file, ROWS)
        path = partial.partial_path(file)
        path.write_bytes(data.draw(damaged(path.read_bytes())))
        with within_seconds():
            found = keep(file, ROWS[:0])
    assert len(found) % 2 == 0
    assert not len(found) or np.array_equal(found, ROWS[: len(found)])


def test_a_disk_that_is_full_while_rows_are_kept_is_one_message(tmp_path):
    path = partial.partial_path(tmp_path / "f.h5")
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    with full.open("r+b", buffering=0) as stream:
        rows = partial.Partial(stream, ROWS[:0], path)
        with pytest.raises(PtlreidError, match=r"f\.partial: cannot be written \(No space left on device\)"):
            rows.append(np.ones((partial.BLOCK_ROWS, 3), np.float32))
