"""Own images: from an untouched folder to a dataset with a name."""

from __future__ import annotations

import csv
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import miniatures
import pytest
from conftest import write_image
from damage import damage_examples, damaged
from hypothesis import given
from hypothesis import strategies as st

from ptlreid import datasets
from ptlreid.datasets._image_tree import parse_camera
from ptlreid.datasets._left_out import count_left_out
from ptlreid.datasets._split import choose_protocol, split_images
from ptlreid.datasets.folder import read
from ptlreid.errors import DataError, OptionError
from ptlreid.progress import Silent
from ptlreid.settings import OwnImagesSettings
from ptlreid.workflows.prepare import prepare

TRAIN = ("--backbone", "tiny", "--init", "none", "--height", 64, "--width", 32, "--epochs", 1, "--batch-size", 4)


def write_folders(folder, name, *, identities=6, cameras=2, shots=2):
    """A folder for each identity; `name` is formatted with camera and shot."""
    for person in range(identities):
        for camera in range(cameras):
            for shot in range(shots):
                file = folder / f"guest {person}" / name.format(camera=camera + 1, shot=shot)
                write_image(file, 100 * person + 10 * camera + shot)


def make(source, root, name="lobby", **settings):
    own = OwnImagesSettings.resolve(name=name, **settings)
    module = datasets.find("folder").module
    prepare(datasets.DatasetRef(name, module, ""), source, root, own, Silent())
    return datasets.load(name, root)


def rows_of(root, name="lobby"):
    with (root / name / "split.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("name", ["cam{camera}_{shot}.jpg", "{shot}_c{camera}.png", "entrance {camera}/{shot}.jpeg"])
def test_from_an_untouched_folder_to_map_in_three_commands(ptlreid, tmp_path, name):
    write_folders(tmp_path / "my_crops", name)
    code, out, err = ptlreid("prepare", "folder", "--source", "my_crops", "--name", "lobby", "--check", "--json")
    assert (code, json.loads(out)["findings"]) == (0, []), err
    code, _, err = ptlreid("finetune", "--data", "lobby", "--name", "run", *TRAIN)
    assert code == 0, err
    code, out, err = ptlreid("evaluate", "--run", "run", "--json")
    assert code == 0, err
    scores = json.loads(out)
    assert 0 < scores["mAP"] <= 1
    assert (scores["data"], scores["protocol"]) == ("lobby", "market")
    # 3 of 6 identities are tested, each with one query by each of both cameras.
    assert scores["queries"] == {"total": 6, "valid": 6}


def test_numbers_of_named_cameras_are_printed(ptlreid, tmp_path):
    for name in ("1/door/1.jpg", "1/yard/1.jpg", "2/door/1.jpg", "2/yard/1.jpg", "3/door/1.jpg"):
        write_image(tmp_path / "my_crops" / name, sum(map(ord, name)))
    code, _, err = ptlreid("prepare", "folder", "--source", "my_crops", "--name", "lobby")
    assert (code, "cameras: 1 = door, 2 = yard" in err) == (0, True), err


def test_a_dataset_without_a_test_set_says_so(ptlreid, tmp_path):
    write_folders(tmp_path / "my_crops", "c{camera}_{shot}.jpg")
    rows = [f"{path},{path.parent.name},{path.name[1]},train" for path in (tmp_path / "my_crops").rglob("*.jpg")]
    (tmp_path / "all.csv").write_text("\n".join(["path,pid,camid,split", *rows]))
    code, out, err = ptlreid("prepare", "folder", "--source", "all.csv", "--name", "lobby")
    assert (code, "No test set" in out) == (0, True), err
    code, _, err = ptlreid("prepare", "loby", "--root", "nowhere")
    assert (code, "The root nowhere does not exist" in err) == (1, True)


def test_one_camera_is_stated_in_every_result(ptlreid, tmp_path):
    write_folders(tmp_path / "my_crops", "{shot}.jpg", cameras=1, shots=3)
    code, _, err = ptlreid("prepare", "folder", "--source", "my_crops")
    assert code == 0
    assert "protocol any-camera" in err
    assert ptlreid("prepare", "my_crops", "--check")[0] == 0
    code, out, _ = ptlreid("finetune", "--data", "my_crops", "--name", "run", *TRAIN, "--json")
    assert (code, json.loads(out)["protocol"]) == (0, "any-camera")
    code, out, _ = ptlreid("evaluate", "--run", "run", "--json")
    scores = json.loads(out)
    assert (code, scores["protocol"], scores["queries"]) == (0, "any-camera", {"total": 3, "valid": 3})
    assert "any-camera" in ptlreid("evaluate", "--run", "run")[1]


def test_names_of_market_in_one_folder_are_read_with_junk_and_distractors(tmp_path):
    for pid in (3, 5, 8, 9):
        for camid in (1, 14):
            for shot in (0, 1):
                write_image(tmp_path / "in" / f"{pid:04d}_c{camid}s1_{shot:06d}_00.jpg", 100 * pid + 10 * camid + shot)
    write_image(tmp_path / "in" / "-1_c1s1_000000_00.jpg", 1)
    write_image(tmp_path / "in" / "0000_c1s1_000000_00.jpg", 2)
    splits = make(tmp_path / "in", tmp_path / "data")
    assert (splits.train.num_identities, splits.query.num_identities) == (2, 2)
    assert {-1, -2} <= set(splits.gallery.pids.tolist())
    assert set(splits.query.camids.tolist()) == {1, 14}


def test_markets_layout_keeps_its_split(tmp_path):
    miniatures.write_market(tmp_path / "archive" / "market")
    splits = make(tmp_path / "archive", tmp_path / "data")
    expected = datasets.load(str(tmp_path / "archive" / "market"), tmp_path)
    for mine, theirs in zip(splits.parts, expected.parts, strict=True):
        assert sorted(mine.pids.tolist()) == sorted(theirs.pids.tolist())


def write_csv(folder, text):
    for seed, name in enumerate(("a1", "a2", "b1", "b2", "c1", "c2", "c3")):
        write_image(folder / "crops" / f"{name}.jpg", seed)
    (folder / "own.csv").write_text(text, encoding="utf-8-sig")  # as Excel writes it
    return folder / "own.csv"


def test_a_csv_with_splits_is_taken_as_it_is(tmp_path):
    text = (
        "path,pid,camid,split\ncrops/a1.jpg,anna,door,train\ncrops/a2.jpg,anna,hall,train\n"
        "crops/b1.jpg,bob,door,query\ncrops/b2.jpg,bob,hall,gallery\n"
    )
    splits = make(write_csv(tmp_path, text), tmp_path / "data")
    # In sorted order: anna 1, bob 2; door 1, hall 2.
    assert [part.pids.tolist() for part in splits.parts] == [[1, 1], [2], [2]]
    assert [part.camids.tolist() for part in splits.parts] == [[1, 2], [1], [2]]
    assert splits.protocol == "market"
    assert [row["origin"] for row in rows_of(tmp_path / "data")] == [
        f"crops/{name}.jpg" for name in ("a1", "a2", "b1", "b2")
    ]


def test_test_images_of_a_csv_become_queries_and_gallery(tmp_path):
    text = (
        "path,pid,camid,split\ncrops/a1.jpg,7,1,train\ncrops/c1.jpg,9,1,test\ncrops/c2.jpg,9,1,test\n"
        "crops/c3.jpg,9,2,test\n"
    )
    splits = make(write_csv(tmp_path, text), tmp_path / "data")
    # Camera 1 has two images and gives one as the query; camera 2 keeps its only one, which is the match.
    assert (splits.query.pids.tolist(), splits.query.camids.tolist()) == ([9], [1])
    assert sorted(splits.gallery.camids.tolist()) == [1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,pid\na.jpg,1\n", "no column camid"),
        ("path,pid,camid\n", "has no row"),
        ("path,pid,camid\ncrops/a1.jpg,1,1\ncrops/none.jpg,1,1\n", "none.jpg: is not an existing .*, line 3, names it"),
        ("path,pid,camid\ncrops/a1.jpg,,1\n", "line 2: pid is empty"),
        ("path,pid,camid,split\ncrops/a1.jpg,1,1,tain\n", "line 2: split = 'tain'"),
        ("path,pid,camid,split\ncrops/a1.jpg,1,1,train\ncrops/a2.jpg,1,1,\n", "line 3: has no split"),
        ("path,pid,camid\ncrops/a1.jpg,1,1\ncrops/a2.jpg,1,2\n", "1 identity found: expected at least 2"),
    ],
)
def test_a_faulty_csv_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        make(write_csv(tmp_path, text), tmp_path / "data")
    assert not (tmp_path / "data" / "lobby").exists()


def test_every_missing_and_undecodable_image_of_a_csv_is_a_fault_of_one_run(ptlreid, tmp_path):
    names = ("none", "a1", "a2", "b1", "gone", "b2")
    lines = [f"crops/{name}.jpg,{pid},1" for pid, name in enumerate(names)]
    source = write_csv(tmp_path, "\n".join(["path,pid,camid", *lines, "own.csv,1,1"]))
    (tmp_path / "crops" / "b2.jpg").write_bytes(b"no image")
    code, out, err = ptlreid("prepare", "folder", "--source", source, "--name", "lobby", "--json")
    assert (code, f"error: {source}: 4 faults." in err) == (1, True), err
    faults = {(one["kind"], Path(one["file"]).name): one["fault"] for one in json.loads(out)["findings"]}
    assert list(faults) == [
        ("missing", "none.jpg"),
        ("missing", "gone.jpg"),
        ("missing", "own.csv"),
        ("undecodable", "b2.jpg"),
    ]
    assert faults["missing", "gone.jpg"] == f"is not an existing image, but {source}, line 6, names it"


def test_missing_images_are_all_listed_even_if_no_other_is_left(ptlreid, tmp_path):
    source = write_csv(tmp_path, "path,pid,camid\ncrops/none.jpg,1,1\ncrops/gone.jpg,2,1\n")
    code, out, _ = ptlreid("prepare", "folder", "--source", source, "--name", "lobby", "--json")
    assert (code, [Path(one["file"]).name for one in json.loads(out)["findings"]]) == (1, ["none.jpg", "gone.jpg"])


def test_a_rerun_writes_the_same_bytes_and_another_seed_another_split(tmp_path):
    write_folders(tmp_path / "in", "c{camera}_{shot}.jpg", identities=8, shots=3)
    kept = []
    for root, seed in (("one", 0), ("two", 0), ("three", 1)):
        make(tmp_path / "in", tmp_path / root, seed=seed)
        kept.append((tmp_path / root / "lobby" / "split.csv").read_bytes())
    assert kept[0] == kept[1] != kept[2]
    with pytest.raises(OptionError, match=r"seed: 0 -> 1"):
        make(tmp_path / "in", tmp_path / "one", seed=1)
    write_image(tmp_path / "in" / "guest 9" / "c1_0.jpg", 1)
    with pytest.raises(OptionError, match=r"was made from .*in before files there changed\. Remove"):
        make(tmp_path / "in", tmp_path / "one")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a/c1_1.jpg", "b/2.jpg"], "the name gives no camera"),
        (["a/1.jpg", "a/door/1.jpg", "b/1.jpg"], "Keep one or the other"),
        (["0001_c1s1_1.jpg", "0002/1.jpg"], "0002/1.jpg: the name gives no pid and camera; others are in folders"),
        (["photo.jpg"], "gives no pid and camera"),
        (["a/b.gif"], "holds no image"),
    ],
)
def test_a_folder_of_no_known_form_is_refused(tmp_path, files, message):
    for seed, name in enumerate(files):
        write_image(tmp_path / "in" / name, seed)
    with pytest.raises(DataError, match=message):
        make(tmp_path / "in", tmp_path / "data")


@pytest.mark.parametrize("place", [b"a/im\xe9_0.jpg", b"caf\xe9/0.jpg"])
def test_a_name_that_is_not_unicode_is_refused_with_the_file(ptlreid, tmp_path, place):
    write_folders(tmp_path / "in", "{shot}.jpg", cameras=1)
    file = tmp_path / "in" / os.fsdecode(place)
    try:
        write_image(file, 1)
    except OSError:
        pytest.skip("a file system of Unicode names")
    code, out, err = ptlreid("prepare", "folder", "--source", "in", "--name", "lobby")
    assert (code, out) == (1, "")
    assert repr(os.fsdecode(place))[1:-1] in err
    assert "the name is not UTF-8" in err
    assert not (tmp_path / "data" / "lobby").exists()


def test_own_images_are_among_the_names_that_are_hinted_at(tmp_path):
    write_folders(tmp_path / "in", "c{camera}_{shot}.jpg")
    make(tmp_path / "in", tmp_path / "data", "lobby")
    with pytest.raises(OptionError, match="Did you mean 'lobby'"):
        datasets.load("loby", tmp_path / "data")
    with pytest.raises(OptionError, match="Unknown dataset 'lobby'"):
        datasets.load("lobby", tmp_path / "elsewhere")
    by_path = datasets.load(str(tmp_path / "data" / "lobby"), tmp_path)
    assert by_path.query.pids.tolist() == datasets.load("lobby", tmp_path / "data").query.pids.tolist()
    shutil.rmtree(tmp_path / "data" / "lobby" / "images")
    with pytest.raises(DataError, match=r"is in split\.csv but does not exist"):
        datasets.load("lobby", tmp_path / "data")


def test_a_dataset_of_version_0_1_loads_and_is_reused(tmp_path):
    write_folders(tmp_path / "in", "c{camera}_{shot}.jpg")
    made = make(tmp_path / "in", tmp_path / "data")
    folder = tmp_path / "data" / "lobby"
    for name in ("identities.csv", "cameras.csv", "left_out.csv"):
        (folder / name).unlink()
    origin = json.loads((folder / "prepared.json").read_text())
    assert (origin.pop("layout"), origin.pop("pattern")) == (None, None)
    del origin["content"]  # the digest that 0.1 did not write
    (folder / "prepared.json").write_text(json.dumps(origin))
    assert make(tmp_path / "in", tmp_path / "data").train.pids.tolist() == made.train.pids.tolist()
    assert count_left_out(folder) == {}


def test_the_names_behind_the_numbers_are_kept_and_what_was_left_out_is_counted(ptlreid, tmp_path):
    for name in ("anna/door/1.jpg", "anna/yard/2.jpg", "bob/door/3.jpg", "bob/yard/4.jpg", "carl/door/5.jpg"):
        write_image(tmp_path / "my_crops" / name, sum(map(ord, name)))
    for name in ("a.gif", "b.gif", "bob/notes.txt"):
        (tmp_path / "my_crops" / name).touch()
    code, _, err = ptlreid("prepare", "folder", "--source", "my_crops", "--name", "lobby")
    assert code == 0, err
    assert "read as identity/camera: " in err
    assert "left out: 2 files, such as a.gif: has the suffix .gif" in err
    folder = tmp_path / "data" / "lobby"
    assert (folder / "identities.csv").read_text() == "pid,name\n1,anna\n2,bob\n3,carl\n"
    assert (folder / "cameras.csv").read_text() == "camid,name\n1,door\n2,yard\n"
    assert sorted(count_left_out(folder).values()) == [1, 2]


def test_images_outside_the_folder_of_a_csv_are_counted(ptlreid, tmp_path):
    rows = ["path,pid,camid"]
    for pid in range(4):
        write_image(tmp_path / "elsewhere" / f"{pid}.jpg", pid)
        rows.append(f"{tmp_path / 'elsewhere' / f'{pid}.jpg'},{pid},1")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "own.csv").write_text("\n".join(rows))
    code, _, err = ptlreid("prepare", "folder", "--source", "lists/own.csv", "--name", "lobby")
    assert (code, "4 images are outside the folder of lists/own.csv: first" in err) == (0, True), err


@damage_examples()
@given(damage=damaged(b"path,pid,camid,split,origin\nimages/1.jpg,1,1,train,a.jpg\nimages/2.jpg,2,1,query,b.jpg\n"))
def test_a_damaged_split_is_one_message(tmp_path_factory, damage):
    folder = tmp_path_factory.mktemp("lobby")
    (folder / "split.csv").write_bytes(damage)
    (folder / "rules.json").write_text('{"protocol": "market", "seed": 0, "test_share": 0.5}')
    with suppress(DataError):
        read(folder, reject=lambda fault: None)


@pytest.mark.parametrize("path", ["../../secret.jpg", "/etc/secret.jpg"])
def test_a_split_that_names_files_elsewhere_is_refused(tmp_path, path):
    (tmp_path / "split.csv").write_text(f"path,pid,camid,split,origin\n{path},1,1,train,a.jpg\n")
    with pytest.raises(DataError, match="line 2 names a file outside"):
        read(tmp_path)


SEEN = st.lists(st.tuples(st.integers(-2, 12), st.integers(1, 4)), min_size=2, max_size=60)


@given(SEEN, st.integers(0, 3), st.floats(0.05, 0.95))
def test_a_random_split_keeps_its_promises(seen, seed, share):
    images = [(pid, camid, "") for pid, camid in seen]
    if len({pid for pid, _ in seen if pid >= 0}) < 2:
        with pytest.raises(DataError, match="expected at least 2"):
            split_images(images, seed=seed, test_share=share)
        return
    parts = split_images(images, seed=seed, test_share=share)
    assert parts == split_images(images, seed=seed, test_share=share)
    assert set(parts) <= {"train", "query", "gallery"}
    of = {part: [one for one, where in zip(seen, parts, strict=True) if where == part] for part in set(parts)}
    train, test = of.get("train", []), of.get("query", []) + of.get("gallery", [])
    assert train
    assert not {pid for pid, _ in train} & {pid for pid, _ in test}
    assert all(pid >= 0 for pid, _ in train + of.get("query", []))
    several = {pid for pid, _ in seen if pid >= 0 and len({camid for other, camid in seen if other == pid}) > 1}
    queries = of.get("query", [])
    if several:
        assert queries
        for pid, camid in queries:
            assert any(other == pid and another != camid for other, another in of["gallery"])
    for pid, _ in queries:
        assert any(other == pid for other, _ in of["gallery"])
    protocol = choose_protocol([(*one, part) for one, part in zip(seen, parts, strict=True)])
    assert protocol == ("market" if several else "any-camera")


@given(
    camera=st.integers(1, 10**6),
    shot=st.integers(0, 999),
    form=st.sampled_from(
        ["c{0}_{1}", "{1}_c{0}", "{1}-cam{0}", "Camera_{0}_{1}", "x c{0}.{1}", "0001_C{0}s1_{1:06d}_00"]
    ),
)
def test_a_camera_of_any_number_of_digits_is_read_from_the_name(camera, shot, form):
    assert parse_camera(f"{form.format(camera, shot)}.jpg") == str(camera)


def test_a_split_that_lost_lines_is_never_used(tmp_path):
    write_folders(tmp_path / "my_crops", "c{camera}_{shot}.jpg")
    make(tmp_path / "my_crops", tmp_path / "data")
    split = tmp_path / "data" / "lobby" / "split.csv"
    lines = split.read_text().splitlines(keepends=True)
    for count in (1, 2, len(lines) - 1):
        split.write_text("".join(lines[:count]))
        with pytest.raises(DataError, match=rf"lists {count - 1} images, but `prepare` wrote 24"):
            datasets.load("lobby", tmp_path / "data")
    split.write_text("".join(lines))
    rules = split.with_name("rules.json")
    written = json.loads(rules.read_text())
    rules.write_text(
        json.dumps({key: value for key, value in written.items() if key not in ("images", "content")})
    )  # of 0.1
    assert sum(map(len, datasets.load("lobby", tmp_path / "data").parts)) == 24
