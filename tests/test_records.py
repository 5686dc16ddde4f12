"""Records and splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptlreid.errors import DataError
from ptlreid.records import Records, Splits


def records(*pids: int, camids: list[int] | None = None) -> Records:
    paths = [Path(f"{row}.jpg") for row in range(len(pids))]
    return Records.make(paths, list(pids), camids or [1] * len(pids), "some")


def test_labels_count_from_zero_in_order_of_pid():
    assert records(7, 3, 7, 1500).labels().tolist() == [1, 0, 1, 2]


def test_junk_and_distractors_are_no_identities():
    assert records(-1, -2, -2, 0, 5, 5, 9).num_identities == 3
    assert records().num_identities == 0


def test_select_takes_rows_in_order_and_masks():
    some = records(4, 5, 6)
    assert [path.name for path in some.select(np.array([2, 0])).paths] == ["2.jpg", "0.jpg"]
    assert some.select(some.pids > 4).pids.tolist() == [5, 6]


def test_clothes_follow_their_rows_and_are_joined_where_both_have_them():
    paths = [Path("a.jpg"), Path("b.jpg"), Path("c.jpg")]
    some = Records.make(paths, [4, 4, 6], [1, 1, 1], "some", [7, 8, 9])
    assert some.select(np.array([2, 0])).clothes.tolist() == [9, 7]
    assert some.join(some.select(some.pids > 4)).clothes.tolist() == [7, 8, 9, 9]
    assert some.join(records(1)).clothes is records(1).join(some).clothes is None


def test_arrays_of_different_length_are_refused():
    some = records(1, 2)
    with pytest.raises(ValueError, match="differ in length"):
        Records(some.paths, some.pids, some.camids, some.sources, some.pids[:1])
    with pytest.raises(ValueError, match="differ in length"):
        Records(some.paths, some.pids[:1], some.camids, some.sources)


def test_a_dataset_without_a_test_set_says_so():
    splits = Splits("union", records(1), records(), records(), "market")
    with pytest.raises(DataError, match="union: 0 query and 0 gallery images: expected a test set"):
        splits.require_test()


@pytest.mark.parametrize(
    ("train", "query", "gallery", "sign"),
    [
        (records(4, 4), records(5, 6), records(5, 6), "only one identity among the training images"),
        (records(4, 5), records(6), records(6, 7), "only one identity among the query images"),
        (records(4, 5), records(6, 7), records(6, -1, -2), "only one identity among the gallery images"),
        (
            records(0, 1, 1, camids=[1, 2, 3]),
            records(),
            records(),
            r"there are more cameras \(3\) than identities \(2\)",
        ),
        # Over all parts: 4 identities, 5 cameras.
        (
            records(1, 2, camids=[1, 2]),
            records(3, 4),
            records(3, 4, 4, camids=[3, 4, 5]),
            r"there are .* \(5\) .* \(4\)",
        ),
    ],
)
def test_what_was_misread_is_not_trained_on(train, query, gallery, sign):
    splits = Splits("mine", train, query, gallery, "market")
    with pytest.raises(DataError, match=f"^mine: {sign}: expected at least two identities"):
        splits.require_train()


def test_two_identities_by_as_many_cameras_can_be_trained_on():
    two, none = records(3, 8, camids=[1, 2]), records()
    for splits in (Splits("a", two, none, none, "market"), Splits("b", two, two, records(3, 8, -1), "market")):
        assert splits.find_misreadings() == []
        assert splits.require_train() is splits
