"""Data sets by name, and the layout of Market-1501."""

from __future__ import annotations

import shutil

import pytest
from conftest import write_image
from hypothesis import given
from hypothesis import strategies as st

from ptlreid import datasets
from ptlreid.config import SyntheticConfig
from ptlreid.datasets import market, synthetic
from ptlreid.errors import DataError, OptionError


def test_a_folder_in_the_layout_is_read_whole_and_sorted(market_folder):
    splits = datasets.load("market", market_folder.parent)
    assert (len(splits.train), len(splits.query), len(splits.gallery)) == (16, 6, 8)
    assert splits.train.pids.tolist() == [pid for pid in (1, 2, 3, 4) for _ in range(4)]
    assert splits.train.camids[:4].tolist() == [1, 1, 2, 2]
    assert sorted(splits.gallery.pids.tolist()) == [-1, 0, 5, 5, 6, 6, 7, 7]
    assert [path.name for path in splits.query.paths] == sorted(path.name for path in splits.query.paths)
    assert splits.protocol == "market"


def test_aliases_and_paths_lead_to_the_same_images(market_folder):
    by_name = datasets.load("market1501", market_folder.parent)
    by_path = datasets.load(str(market_folder), market_folder)
    assert by_path.name == "market"
    assert by_name.train.paths.tolist() == by_path.train.paths.tolist()


@given(pid=st.integers(-1, 99999), camid=st.integers(1, 1500), frame=st.integers(0, 999999))
def test_names_tell_person_and_camera_of_any_number_of_digits(pid, camid, frame):
    name = f"{pid:04d}" if pid >= 0 else "-1"
    assert market.identity(f"{name}_c{camid}s2_{frame:06d}_03.jpg") == (pid, camid)


@pytest.mark.parametrize("name", ["photo.jpg", "0002.jpg", "0002_cs1.jpg", "-2_c1s1_000001_00.jpg", "x0002_c1s1.jpg"])
def test_a_name_that_does_not_tell_is_refused(name):
    with pytest.raises(DataError, match="does not tell person and camera"):
        market.identity(name)


def test_a_folder_one_level_off_is_pointed_to(market_folder):
    with pytest.raises(DataError, match=f"one level deeper: use {market_folder}"):
        market.read(market_folder.parent)
    with pytest.raises(DataError, match=f"one level higher: use {market_folder}"):
        market.read(market_folder / "query")


def test_a_missing_and_an_empty_part_are_named(market_folder, tmp_path):
    shutil.copytree(market_folder, tmp_path / "market")
    shutil.rmtree(tmp_path / "market" / "query")
    with pytest.raises(DataError, match="no folder query"):
        datasets.load("market", tmp_path)
    (tmp_path / "market" / "query").mkdir()
    with pytest.raises(DataError, match="holds no image"):
        datasets.load("market", tmp_path)


def test_junk_in_the_training_folder_is_left_out(market_folder, tmp_path):
    shutil.copytree(market_folder, tmp_path / "market")
    write_image(tmp_path / "market" / "bounding_box_train" / "-1_c1s1_000001_00.jpg", 0)
    assert (datasets.load("market", tmp_path).train.pids > 0).all()


def test_a_data_set_that_is_not_there_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(DataError, match=r"Market-1501 was not found: looked for .*market, .*Market-1501-v15\.09\.15"):
        datasets.load("market", tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [("marke", "Did you mean 'market'"), ("synthetic:d", "No variant of synthetic is called 'd'")],
)
def test_unknown_names_and_variants_get_a_hint(name, message, tmp_path):
    with pytest.raises(OptionError, match=message):
        datasets.load(name, tmp_path)


def test_synthetic_sites_are_names_and_plain_synthetic_is_the_first(tmp_path):
    assert datasets.find("synthetic").variant == datasets.find("synthetic-a").variant == "a"
    assert datasets.find("synthetic:b").folders(tmp_path) == datasets.find("synthetic-b").folders(tmp_path)


def test_a_drawn_site_is_reused_and_never_overwritten(tmp_path):
    folder = tmp_path / "synthetic-c"
    config = SyntheticConfig.resolve(None, identities=4, cameras=2, images_per_camera=2, height=64, width=32)
    assert synthetic.prepare(folder, "c", config) is True
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert synthetic.prepare(folder, "c", config) is False
    with pytest.raises(OptionError, match=r"other settings \(seed: 0 -> 1\)"):
        synthetic.prepare(folder, "c", config.model_copy(update={"seed": 1}))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    splits = datasets.load("synthetic-c", tmp_path)
    assert splits.name == "synthetic-c"
    assert (splits.train.num_identities, splits.query.num_identities) == (2, 2)


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path):
    folder = tmp_path / "synthetic-a"
    folder.mkdir()
    with pytest.raises(OptionError, match="was not drawn by ptlreid"):
        synthetic.prepare(folder, "a", SyntheticConfig.resolve(None))
