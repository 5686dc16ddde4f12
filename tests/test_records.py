"""Records and splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptlreid.errors import DataError
from ptlreid.records import Records, Splits


def records(*pids: int) -> Records:
    return Records.make([Path(f"{row}.jpg") for row in range(len(pids))], list(pids), [1] * len(pids), "some")


def test_labels_count_from_zero_in_order_of_pid():
    assert records(7, 3, 7, 1500).labels().tolist() == [1, 0, 1, 2]


def test_junk_and_distractors_are_no_identities():
    assert records(-1, -2, -2, 0, 5, 5, 9).num_identities == 3
    assert records().num_identities == 0


def test_select_takes_rows_in_order_and_masks():
    some = records(4, 5, 6)
    assert [path.name for path in some.select(np.array([2, 0])).paths] == ["2.jpg", "0.jpg"]
    assert some.select(some.pids > 4).pids.tolist() == [5, 6]


def test_arrays_of_different_length_are_refused():
    some = records(1, 2)
    with pytest.raises(ValueError, match="differ in length"):
        Records(some.paths, some.pids[:1], some.camids, some.sources)


def test_a_dataset_without_a_test_set_says_so():
    splits = Splits("union", records(1), records(), records(), "market")
    with pytest.raises(DataError, match="union: 0 query and 0 gallery images: expected a test set"):
        splits.require_test()
