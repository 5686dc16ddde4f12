"""Datasets by name, unions of them, and the file names of every reader."""

from __future__ import annotations

import shutil
from pathlib import Path

import miniatures
import numpy as np
import pytest
from conftest import write_image
from hypothesis import given
from hypothesis import strategies as st

from ptlreid import datasets
from ptlreid.datasets import duke, market, msmt17, synthetic
from ptlreid.datasets._union import combine
from ptlreid.errors import DataError, OptionError
from ptlreid.records import Records, Splits
from ptlreid.settings import SyntheticSettings


def test_a_folder_in_the_layout_is_read_completely_and_sorted(market_folder):
    splits = datasets.load("market", market_folder.parent)
    assert (len(splits.train), len(splits.query), len(splits.gallery)) == (16, 6, 8)
    assert splits.train.pids.tolist() == [pid for pid in (1, 2, 3, 4) for _ in range(4)]
    assert splits.train.camids[:4].tolist() == [1, 1, 2, 2]
    assert sorted(splits.gallery.pids.tolist()) == [-2, -1, 5, 5, 6, 6, 7, 7]
    assert [path.name for path in splits.query.paths] == sorted(path.name for path in splits.query.paths)
    assert splits.protocol == "market"


def test_aliases_and_paths_lead_to_the_same_images(market_folder):
    by_name = datasets.load("market1501", market_folder.parent)
    by_path = datasets.load(str(market_folder), market_folder)
    assert by_path.name == "market"
    assert by_name.train.paths.tolist() == by_path.train.paths.tolist()


@given(pid=st.integers(-1, 99999), camid=st.integers(1, 1500), frame=st.integers(0, 999999))
def test_names_give_pid_and_camera_of_any_number_of_digits(pid, camid, frame):
    name = f"{pid:04d}" if pid >= 0 else "-1"
    assert market.parse_name(f"{name}_c{camid}s2_{frame:06d}_03.jpg") == (pid, camid)


@given(pid=st.integers(0, 99999), camid=st.integers(1, 1500), frame=st.integers(0, 9999999))
def test_names_of_duke_give_pid_and_camera(pid, camid, frame):
    assert market.parse_name(f"{pid:04d}_c{camid}_f{frame:07d}.jpg") == (pid, camid)


@given(
    pid=st.integers(0, 4000),
    number=st.integers(0, 999),
    camid=st.integers(1, 1500),
    day=st.sampled_from(["0303morning", "0113afternoon", "0302noon"]),
    end=st.sampled_from(["", "_ex"]),
)
def test_lines_of_msmt17_give_file_pid_and_camera(pid, number, camid, day, end):
    file = f"{pid:04d}/{pid:04d}_{number:03d}_{camid:02d}_{day}_0008_0{end}.jpg"
    match = msmt17._LINE.fullmatch(f"{file} {pid}")
    assert (match["file"], int(match["camid"]), int(match["pid"])) == (file, camid, pid)


@pytest.mark.parametrize("line", ["0000/x.jpg 0", "0000/0000_000_01_a.jpg", "/0/0_0_1_a.jpg 0", "../../0_0_1_a.jpg 0"])
def test_another_line_of_msmt17_is_refused(tmp_path, line):
    miniatures.write_msmt17(tmp_path / "msmt17", "v1")
    (tmp_path / "msmt17" / "list_query.txt").write_text(f"{line}\n")
    with pytest.raises(DataError, match=r"list_query\.txt: .* does not give file, pid and camera.* line 1"):
        datasets.load("msmt17", tmp_path)


def test_msmt17_trains_with_or_without_val_and_train_and_test_share_no_identity(tmp_path):
    miniatures.write_msmt17(tmp_path / "msmt17", "v1")
    without, with_val = (datasets.load(name, tmp_path) for name in ("msmt17", "msmt17:v1-val"))
    assert (len(without.train), len(with_val.train)) == (6, 9)
    assert set(without.train.camids.tolist()) == {1, 4}
    assert set(with_val.train.camids.tolist()) == {1, 4, 12}
    # Both parts of the release number pids from 0.
    assert set(with_val.train.pids.tolist()) == {1, 2, 3}
    assert set(with_val.gallery.pids.tolist()) == {1042, 1043}


def test_only_market_gives_the_name_0000_a_meaning(tmp_path):
    miniatures.write_market(tmp_path / "market")
    for part in ("query", "bounding_box_train"):
        shutil.copy(next((tmp_path / "market" / part).glob("*.jpg")), tmp_path / "market" / part / "0000_c1s1_9_00.jpg")
    shutil.copytree(tmp_path / "market", tmp_path / "duke")
    market_splits, duke_splits = (datasets.load(name, tmp_path) for name in ("market", "duke"))
    assert [-2 in part.pids for part in market_splits.parts] == [False, True, True]  # in training it is an identity
    for part in ("train", "query", "gallery"):
        expected = getattr(market_splits, part).pids
        assert getattr(duke_splits, part).pids.tolist() == np.where(expected == -2, 0, expected).tolist()


def test_duke_is_found_in_its_folders_and_says_that_it_was_withdrawn(tmp_path):
    miniatures.write_duke(tmp_path / "DukeMTMC-reID")
    splits = datasets.load("dukemtmc", tmp_path)
    assert splits.name == "duke"
    assert set(splits.query.camids.tolist()) == {2, 5}
    assert "withdrawn by its authors in 2019" in duke.INFO.note


def test_a_union_keeps_identities_and_cameras_apart_and_has_no_test_set(tmp_path):
    miniatures.write_market(tmp_path / "market")
    miniatures.write_duke(tmp_path / "duke")
    union = datasets.load("market+duke", tmp_path)
    assert union.name == "market+duke"
    assert not union.has_test
    # Both hold identities 1 to 4, Market by cameras 1 and 2, Duke by 2 and 5: 8 identities, 4 cameras.
    assert sorted(set(union.train.labels().tolist())) == list(range(8))
    assert union.train.num_identities == 8
    assert union.train.count()["cameras"] == 4
    # By the number of each dataset, as statistics of cameras are found by it.
    assert set(union.train.cameras()) == {("market", 1), ("market", 2), ("duke", 2), ("duke", 5)}
    assert len(union.train) == 32
    keys = set(zip(union.train.sources, union.train.pids.tolist(), strict=True))
    assert len(keys) == 8
    assert {source for source, _ in keys} == {"market", "duke"}


def test_a_union_takes_variants_paths_and_any_number(tmp_path):
    miniatures.write_market(tmp_path / "market")
    miniatures.write_market(tmp_path / "site" / "market")
    miniatures.write_msmt17(tmp_path / "msmt17", "v2")
    union = datasets.load(f"market+msmt17:v2-val+{tmp_path / 'site' / 'market'}", tmp_path)
    assert (len(union.train), union.train.num_identities) == (16 + 9 + 16, 4 + 3 + 4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("market+market1501", "contains the same images twice"),
        ("market+dukee", "Did you mean 'duke'"),
        ("market+", "Unknown dataset ''"),
    ],
)
def test_a_union_that_makes_no_sense_is_refused(tmp_path, name, message):
    miniatures.write_market(tmp_path / "market")
    with pytest.raises(OptionError, match=message):
        datasets.load(name, tmp_path)


def test_a_union_can_be_trained_on(ptlreid, tmp_path):
    miniatures.write_market(tmp_path / "data" / "market")
    miniatures.write_duke(tmp_path / "data" / "duke")
    small = ("--backbone", "tiny", "--init", "none", "--height", 64, "--width", 32, "--epochs", 1)
    code, out, err = ptlreid("finetune", "--data", "market+duke", "--name", "both", *small)
    assert code == 0, err
    assert "no test set" in out
    assert ptlreid("evaluate", "--run", "both", "--data", "duke", "--json")[0] == 0
    code, _, err = ptlreid("evaluate", "--run", "both")
    assert code == 1
    assert "expected a test set to evaluate on" in err


IDENTITIES = st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=20)


@given(IDENTITIES)
def test_identities_are_equal_in_a_union_only_if_source_and_number_are(identities):
    parts = []
    for source in "ab":
        own = [one for one in identities if one[0] == source]
        train = Records.make([source] * len(own), [pid for _, pid, _ in own], [camid for _, _, camid in own], source)
        parts.append(Splits(source, train, train.select(np.array([], dtype=int)), train, "market"))
    union = combine("a+b", parts).train
    given = sorted(identities, key=lambda one: one[0])  # stable, as parts come one after another
    old, new = [one[:2] for one in given], union.pids.tolist()
    assert len({*zip(old, new, strict=True)}) == len(set(old)) == len(set(new))
    assert set(union.labels().tolist()) == set(range(len({one[:2] for one in identities})))


@pytest.mark.parametrize("name", ["photo.jpg", "0002.jpg", "0002_cs1.jpg", "-2_c1s1_000001_00.jpg", "x0002_c1s1.jpg"])
def test_a_name_without_pid_or_camera_is_refused(name):
    with pytest.raises(DataError, match="gives no pid and camera"):
        market.parse_name(name)


def test_a_folder_one_level_off_is_pointed_to(market_folder):
    with pytest.raises(DataError, match=f"one level deeper: move what is in {market_folder}"):
        market.read(market_folder.parent)
    with pytest.raises(DataError, match=f"one level higher: use {market_folder}"):
        market.read(market_folder / "query")


def test_a_missing_and_an_empty_part_are_named(market_folder, tmp_path):
    shutil.copytree(market_folder, tmp_path / "market")
    shutil.rmtree(tmp_path / "market" / "query")
    with pytest.raises(DataError, match="market: no query in it"):
        datasets.load("market", tmp_path)
    (tmp_path / "market" / "query").mkdir()
    with pytest.raises(DataError, match="holds no image"):
        datasets.load("market", tmp_path)


def test_junk_in_the_training_folder_is_left_out(market_folder, tmp_path):
    shutil.copytree(market_folder, tmp_path / "market")
    write_image(tmp_path / "market" / "bounding_box_train" / "-1_c1s1_000001_00.jpg", 0)
    assert (datasets.load("market", tmp_path).train.pids > 0).all()


def test_a_dataset_that_is_missing_says_where_it_was_expected_and_how_to_get_it(tmp_path):
    expected = r"Market-1501 was not found: expected it at .*market, .*Market-1501-v15\.09\.15"
    with pytest.raises(DataError, match=rf"{expected}.*`ptlreid prepare market --source FILE`.* from https://zheng"):
        datasets.load("market", tmp_path)
    with pytest.raises(DataError, match=r"prepare it with `ptlreid prepare synthetic-b`\.$"):
        datasets.load("synthetic-b", tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("marke", "Did you mean 'market'"),
        ("msmt17:v3", "Did you mean 'v2'|Did you mean 'v1'"),
        ("cuhk03:labelled", "Did you mean 'labeled'"),
        ("cuhk03:labeled-classic-21", "Unknown variant of cuhk03"),
        ("synthetic:d", "Unknown variant of synthetic 'd'"),
    ],
)
def test_unknown_names_and_variants_get_a_hint(name, message, tmp_path):
    with pytest.raises(OptionError, match=message):
        datasets.load(name, tmp_path)


def test_the_module_that_readers_share_is_not_a_dataset():
    assert "reader" not in datasets.names()
    with pytest.raises(OptionError, match="Unknown dataset 'reader'"):
        datasets.find("reader")


def test_synthetic_sites_are_names_and_plain_synthetic_is_the_first(tmp_path):
    assert datasets.find("synthetic").variant == datasets.find("synthetic-a").variant == "a"
    assert datasets.find("synthetic:b").folders(tmp_path) == datasets.find("synthetic-b").folders(tmp_path)


def test_a_rendered_site_is_reused_and_never_overwritten(tmp_path):
    folder = tmp_path / "synthetic-c"
    config = SyntheticSettings.resolve(None, identities=4, cameras=2, images_per_camera=2, height=64, width=32)
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
    with pytest.raises(OptionError, match="was not rendered by ptlreid"):
        synthetic.prepare(folder, "a", SyntheticSettings.resolve(None))


def test_every_dataset_states_its_source_and_terms_of_use():
    for name in datasets.names():
        info = datasets.find(name).info
        assert all((info.title, info.citation, info.licence, info.source, info.protocol))
        assert set(info.counts) <= {*info.variants, *info.unlisted_variants}


def test_the_documentation_names_every_dataset_variant_and_published_count():
    text = (Path(__file__).parent.parent / "docs" / "data.md").read_text(encoding="utf-8")
    for name in datasets.names():
        info = datasets.find(name).info
        assert f"`{name}`" in text or f"prepare {name}" in text or name.startswith("synthetic-")
        for variant, counts in info.counts.items():
            if variant in info.variants and variant != "classic":
                numbers = [counts[key] for key in counts if key.endswith("images")]
                assert all(f"{number:,}" in text for number in numbers)
