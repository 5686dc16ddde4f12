"""Datasets whose training images have no identities: by name, and as they are refused where labels are needed."""

from __future__ import annotations

import csv
import json
import zlib
from dataclasses import replace
from pathlib import Path

import miniatures
import numpy as np
import pytest

from ptlreid import datasets
from ptlreid.errors import OptionError
from ptlreid.records import Records, Splits
from ptlreid.runs import test_set_digest as digest_test_set
from ptlreid.runs import training_manifest
from ptlreid.settings import ChainSettings, FinetuneSettings


@pytest.fixture
def root(tmp_path):
    miniatures.write_market(tmp_path / "data" / "market")
    return tmp_path / "data"


def some_splits(train: list[int], test: list[int], cameras: list[int]) -> Splits:
    def records(pids: list[int], camids: list[int]) -> Records:
        return Records.make([Path(f"{row}.jpg") for row in range(len(pids))], pids, camids, "some")

    tested = records(test, cameras[: len(test)])
    return Splits("some", records(train, cameras[: len(train)]), tested, tested, "market")


def test_identities_of_the_training_images_go_and_all_else_stays(root):
    labelled, unlabelled = datasets.load("market", root), datasets.load("market:unlabelled", root)
    assert (labelled.unlabelled, unlabelled.unlabelled) == (False, True)
    assert set(unlabelled.train.pids.tolist()) == {-1}
    assert unlabelled.train.pids.dtype == np.int64
    for key in ("paths", "camids", "sources"):
        assert getattr(unlabelled.train, key).tolist() == getattr(labelled.train, key).tolist()
    for part in ("query", "gallery"):
        assert getattr(unlabelled, part).pids.tolist() == getattr(labelled, part).pids.tolist()
    assert (unlabelled.name, unlabelled.protocol) == ("market", "market")
    # Scores, and so the cached features of the test set, are those of the labelled dataset.
    assert digest_test_set(unlabelled) == digest_test_set(labelled)


@pytest.mark.parametrize("train", [[], [1, 2], [-1, 3]])
def test_a_training_part_with_an_identity_or_without_an_image_is_not_unlabelled(train):
    assert not some_splits(train, [4, 5], [1, 2]).unlabelled


def test_a_variant_a_path_and_own_images_may_end_in_unlabelled(root, monkeypatch):
    miniatures.write_msmt17(root / "msmt17", "v2")
    monkeypatch.chdir(root)
    with_val = datasets.load("msmt17:v2-val:unlabelled", root)
    assert (with_val.unlabelled, len(with_val.train), with_val.name) == (True, 9, "msmt17:v2-val")
    assert datasets.load("./market:unlabelled", root).unlabelled
    assert not datasets.load("./market", root).unlabelled
    miniatures.write_market(root / "a+b")
    assert datasets.load("./a+b:unlabelled", root).unlabelled  # a folder, not a union
    write_own(root / "lobby", [1, 1, 2, 2])
    lobby = datasets.load("lobby:unlabelled", root)
    assert (lobby.unlabelled, lobby.name, set(lobby.train.sources)) == (True, "lobby", {"lobby"})


@pytest.mark.parametrize("name", ["market+duke:unlabelled", "market:unlabelled+duke", "duke+market:unlabelled"])
def test_a_union_with_an_unlabelled_dataset_is_unlabelled(root, name):
    miniatures.write_duke(root / "duke")
    labelled, union = datasets.load(name.replace(":unlabelled", ""), root), datasets.load(name, root)
    assert union.unlabelled and union.name == labelled.name
    assert union.train.camids.tolist() == labelled.train.camids.tolist()
    assert union.train.sources.tolist() == labelled.train.sources.tolist()


@pytest.mark.parametrize("name", ["market:unlabeled", "lobby:unlabeled", "cuhk03:unlabeled", "synthetic:unlabelld"])
def test_a_misspelt_suffix_gets_a_hint(root, name):
    write_own(root / "lobby", [1, 1, 2, 2])
    with pytest.raises(OptionError, match="Did you mean 'unlabelled'"):
        datasets.load(name, root)


@pytest.mark.parametrize("name", ["market", "lobby", "./market", "market+lobby"])
def test_the_suffix_is_taken_once(root, name):
    write_own(root / "lobby", [1, 1, 2, 2])
    with pytest.raises(OptionError, match=":unlabelled more than once: expected it once"):
        datasets.load(f"{name}:unlabelled:unlabelled", root)


def test_the_manifest_of_a_run_depends_on_cameras_and_not_on_identities(root):
    manifests = []
    for pids in ([1, 1, 2, 2], [2, 1, 2, 1], [7, 8, 8, 8]):
        write_own(root / "lobby", pids)
        manifests.append(training_manifest(datasets.load("lobby:unlabelled", root)))
        assert training_manifest(datasets.load("lobby", root)) != manifests[-1]
    assert manifests[0] == manifests[1] == manifests[2]
    assert manifests[0]["identities"] == 0
    splits = datasets.load("lobby:unlabelled", root)
    moved = replace(splits, train=replace(splits.train, camids=splits.train.camids[::-1].copy()))
    assert training_manifest(moved) != manifests[0]


def test_names_of_runs_and_chains_are_those_of_folders():
    assert FinetuneSettings.resolve(None, data="lobby:unlabelled").default_name.startswith("lobby-unlabelled-")
    chain = ChainSettings.resolve(None, chain=["market", "lobby:unlabelled"])
    assert chain.default_name.startswith("chain-market-lobby-unlabelled-")


def test_cameras_of_unlabelled_images_are_not_compared_with_identities():
    assert some_splits([-1] * 5, [1, 2], [1, 2, 3, 4, 5]).find_misreadings() == []
    assert some_splits([-1] * 5, [6, 6], [1, 2, 3, 4, 5]).find_misreadings() == [
        "only one identity among the query images",
        "only one identity among the gallery images",
        "there are more cameras (2) than identities (1)",
    ]


@pytest.mark.parametrize(
    "command",
    [
        ("finetune", "--data", "market:unlabelled"),
        ("finetune", "--data", "market:unlabelled", "--dry-run"),
    ],
)
def test_commands_that_train_with_labels_refuse_unlabelled_images(ptlreid, root, command):
    code, _, err = ptlreid(*command, "--backbone", "tiny", "--init", "none", "--height", 64, "--width", 32)
    assert code == 1
    assert "no identities" in err and "`ptlreid adapt --run RUN --data market`" in " ".join(err.split())


def test_distillation_with_labels_refuses_unlabelled_images(ptlreid, root):
    tiny = ("--backbone", "tiny", "--init", "none", "--height", 64, "--width", 32, "--epochs", 0, "--batch-size", 4)
    assert ptlreid("finetune", "--data", "market", "--name", "teacher", *tiny)[0] == 0
    code, _, err = ptlreid("distill", "--teacher", "teacher", "--data", "market:unlabelled", "--lambda", "0.8")
    assert code == 1
    assert "no identities" in err
    code, out, err = ptlreid("evaluate", "--run", "teacher", "--data", "market:unlabelled", "--json")
    assert code == 0, err
    assert json.loads(out)["mAP"] == json.loads(ptlreid("evaluate", "--run", "teacher", "--json")[1])["mAP"]


@pytest.mark.parametrize("command", [("check", "market:unlabelled"), ("prepare", "market:unlabelled", "--check")])
def test_check_counts_no_identities_and_finds_no_fault_in_that(ptlreid, root, command, monkeypatch):
    monkeypatch.setattr(datasets.DatasetRef, "counts", {})  # a miniature has other numbers than those published
    code, out, err = ptlreid(*command)
    assert code == 0, out + err
    assert "The training images have no identities" in out
    assert ptlreid("check", "market")[1].count("no identities") == 0


def test_published_counts_are_compared_without_training_identities():
    labelled, unlabelled = datasets.find("market").counts, datasets.find("market:unlabelled").counts
    assert {**labelled, "train_identities": 0} == unlabelled != labelled


def test_the_suffix_changes_no_pack(ptlreid, root):
    code, _, err = ptlreid("pack", "market", "--height", 64, "--width", 32)
    assert code == 0, err
    code, out, err = ptlreid("pack", "market:unlabelled", "--height", 64, "--width", 32)
    assert code == 0, err
    assert "Reused" in out


def write_own(folder: Path, pids: list[int]) -> None:
    """A dataset of own images: these training identities by cameras 1 and 2, and no test set."""
    rows = [(f"images/{row}.jpg", pid, row % 2 + 1, "train", "") for row, pid in enumerate(pids)]
    for row, (name, *_) in enumerate(rows):
        if not (folder / name).is_file():
            miniatures.write_image(folder / name, row)
    with (folder / "split.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "pid", "camid", "split", "origin"), *rows])
    (folder / "rules.json").write_text(json.dumps({"protocol": "market", "images": len(rows)}))


def prepare_own(ptlreid, source: str, *more: str) -> tuple[Splits, str]:
    code, _, err = ptlreid("prepare", "folder", "--source", source, "--name", "lobby", "--unlabelled", *more)
    assert code == 0, err
    return datasets.load("lobby", Path("data")), err


def write_images(folder: Path, *names: str) -> None:
    for name in names:
        miniatures.write_image(folder / name, zlib.crc32(name.encode()))


def test_crops_without_identities_become_a_training_part(ptlreid, tmp_path):
    write_images(tmp_path / "frames", *(f"{shot}_c{camera}.jpg" for shot in range(3) for camera in (1, 2)))
    splits, err = prepare_own(ptlreid, "frames")
    assert "read as files: 6 training images without identities and 0 test identities, 2 cameras" in err
    assert (splits.unlabelled, splits.has_test, len(splits.train), splits.protocol) == (True, False, 6, "market")
    assert sorted(splits.train.camids.tolist()) == [1, 1, 1, 2, 2, 2]
    assert "No identity was seen by two cameras" not in err
    code, out, _ = ptlreid("check", "lobby", "--json")
    assert (code, json.loads(out)["findings"]) == (0, [])
    code, out, _ = ptlreid("prepare", "folder", "--source", "frames", "--name", "lobby", "--unlabelled")
    assert (code, "Reused" in out, "no identities" in out) == (0, True, True)
    code, _, err = ptlreid("finetune", "--data", "lobby", "--backbone", "tiny", "--init", "none")
    assert (code, "no identities" in err) == (1, True)


def test_a_labelled_dataset_is_not_taken_for_an_unlabelled_one_of_the_same_images(ptlreid, tmp_path):
    names = [f"p{person}/{shot}_c{camera}.jpg" for person in range(4) for shot in range(2) for camera in (1, 2)]
    write_images(tmp_path / "crops", *names)
    prepare = ("prepare", "folder", "--source", "crops", "--name", "lobby")
    assert ptlreid(*prepare)[0] == 0
    code, _, err = ptlreid(*prepare, "--unlabelled")
    assert (code, "unlabelled" in err) == (1, True)
    # Version 0.1 knew no such setting.
    marker = tmp_path / "data" / "lobby" / "prepared.json"
    origin = {
        key: value for key, value in json.loads(marker.read_text()).items() if key not in ("unlabelled", "content")
    }
    marker.write_text(json.dumps(origin))
    code, out, err = ptlreid(*prepare)
    assert (code, "Reused" in out) == (0, True), err


def test_one_camera_for_all_is_noted(ptlreid, tmp_path):
    write_images(tmp_path / "frames", "1.jpg", "2.jpg", "3.jpg")
    splits, err = prepare_own(ptlreid, "frames")
    assert set(splits.train.camids.tolist()) == {1}
    assert "all training images are of one camera" in err


@pytest.mark.parametrize(("images", "noted"), [(39, True), (40, False)])
def test_few_images_of_a_camera_are_noted(ptlreid, tmp_path, images, noted):
    write_images(tmp_path / "frames", *(f"cam{number % 2}/{number}.jpg" for number in range(images)))
    _, err = prepare_own(ptlreid, "frames")
    assert (f"{images} training images by 2 cameras: on average, fewer than 20 of each" in err) == noted


def test_a_small_labelled_test_part_is_kept_next_to_unlabelled_images(ptlreid, tmp_path):
    test = [f"test/p{person}/cam{camera}/{shot}.jpg" for person in range(3) for camera in (1, 2, 3) for shot in "ab"]
    write_images(tmp_path / "crops", *(f"train/cam{camera}/{shot}.jpg" for camera in (1, 2) for shot in "xyz"), *test)
    splits, err = prepare_own(ptlreid, "crops")
    assert (splits.unlabelled, len(splits.train), splits.protocol) == (True, 6, "market")
    assert (splits.query.num_identities, splits.gallery.num_identities) == (3, 3)
    assert len(splits.query) + len(splits.gallery) == len(test)
    # Cameras of the same name have the same number.
    assert set(splits.train.camids.tolist()) == {1, 2}
    assert set(splits.query.camids.tolist()) == {1, 2, 3}
    assert "cameras of test images without a training image: cam3" in err
    assert ptlreid("check", "lobby")[0] == 0


@pytest.mark.parametrize(
    "table",
    [
        "path,camid\n1.jpg,a\n2.jpg,b\n3.jpg,b",
        "path,pid,camid\n1.jpg,,a\n2.jpg,nan,b\n3.jpg,anna,b",
        "path;camid;pid;split\n1.jpg;a;;train\n2.jpg;b;99999999999999999999;train\n3.jpg;b;-7;train",
    ],
)
def test_a_csv_needs_no_identities_of_training_images(ptlreid, tmp_path, table):
    write_images(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    (tmp_path / "all.csv").write_text(table)
    splits, _ = prepare_own(ptlreid, "all.csv")
    assert (splits.train.pids.tolist(), splits.train.camids.tolist()) == ([-1, -1, -1], [1, 2, 2])


def test_a_csv_needs_the_identities_of_test_images(ptlreid, tmp_path):
    write_images(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    rows = ["path,camid,split,pid", "1.jpg,1,train,", "2.jpg,1,query,7", "3.jpg,2,gallery,7"]
    (tmp_path / "all.csv").write_text("\n".join(rows))
    splits, _ = prepare_own(ptlreid, "all.csv")
    assert [part.pids.tolist() for part in splits.parts] == [[-1], [7], [7]]
    (tmp_path / "all.csv").write_text("\n".join([*rows[:-1], "3.jpg,2,gallery,"]))
    code, _, err = ptlreid("prepare", "folder", "--source", "all.csv", "--name", "other", "--unlabelled")
    assert (code, "line 4: pid is empty" in err) == (1, True)


def test_identities_written_into_the_split_by_hand_are_not_read(ptlreid, tmp_path):
    write_images(tmp_path / "frames", "1_c1.jpg", "2_c2.jpg")
    prepare_own(ptlreid, "frames")
    split = tmp_path / "data" / "lobby" / "split.csv"
    assert split.read_text().count(",-1,") == 2
    split.write_text(split.read_text().replace(",-1,", ",5,"))
    assert datasets.load("lobby", tmp_path / "data").train.pids.tolist() == [-1, -1]


@pytest.mark.parametrize("source", ["flat", "cams", "all.csv", "empty.csv"])
def test_a_source_without_identities_names_the_option(ptlreid, tmp_path, source):
    write_images(tmp_path, "flat/1.jpg", "flat/2.jpg", "cams/cam1/1.jpg", "cams/cam2/1.jpg")
    (tmp_path / "all.csv").write_text("path,camid\nflat/1.jpg,1\nflat/2.jpg,2")
    (tmp_path / "empty.csv").write_text("path,pid,camid\nflat/1.jpg,,1\nflat/2.jpg,,2")
    code, _, err = ptlreid("prepare", "folder", "--source", source, "--name", "lobby")
    assert (code, "add --unlabelled" in " ".join(err.split())) == (1, True), err
    assert ptlreid("prepare", "folder", "--source", source, "--name", "lobby", "--unlabelled")[0] == 0


def test_prepare_takes_unlabelled_as_an_option_and_not_as_a_name(ptlreid, tmp_path):
    write_images(tmp_path / "flat", "1_c1.jpg", "2_c2.jpg")
    code, _, err = ptlreid("prepare", "folder:unlabelled", "--source", "flat", "--name", "lobby")
    assert (code, "Add --unlabelled" in " ".join(err.split())) == (1, True)
    code, _, err = ptlreid("prepare", "market:unlabelled", "--test-share", "0.5", "--source", "flat")
    assert (code, "--test-share does not apply" in err) == (1, True)
