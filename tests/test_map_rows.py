"""Every row is worked on once, and errors come through."""

from __future__ import annotations

import numpy as np
import pytest

from ptlreid.retrieval.distance import map_rows


@pytest.mark.parametrize("row_length", [1, 10**6])
@pytest.mark.parametrize("num_rows", [0, 1, 31, 64, 65, 1000])
def test_every_row_once(num_rows: int, row_length: int):
    times = np.zeros(num_rows, dtype=int)

    def touch(rows: range) -> None:
        for row in rows:
            times[row - 5] += 1

    map_rows(touch, range(5, 5 + num_rows), row_length)
    assert (times == 1).all()


@pytest.mark.parametrize("num_rows", [1, 1000])
def test_an_error_in_a_part_is_raised(num_rows: int):
    def fail(rows: range) -> None:
        raise ValueError(rows)

    with pytest.raises(ValueError, match="range"):
        map_rows(fail, range(num_rows), 10**6)
