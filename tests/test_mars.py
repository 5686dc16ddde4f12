"""MARS as single frames: which frame, who is searched where, and lists that are damaged or do not agree."""

from __future__ import annotations

from dataclasses import replace

import miniatures
import numpy as np
import pytest
from damage import damage_examples, damaged, within_seconds
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat

from ptlreid import datasets
from ptlreid.datasets import mars
from ptlreid.errors import DataError
from ptlreid.retrieval.protocols import PROTOCOLS, Judge

LISTS = mars._LISTS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "mars"
    miniatures.write_mars(folder)
    return folder


@pytest.fixture(scope="module")
def whole(folder) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in LISTS}


def copy_lists(lists, folder):
    """A folder with these lists and no image."""
    for name in ("bbox_train", "bbox_test", "info"):
        (folder / name).mkdir(parents=True)
    for name, content in lists.items():
        (folder / name).write_bytes(content)
    return folder


def save(folder, name, **variables):
    savemat(folder / "info" / name, variables, do_compression=True)


def test_a_tracklet_is_its_middle_frame_the_earlier_of_two(folder):
    splits = mars.read(folder)
    frames = [path.name[-7:-4] for path in splits.train.paths]
    assert frames == ["001", "002", "001", "002"]  # of 2, 3, 1 and 4 frames
    assert [path.name for path in splits.query.paths] == [
        "0002C1T0003F002.jpg",
        "0002C4T0005F003.jpg",
        "0004C2T0007F001.jpg",
    ]
    assert splits.gallery.pids.tolist() == [-1, -2, 2, 2, 2, 4, 4]
    assert splits.gallery.camids.tolist() == [1, 2, 1, 1, 4, 1, 2]
    assert all(path.is_file() for part in splits.parts for path in part.paths)


def test_a_query_finds_the_tracklets_of_its_person_by_other_cameras_only(folder):
    """By hand: rows 3 and 4 are of person 2 by camera 1, row 5 by camera 4; rows 6 and 7 of person 4."""
    splits = mars.read(folder)
    judge = Judge(PROTOCOLS[splits.protocol], splits.query, splits.gallery)
    verdicts = [judge.verdict(row) for row in range(len(splits.query))]
    assert [one.matches.tolist() for one in verdicts] == [[4], [2, 3], [5]]
    assert [one.absent.tolist() for one in verdicts] == [[2, 3], [4], [6]]  # the query itself among them


def test_other_frames_are_left_out_by_prepare_and_checked_where_they_are_there(ptlreid, folder, monkeypatch):
    monkeypatch.setattr(mars, "INFO", replace(mars.INFO, counts={}))
    code, _, err = ptlreid("prepare", "mars", "--source", folder)
    assert (code, "left out: 17 files, such as bbox_test/00-1/" in err) == (0, True), err  # 28 frames, 11 tracklets
    code, out, err = ptlreid("check", "--root", folder.parent, "mars")
    assert (code, "is not used" in out) == (0, False), out + err
    everything = mars.read(folder, "all")
    assert (len(everything.train), len(everything.gallery)) == (10, 18)
    assert (everything.train.pids[4:] == -1).all()


@pytest.mark.parametrize("name", LISTS)
@damage_examples(0.2)
@given(data=st.data())
def test_a_damaged_list_is_read_or_one_message(tmp_path_factory, whole, name, data):
    """The frames that are read have the person and the camera of their row, whatever was damaged."""
    lists = {**whole, name: data.draw(damaged(whole[name]))}
    folder = copy_lists(lists, tmp_path_factory.mktemp("damaged") / "mars")
    with within_seconds():
        try:
            splits = mars.read(folder)
        except DataError as error:
            assert "cannot be read as a list of MARS: it is " in str(error)
            return
    for part in splits.parts:
        for path, pid, camid in zip(part.paths, part.pids.tolist(), part.camids.tolist(), strict=True):
            assert path.parent.name == {-1: "00-1", -2: "0000"}.get(pid, f"{pid:04d}") == path.name[:4]
            assert path.name[4:6] == f"C{camid}"
    assert (splits.train.pids > 0).all()
    assert (splits.query.pids > 0).all()


TRACKS = np.array([[1, 2, 1, 1], [3, 5, 1, 2]])


@pytest.mark.parametrize(
    ("tracks", "message"),
    [
        (np.array([[1, 2, 1, 1], [3, 99, 1, 2]]), r"row 2 has frames 3 to 99, and the list of names 10 lines"),
        (np.array([[2, 1, 1, 1]]), "row 1 has frames 2 to 1"),
        (np.array([[0, 1, 1, 1]]), "row 1 has frames 0 to 1"),
        (np.array([[1, 2, 1, 1], [4, 5, 1, 1]]), "row 2 is of person 1 by camera 1, line 4 of the names is '0001C2T00"),
        (np.array([[1, 2, 3, 1]]), "row 1 is of person 3 by camera 1, line 1 of the names is '0001C1T0001F001.jpg'"),
        (np.array([[1, 2, 1]]), r"track_train_info has the shape \(1, 3\)"),
        (np.empty((0, 4)), r"track_train_info has the shape \(0, 4\)"),
        (np.array([[1, 2, 1.5, 1]]), "track_train_info has 1.5 in place of a whole number"),
        (np.array([[1, np.inf, 1, 1]]), "track_train_info has inf in place of a whole number"),
        (np.array([[1, np.nan, 1, 1]]), "track_train_info has nan in place of a whole number"),
        (np.array([["a", "b", "c", "d"]]), "track_train_info has the shape"),
        (np.zeros((1 + (1 << 20), 4), np.uint8), r"track_train_info has the shape \(1048577, 4\)"),
    ],
)
def test_tracklets_that_do_not_agree_with_the_names_are_refused(tmp_path, whole, tracks, message):
    save(copy_lists(whole, tmp_path / "mars"), "tracks_train_info.mat", track_train_info=tracks)
    with pytest.raises(DataError, match=rf"tracks_train_info\.mat: cannot be read as a list of MARS: .*{message}"):
        datasets.load("mars", tmp_path)


@pytest.mark.parametrize("row", [0, 8, 1, 2])  # out of range, junk, a distractor
def test_a_query_that_is_no_person_is_refused(tmp_path, whole, row):
    save(copy_lists(whole, tmp_path / "mars"), "query_IDX.mat", query_IDX=np.array([[3, row]]))
    with pytest.raises(DataError, match=rf"query_IDX\.mat: .* \(query {row} is not a tracklet of a person\)"):
        datasets.load("mars", tmp_path)


def test_a_file_of_another_kind_or_size_is_named(tmp_path, whole):
    folder = copy_lists({**whole, "info/query_IDX.mat": b"<!DOCTYPE html><html>Log in"}, tmp_path / "mars")
    with pytest.raises(DataError, match=r"query_IDX\.mat: cannot be read as a list of MARS: it is an HTML page"):
        datasets.load("mars", tmp_path)
    (folder / "info" / "tracks_test_info.mat").write_bytes(whole["info/tracks_test_info.mat"] + bytes(1 << 21))
    with pytest.raises(DataError, match=r"tracks_test_info\.mat: .* \(larger than 2,097,152 bytes\)"):
        datasets.load("mars", tmp_path)


def test_a_list_that_is_missing_is_named(tmp_path, whole):
    copy_lists({name: one for name, one in whole.items() if "query" not in name}, tmp_path / "mars")
    with pytest.raises(DataError, match=r"mars: no info/query_IDX\.mat in it"):
        datasets.load("mars", tmp_path)
