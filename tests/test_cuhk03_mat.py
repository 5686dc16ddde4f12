"""Damaged `cuhk-03.mat` files: one message, and neither a crash nor a hang."""

from __future__ import annotations

import h5py
import miniatures
import numpy as np
import pytest
from damage import damage_examples, damaged, within_seconds
from hypothesis import given
from hypothesis import strategies as st

from ptlreid.datasets._cuhk03_mat import unpack_mat
from ptlreid.errors import DataError
from ptlreid.progress import Silent


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    file = tmp_path_factory.mktemp("mat") / "cuhk-03.mat"
    miniatures.write_cuhk03(file, miniatures.cuhk03_rows()[:6])
    return file.read_bytes()


@damage_examples(0.3)
@given(data=st.data())
def test_a_damaged_file_is_unpacked_or_one_message(tmp_path_factory, whole, data):
    """It has no checksums: other pixels are seen by nobody, but every list has its form."""
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "cuhk-03.mat").write_bytes(data.draw(damaged(whole)))
    with within_seconds():
        try:
            unpack_mat(folder / "cuhk-03.mat", folder / "target", "labeled", Silent())
        except DataError as error:
            assert "cannot be read as CUHK03: it is " in str(error)
            return
    assert len((folder / "target" / "testsets.csv").read_text().splitlines()) == 1 + 20 * 3


@pytest.mark.parametrize("numbers", [[[1.0], [np.nan]], [[1.0], [-3.0]], [[1.5], [2.0]], [[1.0]], 7.0])
def test_a_test_set_that_is_no_list_of_persons_is_named(tmp_path, whole, numbers):
    file = tmp_path / "cuhk-03.mat"
    file.write_bytes(whole)
    with h5py.File(file, "r+") as content:
        content["testsets"][0, 3] = content.create_dataset("other", data=numbers).ref
    with pytest.raises(DataError, match=r"it is a MATLAB 7\.3 file \(test set 4 is no list of camera pairs and"):
        unpack_mat(file, tmp_path / "target", "labeled", Silent())


def test_an_image_of_another_kind_is_named(tmp_path, whole):
    file = tmp_path / "cuhk-03.mat"
    file.write_bytes(whole)
    with h5py.File(file, "r+") as content:
        images = content[content["labeled"][0, 0]]
        images[0, 0] = content.create_dataset("other", data=np.zeros((2, 32, 64), np.uint8)).ref
    with pytest.raises(DataError, match="1_001_1_01 is no RGB image of 8 bits"):
        unpack_mat(file, tmp_path / "target", "labeled", Silent())


def test_a_page_in_place_of_the_file_is_named(tmp_path):
    (tmp_path / "cuhk-03.mat").write_bytes(b"<!DOCTYPE html><html>Log in")
    with pytest.raises(DataError, match="cannot be read as CUHK03: it is an HTML page"):
        unpack_mat(tmp_path / "cuhk-03.mat", tmp_path / "target", "labeled", Silent())
