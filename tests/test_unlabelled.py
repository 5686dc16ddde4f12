"""Datasets whose training images have no identities: by name, and as they are refused where labels are needed."""

from __future__ import annotations

import csv
import json
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
        ("transfer-chain", "market:unlabelled"),
    ],
)
def test_commands_that_train_with_labels_refuse_unlabelled_images(ptlreid, root, command):
    code, _, err = ptlreid(*command, "--backbone", "tiny", "--init", "none", "--height", 64, "--width", 32)
    assert code == 1
    assert "no identities" in err and "`ptlreid adapt --run RUN --data market`" in " ".join(err.split())


def test_distillation_refuses_unlabelled_images(ptlreid, root):
    tiny = ("--backbone", "tiny", "--init", "none", "--height", 64, "--width", 32, "--epochs", 0, "--batch-size", 4)
    assert ptlreid("finetune", "--data", "market", "--name", "teacher", *tiny)[0] == 0
    code, _, err = ptlreid("distill", "--teacher", "teacher", "--data", "market:unlabelled")
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
