"""Datasets beyond the paper's: occluded, single-shot, from video, of vehicles, and with changing clothes."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import miniatures
import numpy as np
import pytest
from conftest import write_image
from damage import damage_examples, damaged, within_seconds
from hypothesis import given
from hypothesis import strategies as st
from ranking import evaluate

from ptlreid import datasets
from ptlreid.datasets import ltcc, mars, occluded_duke, prcc, prid2011, vehicleid, veri, viper
from ptlreid.errors import DataError
from ptlreid.retrieval.protocols import PROTOCOLS
from ptlreid.retrieval.types import Features

WRITERS = {
    "occluded-duke": miniatures.write_duke,
    "ltcc": miniatures.write_ltcc,
    "mars": miniatures.write_mars,
    "veri": miniatures.write_veri,
    "viper": miniatures.write_viper,
    "prid2011": miniatures.write_prid2011,
    "prcc": miniatures.write_prcc,
    "vehicleid": miniatures.write_vehicleid,
}
MODULES = (ltcc, mars, occluded_duke, prcc, prid2011, vehicleid, veri, viper)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """No published counts, and four persons of PRID2011 in both cameras."""
    for module in MODULES:
        monkeypatch.setattr(module, "INFO", replace(module.INFO, counts={}))
    monkeypatch.setattr(prid2011, "SHARED", 4)


def load(name, root):
    WRITERS[name.partition(":")[0]](root / name.partition(":")[0])
    return datasets.load(name, root)


def score(splits):
    """The scores of random features of the test images."""
    rng = np.random.default_rng(0)
    sides = []
    for part in (splits.query, splits.gallery):
        matrix, paths = (
            rng.normal(size=(len(part), 8)).astype(np.float32),
            np.array(part.paths.astype(str), dtype=object),
        )
        sides.append(Features(matrix, part.pids, part.camids, paths))
    return evaluate(*sides, PROTOCOLS[splits.protocol])


# Where a file of the download is in no part, prepare says so.
@pytest.mark.parametrize(
    ("name", "protocol", "left_out"),
    [
        ("occluded-duke", "market", False),
        ("ltcc", "market", False),
        ("mars", "market", True),
        ("veri", "market", False),
        ("viper:3", "single-shot", False),
        ("prid2011", "single-shot", True),
        ("prcc:same", "single-shot", False),
        ("prcc", "single-shot", False),
        ("vehicleid:1600", "any-image", False),
    ],
)
def test_every_reader_goes_from_the_download_to_scores(ptlreid, tmp_path, name, protocol, left_out):
    WRITERS[name.partition(":")[0]](tmp_path / "download" / "inner")
    code, _, err = ptlreid("prepare", name, "--source", tmp_path / "download")
    assert code == 0, err
    code, out, _ = ptlreid("check", name, "--json")
    assert (code, [one["kind"] for one in json.loads(out)["findings"]]) == (0, ["left-out"] if left_out else []), out
    splits = datasets.load(name, Path("data"))
    assert splits.protocol == protocol
    assert score(splits).num_valid == len(splits.query) > 0


def test_names_of_veri_give_vehicle_and_camera(tmp_path):
    splits = load("veri", tmp_path)
    assert (len(splits.train), len(splits.query), len(splits.gallery)) == (16, 6, 6)
    assert set(splits.query.camids.tolist()) == {1, 2}
    assert set(splits.gallery.pids.tolist()) == {5, 6, 7}


@pytest.mark.parametrize("number", range(10))
def test_each_half_of_viper_is_searched_from_camera_a_in_b(tmp_path, number):
    splits = load(f"viper:{number}", tmp_path)
    train, query, gallery = (part.pids.tolist() for part in splits.parts)
    assert Counter(train) == dict.fromkeys(train, 2)  # an image by each camera
    assert query == gallery
    assert sorted({*train, *query}) == list(range(6))
    assert len(train) == 2 * len(query) == 6
    assert (set(splits.query.camids), set(splits.gallery.camids)) == ({1}, {2})


def test_the_draws_of_a_dataset_differ_and_are_the_same_each_time(tmp_path):
    for name, root in (("viper", tmp_path / "a"), ("prid2011", tmp_path / "b")):
        WRITERS[name](root / name)
        drawn = [tuple(datasets.load(f"{name}:{number}", root).query.pids.tolist()) for number in range(10)]
        assert len(set(drawn)) > 3
        assert drawn[0] == tuple(datasets.load(name, root).query.pids.tolist())


def test_prid_searches_half_of_the_shared_persons_among_all_others_of_camera_b(tmp_path):
    splits = load("prid2011:2", tmp_path)
    train, query = set(splits.train.pids.tolist()), set(splits.query.pids.tolist())
    assert train | query == {1, 2, 3, 4}
    assert (len(train), len(query), len(splits.train)) == (2, 2, 4)
    assert splits.gallery.pids.tolist() == sorted(set(range(1, 10)) - train)
    assert {path.parent.name for path in splits.query.paths} == {"cam_a"}
    assert {path.parent.name for path in splits.gallery.paths} == {"cam_b"}


@pytest.mark.parametrize(
    ("name", "folder"), [("viper", "cam_b/000_90.bmp"), ("prid2011", "single_shot/cam_b/person_0001.png")]
)
def test_a_person_that_one_camera_lacks_is_named(tmp_path, name, folder):
    WRITERS[name](tmp_path / name)
    (tmp_path / name / folder).unlink()
    with pytest.raises(DataError, match=r"(000_0\.bmp|person_0001\.png): has no counterpart in .*cam_b"):
        datasets.load(name, tmp_path)


@pytest.mark.parametrize(("setting", "camera"), [("same", "B"), ("changed", "C")])
def test_the_settings_of_prcc_differ_in_the_camera_of_the_queries(tmp_path, setting, camera):
    splits = load(f"prcc:{setting}", tmp_path)
    assert {path.parent.parent.name for path in splits.query.paths} == {camera}
    assert {path.parent.parent.name for path in splits.gallery.paths} == {"A"}
    assert set(splits.gallery.camids.tolist()) == {1}
    assert splits.query.camids.tolist() == [" ABC".index(camera)] * 6
    assert splits.query.pids.tolist() == splits.gallery.pids.tolist() == [4, 4, 5, 5, 6, 6]
    assert len(splits.train) == 18  # without the validation images
    assert splits.train.camids[:6].tolist() == [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(("name", "vehicles"), [("vehicleid", {4, 5, 6}), ("vehicleid:2400-7", {4, 5, 6, 7})])
def test_the_gallery_of_vehicleid_has_one_image_of_each_vehicle(tmp_path, name, vehicles):
    splits = load(name, tmp_path)
    assert sorted(splits.gallery.pids.tolist()) == sorted(vehicles)
    assert Counter(splits.query.pids.tolist()) == dict.fromkeys(vehicles, 2)
    assert not {*splits.query.paths} & {*splits.gallery.paths}
    assert set(splits.train.pids.tolist()) == {1, 2, 3}


def test_the_draws_of_vehicleid_take_every_image_equally_often(tmp_path):
    test = [(tmp_path / f"{image:07d}.jpg", 5) for image in range(4)]
    counts = Counter(vehicleid._draw(test, f"800-{number}")[1][0][0].stem for number in range(400))
    assert all(60 < counts[path.stem] < 140 for path, _ in test)  # 100 expected, standard deviation 8.7


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("viper", "cam_a/x_0.bmp", r"x_0\.bmp: the name does not give what it shows.* such as 000_45\.bmp"),
        ("prid2011", "single_shot/cam_a/1.png", "such as person_0001.png"),
        ("ltcc", "test/003_c1_000001.png", r"003_c1_000001\.png: .* such as 144_1_c11_011239\.png"),
        ("prcc", "rgb/train/001/D_1.jpg", "such as 001/A_cropped_rgb001.jpg"),
        ("prcc", "rgb/test/A/x/1.jpg", "such as 001/cropped_rgb001.jpg"),
    ],
)
def test_a_name_that_does_not_fit_is_named_with_an_example(tmp_path, name, file, message):
    WRITERS[name](tmp_path / name)
    write_image(tmp_path / name / file, 5000)
    with pytest.raises(DataError, match=message):
        datasets.load(name, tmp_path)


@pytest.mark.parametrize("line", ["../../x 1", "0000001", "0000001 -1", "1 2 3"])
def test_a_line_of_vehicleid_that_names_no_image_is_refused(tmp_path, line):
    miniatures.write_vehicleid(tmp_path / "vehicleid")
    (tmp_path / "vehicleid" / "train_test_split" / "train_list.txt").write_text(f"0000003 1\n{line}\n")
    with pytest.raises(DataError, match=r"train_list\.txt: .* does not name an image.* `0000001 12345` as line 2"):
        datasets.load("vehicleid", tmp_path)


@pytest.fixture(scope="module")
def vehicles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "vehicleid"
    miniatures.write_vehicleid(folder)
    return folder, (folder / "train_test_split" / "test_list_800.txt").read_bytes()


@damage_examples(0.3)
@given(data=st.data())
def test_a_damaged_list_of_vehicleid_is_read_or_one_message(vehicles, data):
    """The images stay in their folder, and the gallery has one of each vehicle."""
    folder, content = vehicles
    (folder / "train_test_split" / "test_list_800.txt").write_bytes(data.draw(damaged(content)))
    with within_seconds():
        try:
            splits = vehicleid.read(folder)
        except DataError as error:
            assert "does not name an image" in str(error)
            return
    assert {path.parent for part in splits.parts for path in part.paths} == {folder / "image"}
    assert sorted(splits.gallery.pids.tolist()) == sorted({*splits.gallery.pids.tolist(), *splits.query.pids.tolist()})


def test_a_part_that_is_missing_or_empty_is_named(tmp_path):
    miniatures.write_prcc(tmp_path / "prcc")
    for path in (tmp_path / "prcc" / "rgb" / "test" / "C").rglob("*.jpg"):
        path.unlink()
    with pytest.raises(DataError, match=r"rgb/test/C: holds no image"):
        datasets.load("prcc", tmp_path)
    (tmp_path / "prcc" / "rgb" / "val").rename(tmp_path / "prcc" / "val")
    with pytest.raises(DataError, match=r"prcc: no rgb/val in it"):
        datasets.load("prcc", tmp_path)


def test_single_shot_scores_are_those_of_the_draw(ptlreid, tmp_path):
    """With one image of each person in the gallery, CMC-1 is the share of queries whose nearest image is theirs."""
    splits = load("viper", tmp_path)
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
    for name, features, part in (("q", query, splits.query), ("g", gallery, splits.gallery)):
        np.savez(f"{name}.npz", features=features, pids=part.pids, camids=part.camids)
    nearest = ((query[:, None] - gallery) ** 2).sum(axis=2).argmin(axis=1)
    expected = (splits.gallery.pids[nearest] == splits.query.pids).mean()
    for protocol in ("single-shot", "any-image"):
        options = ("--query", "q.npz", "--gallery", "g.npz", "--protocol", protocol, "--json")
        code, out, err = ptlreid("evaluate", *options)
        assert code == 0, err
        assert json.loads(out)["cmc"]["1"] == pytest.approx(expected)
