"""`ptlreid prepare NAME --check`: what is wrong is named, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import miniatures
import numpy as np
import pytest
from conftest import write_image

from ptlreid import contents, datasets, image_check
from ptlreid.datasets import cuhk03, market, msmt17
from ptlreid.progress import Silent
from ptlreid.workflows.check import check

TRAIN, QUERY, GALLERY = market.PARTS


@pytest.fixture(autouse=True)
def published(monkeypatch):
    """The counts of the miniatures in place of the published ones."""
    with_val = {**miniatures.MSMT17, "train_images": 9}
    monkeypatch.setattr(market, "INFO", replace(market.INFO, counts={"": miniatures.MARKET}))
    monkeypatch.setattr(
        msmt17,
        "INFO",
        replace(msmt17.INFO, counts={"v1": miniatures.MSMT17, "v2": miniatures.MSMT17, "v1-val": with_val}),
    )


def findings(name, root):
    found = datasets.find(name, root)
    return check(found, found.folder(root), Silent()).faults


def pick(folder, rng):
    """A random file of `folder`."""
    files = sorted(folder.rglob("*.jpg"))
    return files[int(rng.integers(len(files)))]


# Each damages one random file and returns it: the file that the check has to name.
def empty(folder, rng):
    victim = pick(folder, rng)
    victim.write_bytes(b"")
    return victim


def truncated(folder, rng):
    victim = pick(folder, rng)
    content = victim.read_bytes()
    victim.write_bytes(content[: int(rng.integers(3, len(content) - 10))])
    return victim


def undecodable(folder, rng):
    victim = pick(folder, rng)
    victim.write_bytes(rng.bytes(500))
    return victim


def duplicate(folder, rng):
    victim = pick(folder / TRAIN, rng)
    copy = victim.with_name(victim.name.replace("_00.", "_01."))
    shutil.copy(victim, copy)
    return copy


def conflict(folder, rng):
    victim = folder / GALLERY / "0006_c2s1_000002_00.jpg"
    shutil.copy(folder / GALLERY / "0005_c1s1_000002_00.jpg", victim)
    return victim


def conflict_behind_a_distractor(folder, rng):
    first = folder / GALLERY / "0005_c1s1_000002_00.jpg"
    shutil.copy(first, folder / GALLERY / "0000_c1s1_000001_00.jpg")  # sorted before both
    return conflict(folder, rng)


def leak(folder, rng):
    victim = pick(folder / QUERY, rng)
    shutil.copy(pick(folder / TRAIN, rng), victim)
    return victim


def overlap(folder, rng):
    victim = folder / GALLERY / "0001_c1s1_000009_00.jpg"
    write_image(victim, 5000)
    return victim


def no_match(folder, rng):
    (folder / GALLERY / "0006_c2s1_000002_00.jpg").unlink()
    return folder / QUERY / "0006_c1s1_000001_00.jpg"


def apple_double(folder, rng):
    victim = pick(folder, rng)
    stray = victim.with_name(f"._{victim.name}")
    stray.write_bytes(b"\x00\x05\x16\x07")
    return stray


def thumbs(folder, rng):
    (folder / TRAIN / "Thumbs.db").write_bytes(b"\xd0\xcf")
    return folder / TRAIN / "Thumbs.db"


def no_image(folder, rng):
    (folder / QUERY / "notes.txt").write_text("about")
    return folder / QUERY / "notes.txt"


def deeper(folder, rng):
    write_image(folder / QUERY / "more" / "0005_c1s1_000009_00.jpg", 5000)
    return folder / QUERY / "more"


def name(folder, rng):
    victim = pick(folder, rng)
    return victim.rename(victim.with_name(f"photo {victim.name}"))


def missing_part(folder, rng):
    shutil.rmtree(folder / QUERY)
    return folder


def empty_part(folder, rng):
    for file in (folder / QUERY).iterdir():
        file.unlink()
    return folder / QUERY


def file_for_part(folder, rng):
    missing_part(folder, rng)
    (folder / QUERY).write_text("a file")
    return folder


def link_loop(folder, rng):
    missing_part(folder, rng)
    (folder / QUERY).symlink_to(folder / QUERY)
    return folder


def nested(folder, rng):
    folder.rename(folder.with_name("inner"))
    folder.mkdir()
    folder.with_name("inner").rename(folder / "Market-1501-v15.09.15")
    return folder


def identities(folder, rng):
    for part in (QUERY, GALLERY):  # the test set is of identity 5 alone
        for file in (folder / part).glob("000[67]_*"):
            file.unlink()
    return folder


def counts(folder, rng):
    pick(folder / TRAIN, rng).unlink()
    return folder


def cameras(folder, rng):
    for part in market.PARTS:
        for number, file in enumerate(sorted((folder / part).iterdir())):
            file.rename(file.with_name(f"{file.name.split('_')[0]}_c1s1_{number:06d}_00.jpg"))
    return folder / QUERY


FAULTS = [
    (empty, {"empty"}, True),
    (truncated, {"truncated"}, True),
    (undecodable, {"undecodable"}, True),
    (duplicate, {"duplicate", "counts"}, False),
    (conflict, {"conflict"}, True),
    (conflict_behind_a_distractor, {"conflict", "duplicate", "counts"}, True),
    (leak, {"leak"}, True),
    (overlap, {"overlap", "counts"}, True),
    (no_match, {"no-match", "counts"}, False),
    (apple_double, {"stray"}, False),
    (thumbs, {"stray"}, False),
    (no_image, {"stray"}, False),
    (deeper, {"left-out"}, False),
    (name, {"name", "counts"}, True),
    (missing_part, {"layout"}, True),
    (file_for_part, {"layout"}, True),
    (link_loop, {"layout"}, True),
    (empty_part, {"layout"}, True),
    (nested, {"nested"}, True),
    (identities, {"identities", "counts"}, True),
    (counts, {"counts"}, True),
    (cameras, {"cameras", "counts"}, True),
]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("damage", "kinds", "serious"), FAULTS, ids=[damage.__name__ for damage, _, _ in FAULTS])
def test_a_fault_is_named_with_its_file(tmp_path, damage, kinds, serious, seed):
    folder = tmp_path / "market"
    miniatures.write_market(folder)
    assert findings("market", tmp_path) == []
    victim = damage(folder, np.random.default_rng(seed))
    found = findings("market", tmp_path)
    # A query that became unreadable, or lost its name, has consequences of its own.
    assert kinds <= {fault.kind for fault in found} <= kinds | ({"no-match"} if damage is name else set())
    chief = next(fault for fault in found if fault.kind in kinds - {"counts"} or kinds == {"counts"})
    assert (chief.file, chief.serious) == (victim, serious)
    assert chief.fault and chief.remedy
    assert sum(fault.kind != "counts" for fault in found) <= 2


def test_msmt17_by_version_by_its_lists_and_by_what_is_in_no_list(tmp_path):
    folder = tmp_path / "msmt17"
    miniatures.write_msmt17(folder, "v2")
    (fault,) = findings("msmt17", tmp_path)
    assert (fault.kind, fault.file) == ("variant", folder)
    assert "is MSMT17 V2, not V1. Use the name msmt17:v2" in str(fault)
    assert findings("msmt17:v2", tmp_path) == []

    lost = next((folder / "mask_test_v2").rglob("*.jpg"))
    lost.unlink()
    write_image(folder / "mask_train_v2" / "0000" / "0000_099_01_0303morning_0001_0_ex.jpg", 1)
    with (folder / "list_val.txt").open("a") as stream:
        stream.write("0000/nonsense.jpg\n")
    by_kind = {fault.kind: fault for fault in findings("msmt17:v2", tmp_path)}
    assert set(by_kind) == {"missing", "stray", "name"}
    assert by_kind["missing"].file == lost
    assert "is in no list or split" in by_kind["stray"].fault
    assert "line 4" in by_kind["name"].remedy


def test_the_numbers_of_another_variant_are_recognised(tmp_path):
    folder = tmp_path / "msmt17"
    miniatures.write_msmt17(folder, "v1")
    lists = [(folder / f"list_{part}.txt") for part in ("train", "val")]
    lists[0].write_text("".join(file.read_text() for file in lists))
    lists[1].write_text("")
    (fault,) = findings("msmt17", tmp_path)
    assert fault.fault == "9 train images, 6 published"
    assert "These are the counts of msmt17:v1-val." in fault.remedy


def test_an_image_of_the_split_of_cuhk03_must_be_there(tmp_path, monkeypatch):
    rows = [row for row in miniatures.cuhk03_rows() if row["labelling"] == "labeled"]
    monkeypatch.setattr(cuhk03, "read_new_split", lambda: rows)
    monkeypatch.setattr(cuhk03, "INFO", replace(cuhk03.INFO, counts={}))
    for number, row in enumerate(rows):
        write_image(tmp_path / "cuhk03" / "labeled" / f"{row['file']}.png", number)
    assert findings("cuhk03", tmp_path) == []
    lost = tmp_path / "cuhk03" / "labeled" / f"{rows[0]['file']}.png"
    lost.unlink()
    (fault,) = findings("cuhk03", tmp_path)
    assert (fault.kind, fault.file, fault.serious) == ("missing", lost, True)
    (fault,) = findings("cuhk03:detected", tmp_path)
    assert fault.kind == "layout"


def test_a_folder_of_any_size_has_no_published_counts(tmp_path):
    miniatures.write_market(tmp_path / "mine")
    counts(tmp_path / "mine", np.random.default_rng(0))
    assert findings(str(tmp_path / "mine"), tmp_path) == []


def test_the_real_counts_are_what_a_small_copy_is_held_against(ptlreid, tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    miniatures.write_market(tmp_path / "data" / "market")
    code, out, err = ptlreid("prepare", "market", "--check")
    assert code == 1, err
    assert "serious, counts: data/market: 16 train images, 12,936 published" in out
    assert "7 faults, 7 serious" in out


def test_a_fault_that_is_not_serious_is_printed_and_is_no_failure(ptlreid, tmp_path):
    miniatures.write_market(tmp_path / "data" / "market")
    stray = thumbs(tmp_path / "data" / "market", None)
    code, out, _ = ptlreid("prepare", "market", "--check", "--json")
    assert code == 0
    (finding,) = json.loads(out)["findings"]
    assert set(finding) == {"kind", "file", "fault", "remedy", "serious"}
    assert finding["file"] == str(stray.relative_to(tmp_path))


def test_processes_see_what_this_one_sees(tmp_path):
    miniatures.write_market(tmp_path)
    rng = np.random.default_rng(0)
    empty(tmp_path / TRAIN, rng), truncated(tmp_path / QUERY, rng), undecodable(tmp_path / GALLERY, rng)
    paths = [*sorted(tmp_path.rglob("*.jpg")) * 5, tmp_path / "none.jpg"]
    alone = image_check.check_images(paths, Silent(), processes=0)
    assert [one.state for one in alone].count("fine") == 5 * (30 - 3)
    assert {one.state for one in alone} == {"fine", "empty", "truncated", "undecodable", "missing"}
    assert image_check.check_images(paths, Silent(), processes=2) == alone


def test_an_image_whose_bytes_changed_unnoticed_is_named(tmp_path, monkeypatch):
    folder = tmp_path / "market"
    miniatures.write_market(folder)
    monkeypatch.setattr(contents, "MARGIN_NS", -(10**12))  # new files are indexed, too
    contents.use_index(folder)
    contents.digest_all(sorted(folder.rglob("*.jpg")))
    assert findings("market", tmp_path) == []
    entries = contents._read(folder / contents.INDEX)
    entries.digests[4] ^= 1  # as if the file had had other bytes, and the same size, times and inode
    contents._write(folder / contents.INDEX, entries)
    monkeypatch.setattr(contents, "_indexes", {})  # as in another process
    for _ in range(2):  # a check corrects nothing
        (fault,) = findings("market", tmp_path)
        assert (fault.kind, fault.serious, fault.file) == ("index", True, folder / entries.names[4])
        assert f"remove {folder / contents.INDEX}" in fault.remedy


def test_all_faults_are_listed_in_one_run_even_where_parts_are_missing(tmp_path):
    folder = tmp_path / "market"
    miniatures.write_market(folder)
    shutil.rmtree(folder / QUERY)
    cut = truncated(folder / TRAIN, np.random.default_rng(0))
    odd = name(folder / GALLERY, np.random.default_rng(0))
    nested(folder, None)
    inner = folder / "Market-1501-v15.09.15"
    expected = {
        ("nested", folder),
        ("layout", inner),
        ("truncated", inner / cut.relative_to(folder)),
        ("name", inner / odd.relative_to(folder)),
    }
    assert {(fault.kind, fault.file) for fault in findings("market", tmp_path)} == expected


def test_the_folder_of_one_part_points_to_the_dataset_above_it(tmp_path):
    miniatures.write_market(tmp_path / "market")
    (fault,) = findings(str(tmp_path / "market" / QUERY), tmp_path)
    assert (fault.kind, fault.remedy) == ("nested", f"The layout is one level higher: use {tmp_path / 'market'}.")


@pytest.mark.parametrize("data", ["market", "duke", "msmt17", "msmt17:v2-val", "cuhk03", "cuhk03:detected-classic-3"])
def test_an_empty_folder_is_a_fault_that_is_printed_and_names_what_is_missing(ptlreid, tmp_path, data):
    folder = datasets.find(data).folders(tmp_path / "data")[0]
    folder.mkdir(parents=True)
    code, out, _ = ptlreid("check", data)
    assert code == 1
    assert f"serious, layout: {folder.relative_to(tmp_path)}: no " in out
    assert "1 fault, 1 serious" in out


def test_a_file_in_place_of_a_folder_is_a_fault(tmp_path):
    (tmp_path / "market").write_text("a file")
    (fault,) = findings(str(tmp_path / "market"), tmp_path)
    assert (fault.kind, fault.fault) == ("layout", "is not a folder")


def test_a_folder_that_cannot_be_listed_is_a_fault_next_to_others(tmp_path, monkeypatch):
    miniatures.write_market(tmp_path / "market")
    closed = tmp_path / "market" / QUERY
    stray = thumbs(tmp_path / "market", None)
    list_all = Path.iterdir

    def refuse(folder):
        if folder == closed:
            raise PermissionError(13, "Permission denied")
        return list_all(folder)

    monkeypatch.setattr(Path, "iterdir", refuse)
    faults = {fault.file: fault for fault in findings("market", tmp_path)}
    assert {closed, stray} <= set(faults)
    assert faults[closed].fault == "cannot be listed (Permission denied)"


def test_msmt17_without_val_does_not_need_its_list(tmp_path):
    miniatures.write_msmt17(tmp_path / "msmt17", "v1")
    (tmp_path / "msmt17" / "list_val.txt").write_text("")
    for image in (tmp_path / "msmt17" / "train").rglob("*_12_*.jpg"):  # those of list_val
        image.unlink()
    (tmp_path / "msmt17" / "list_val.txt").unlink()
    assert [fault.kind for fault in findings("msmt17", tmp_path)] == ["counts"]  # without val: 2 cameras, not 3
    (fault,) = findings("msmt17:v1-val", tmp_path)
    assert (fault.kind, fault.fault) == ("layout", "no list_val.txt in it")


def test_the_title_names_the_variant(ptlreid, tmp_path):
    miniatures.write_msmt17(tmp_path / "data" / "msmt17", "v2")
    assert ptlreid("check", "msmt17:v2")[1].splitlines()[0] == "msmt17:v2"


def test_a_folder_inside_that_cannot_be_listed_is_a_fault(tmp_path, monkeypatch):
    miniatures.write_market(tmp_path / "market")
    closed = tmp_path / "market" / QUERY / "closed"
    closed.mkdir()
    scan = os.scandir

    def refuse(folder):
        if Path(folder) == closed:
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        (fault,) = findings("market", tmp_path)
    assert (fault.kind, fault.file, fault.serious) == ("layout", closed, True)
