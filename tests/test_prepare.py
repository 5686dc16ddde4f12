"""`ptlreid prepare --source`: from a user's archive or folder to scores."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import miniatures
import numpy as np
import pytest
from conftest import write_image
from PIL import Image

from ptlreid import contents, datasets
from ptlreid.datasets import FaultsError, cuhk03, duke, market, msmt17, reader, synthetic, unfinished_folder
from ptlreid.errors import DataError, OptionError, PtlreidError
from ptlreid.progress import Silent
from ptlreid.settings import OwnImagesSettings, SyntheticSettings
from ptlreid.workflows.prepare import prepare

TRAIN = ("--backbone", "tiny", "--init", "none", "--height", 64, "--width", 32, "--epochs", 1, "--json")


def pack(folder: Path, archive: Path) -> Path:
    """`folder`, itself the top of the archive, as zip or tar by the archive's name."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as content:
            for path in sorted(folder.rglob("*")):
                content.write(path, path.relative_to(folder.parent))
    else:
        with tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w") as stream:
            stream.add(folder, folder.name)
    return archive


def make(name: str, source: Path, root: Path, own: OwnImagesSettings | None = None) -> bool:
    return prepare(datasets.find(name, root), source, root, own, Silent())


def with_counts(monkeypatch, module, counts):
    monkeypatch.setattr(module, "INFO", replace(module.INFO, counts=counts))


@pytest.fixture
def market_zip(tmp_path):
    top = tmp_path / "download" / "Market-1501-v15.09.15"
    miniatures.write_market(top)
    (top / "readme.txt").write_text("about")
    (top / "query" / "Thumbs.db").write_bytes(b"\x00")
    (top / "query" / "._0005_c1s1_000001_00.jpg").write_bytes(b"\x00")
    return pack(top, tmp_path / "download" / "Market-1501-v15.09.15.zip")


@pytest.fixture
def sources(market_zip, tmp_path, monkeypatch):
    """The downloads of each dataset, and miniature counts in place of the published ones."""
    rows = miniatures.cuhk03_rows()
    download = tmp_path / "download"
    miniatures.write_duke(download / "DukeMTMC-reID")
    for version in ("v1", "v2"):
        miniatures.write_msmt17(download / version / f"MSMT17_{version.upper()}", version)
    miniatures.write_cuhk03(download / "cuhk03_release" / "cuhk-03.mat", rows)
    monkeypatch.setattr(cuhk03, "read_new_split", lambda: rows)
    with_counts(monkeypatch, market, {"": miniatures.MARKET})
    with_counts(monkeypatch, duke, {"": miniatures.DUKE})
    with_val = {**miniatures.MSMT17, "train_images": 9}
    with_counts(monkeypatch, msmt17, {"v1": miniatures.MSMT17, "v2-val": with_val})
    with_counts(monkeypatch, cuhk03, {"labeled": count_rows(rows, "labeled"), "detected": count_rows(rows, "detected")})
    return {
        "market": market_zip,
        "duke": pack(download / "DukeMTMC-reID", download / "DukeMTMC-reID.tar.gz"),
        "msmt17": download / "v1",  # one level too high
        "msmt17:v2-val": pack(download / "v2" / "MSMT17_V2", download / "MSMT17_V2.tar"),
        "cuhk03": pack(download / "cuhk03_release", download / "cuhk03_release.zip"),
        "cuhk03:detected": download / "cuhk03_release" / "cuhk-03.mat",
        "cuhk03:labeled-classic-3": download / "cuhk03_release",
    }


def count_rows(rows, labelling):
    counts = {"cameras": 2}
    for split in ("train", "query", "gallery"):
        of_split = [row for row in rows if (row["labelling"], row["split"]) == (labelling, split)]
        counts |= {f"{split}_images": len(of_split), f"{split}_identities": len({row["pid"] for row in of_split})}
    return counts


@pytest.mark.parametrize(
    "name",
    ["market", "duke", "msmt17", "msmt17:v2-val", "cuhk03", "cuhk03:detected", "cuhk03:labeled-classic-3"],
)
def test_every_reader_goes_from_the_download_to_scores(ptlreid, sources, name):
    code, out, err = ptlreid("prepare", name, "--source", sources[name], "--json")
    assert code == 0, err
    made = json.loads(out)
    assert made["prepared"] is True
    assert ("withdrawn by its authors in 2019" in err) == (name == "duke")
    code, out, err = ptlreid("prepare", name, "--check", "--json")
    kinds = [one["kind"] for one in json.loads(out)["findings"]]
    assert (code, kinds) == (0, ["left-out"] if name == "market" else []), out  # Market's archive contains a readme
    assert json.loads(out)["train"] == made["train"]
    code, _, err = ptlreid("finetune", "--data", name, "--name", "run", "--batch-size", made["train"]["images"], *TRAIN)
    assert code == 0, err
    assert sum('"step"' in line for line in Path("runs/run/history.jsonl").read_text().splitlines()) == 1
    code, out, err = ptlreid("evaluate", "--run", "run", "--json")
    assert code == 0, err
    scores = json.loads(out)
    assert 0 < scores["mAP"] <= 1
    assert scores["protocol"] == ("cuhk03-classic" if "classic" in name else "market")


@pytest.mark.parametrize("name", ["synthetic", "synthetic-a", "synthetic-b", "synthetic-c"])
def test_every_synthetic_site_goes_from_rendering_to_scores(ptlreid, name):
    draw = ("--identities", 4, "--cameras", 2, "--images-per-camera", 2, "--height", 64, "--width", 32)
    code, out, err = ptlreid("prepare", name, *draw, "--json")
    assert code == 0, err
    made = json.loads(out)
    assert made["rendered"] is True
    assert made["train"] == {"images": 8, "identities": 2, "cameras": 2}  # half of the identities train
    code, out, _ = ptlreid("prepare", name, "--check", "--json")
    assert (code, json.loads(out)["findings"]) == (0, [])
    code, _, err = ptlreid("finetune", "--data", name, "--name", "run", "--batch-size", 8, *TRAIN)
    assert code == 0, err
    code, out, err = ptlreid("evaluate", "--run", "run", "--json")
    assert code == 0, err
    assert 0 < json.loads(out)["mAP"] <= 1


@pytest.mark.parametrize("level", ["", "Market-1501-v15.09.15", "Market-1501-v15.09.15/query"])
def test_a_folder_at_any_level_will_do(market_zip, tmp_path, level):
    assert make("market", market_zip.parent / level, tmp_path / "data") is True
    assert len(datasets.load("market", tmp_path / "data").query) == 6


def test_files_of_a_folder_are_linked_and_strays_stay_behind(market_zip, tmp_path):
    make("market", market_zip.parent, tmp_path / "data")
    folder = tmp_path / "data" / "market"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert len(files) == 16 + 6 + 8 + 2
    assert [path.name for path in files if not path.name.endswith(".jpg")] == ["left_out.csv", "prepared.json"]
    assert all(path.stat().st_nlink == 2 for path in files if path.name.endswith(".jpg"))
    assert not unfinished_folder(folder).exists()


def test_without_hard_links_files_are_copied(market_zip, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    make("market", market_zip.parent, tmp_path / "data")
    copy = tmp_path / "data" / "market" / "query" / "0005_c1s1_000001_00.jpg"
    assert copy.stat().st_nlink == 1
    original = market_zip.parent / "Market-1501-v15.09.15" / "query" / copy.name
    assert copy.read_bytes() == original.read_bytes()


@pytest.mark.parametrize(
    ("before", "same_time", "after"),
    [("1234", True, "1234"), ("1234", False, "file"), ("", True, "file"), ("longer", True, "file")],
)
def test_an_existing_file_is_kept_if_it_has_size_and_time_of_the_other(tmp_path, before, same_time, after):
    (tmp_path / "file").write_text("file")
    (tmp_path / "place").write_text(before)
    for name in ("file", "place"):
        os.utime(tmp_path / name, ns=(0, 10**18 + (name == "place" and not same_time)))
    reader.link_or_copy(tmp_path / "file", tmp_path / "place")
    assert (tmp_path / "place").read_text() == after


def test_a_copy_is_recognised(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (tmp_path / "none" / "none").stat())  # as on another disk
    (tmp_path / "file").write_text("file")
    reader.link_or_copy(tmp_path / "file", tmp_path / "place")
    made = (tmp_path / "place").stat()
    reader.link_or_copy(tmp_path / "file", tmp_path / "place")
    assert (tmp_path / "place").stat().st_ino == made.st_ino


def write_people(folder: Path) -> list[Path]:
    """`folder/NAME/CAMERA/1.jpg` of four people by two cameras."""
    paths = [folder / name / camera / "1.jpg" for name in ("a", "b", "c", "d") for camera in ("x", "y")]
    for number, path in enumerate(paths):
        write_image(path, 40 + number)
    return paths


@pytest.mark.parametrize("source", ["people", "linked", "people/list.csv"])
def test_a_change_in_what_a_source_refers_to_is_noticed_and_a_leftover_is_none(ptlreid, tmp_path, source):
    """The images of a CSV, and those below links to folders."""
    paths = write_people(tmp_path / "people")
    rows = [f"{path.relative_to(tmp_path / 'people')},{number // 2},{number % 2}" for number, path in enumerate(paths)]
    (tmp_path / "people" / "list.csv").write_text("\n".join(["path,pid,camid", *rows]))
    (tmp_path / "linked").mkdir()
    for name in ("a", "b", "c", "d"):
        (tmp_path / "linked" / name).symlink_to(tmp_path / "people" / name)
    layout = () if source.endswith("csv") else ("--layout", "identity/camera")
    command = ("prepare", "folder", "--source", source, "--name", "lobby", "--root", "data", *layout)
    assert ptlreid(*command)[0] == 0
    for leftover in (".DS_Store", "Thumbs.db"):
        (tmp_path / source.split("/", maxsplit=1)[0] / leftover).write_text("view settings")
    code, out, err = ptlreid(*command)
    assert (code, "Reused" in out) == (0, True), err
    paths[3].unlink()
    write_image(paths[3], 99)
    code, _, err = ptlreid(*command)
    assert (code, "before files there changed" in " ".join(err.split())) == (1, True), err


def test_a_folder_with_dots_in_its_name_keeps_them(ptlreid, tmp_path):
    for name in ("2024.05.01", "2024.05.02"):
        write_people(tmp_path / name)
        code, _, err = ptlreid("prepare", "folder", "--source", name, "--layout", "identity/camera", "--root", "data")
        assert code == 0, err
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["2024.05.01", "2024.05.02"]


def test_the_same_again_is_reused_and_another_source_is_refused(market_zip, tmp_path):
    root = tmp_path / "data"
    assert make("market", market_zip, root) is True
    unfinished_folder(root / "market").mkdir()
    assert make("market", market_zip, root) is False
    assert not unfinished_folder(root / "market").exists()
    os.utime(market_zip, (1, 1))
    with pytest.raises(OptionError, match=r"\.zip before files there changed"):
        make("market", market_zip, root)
    market_zip.rename(market_zip.with_name("other.zip"))
    with pytest.raises(OptionError, match=r"made from another source \(source"):
        make("market", market_zip.with_name("other.zip"), root)


def test_a_source_that_is_also_used_as_a_dataset_is_the_same_source(market_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "MARGIN_NS", -(10**12))
    source = tmp_path / "download"
    shutil.copytree(market_folder, source)
    assert make("market", source, tmp_path / "data") is True
    contents.digest_all(datasets.load(str(source), tmp_path).train.paths)
    assert (source / contents.INDEX).is_file()
    assert make("market", source, tmp_path / "data") is False


def test_a_folder_that_was_put_there_by_hand_is_left_alone(market_folder, market_zip):
    with pytest.raises(OptionError, match="exists and was not made from a --source"):
        make("market", market_zip, market_folder.parent)


@pytest.mark.parametrize(
    ("data", "labelling", "other"),
    [("cuhk03", "labeled", "cuhk03:detected"), ("cuhk03:detected-classic-3", "detected", "cuhk03")],
)
def test_one_labelling_of_cuhk03_is_converted_and_the_other_not_missed(sources, ptlreid, data, labelling, other):
    root = Path("data")
    assert make(data, sources["cuhk03"], root) is True
    assert make(f"cuhk03:{labelling}", sources["cuhk03"], root) is False
    folders = [file.parent.name for file in root.rglob("*.png")]
    assert folders == [labelling] * 162  # of 17 identities with up to 10 images each
    code, out, _ = ptlreid("check", f"cuhk03:{labelling}", "--json")
    assert (code, json.loads(out)["findings"]) == (0, [])
    code, _, err = ptlreid("check", other)
    assert code == 1
    assert f"`ptlreid prepare {other} --source FILE`" in " ".join(err.split())


def test_a_folder_of_version_0_1_with_both_labellings_is_used_and_reused(ptlreid, sources, tmp_path):
    root = tmp_path / "data"
    make("cuhk03", sources["cuhk03"], root)
    make("cuhk03:detected", sources["cuhk03"], root)
    (root / "cuhk03-labeled").rename(root / "cuhk03")
    (root / "cuhk03-detected" / "detected").rename(root / "cuhk03" / "detected")
    shutil.rmtree(root / "cuhk03-detected")
    origin = json.loads((root / "cuhk03" / "prepared.json").read_text())
    del origin["content"]  # 0.1 wrote no digest
    (root / "cuhk03" / "prepared.json").write_text(json.dumps({**origin, "data": "cuhk03"}))
    for labelling in ("labeled", "detected"):
        assert make(f"cuhk03:{labelling}", sources["cuhk03"], root) is False
        code, out, _ = ptlreid("check", f"cuhk03:{labelling}", "--json")
        assert (code, json.loads(out)["findings"]) == (0, [])
    assert [path.name for path in root.iterdir()] == ["cuhk03"]


def test_images_of_cuhk03_are_upright_and_lossless(sources, tmp_path):
    for labelling in ("labeled", "detected"):
        make(f"cuhk03:{labelling}", sources["cuhk03"], tmp_path / "data")
    for row in miniatures.cuhk03_rows():
        file = tmp_path / "data" / f"cuhk03-{row['labelling']}" / row["labelling"] / f"{row['file']}.png"
        with Image.open(file) as image:
            assert (np.asarray(image) == miniatures.cuhk03_image(row["labelling"], row["file"])).all()


def test_the_sets_of_the_release_are_those_of_the_file(sources, tmp_path):
    for labelling in ("labeled", "detected"):
        make(f"cuhk03:{labelling}", sources["cuhk03"], tmp_path / "data")
    splits = datasets.load("cuhk03:detected-classic-3", tmp_path / "data")
    # The third set of the miniature (k = 2): persons 3 and 4 of pair 1, and person 2 of pair 2.
    assert {path.name[:5] for path in splits.query.paths} == {"1_003", "1_004", "2_002"}
    assert not {path.name[:5] for path in splits.train.paths} & {"1_003", "1_004", "2_002"}
    assert splits.train.num_identities == sum(miniatures.CUHK03_PERSONS) - 3
    first = datasets.load("cuhk03:classic", tmp_path / "data")
    assert {path.parent.name for path in first.query.paths} == {"labeled"}
    assert {path.name[:5] for path in first.query.paths} == {"1_001", "1_002", "2_002"}


def test_the_images_of_a_classic_test_set_are_extracted_once(ptlreid, sources, market_folder):
    assert ptlreid("prepare", "cuhk03", "--source", sources["cuhk03"])[0] == 0
    train = ("--data", market_folder, "--name", "run", "--batch-size", 8, *TRAIN)
    code, _, err = ptlreid("finetune", *train)
    assert code == 0, err
    code, out, err = ptlreid("evaluate", "--run", "run", "--data", "cuhk03:classic", "--json")
    assert code == 0, err
    assert json.loads(out)["protocol"] == "cuhk03-classic"
    assert [file.name for file in Path("runs/run/features").glob("cuhk03*.h5")] == ["cuhk03-classic.query.last.h5"]


def test_a_mat_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "cuhk-03.mat").write_bytes(b"MATLAB 5.0")
    with pytest.raises(DataError, match="cannot be read as CUHK03"):
        make("cuhk03", tmp_path / "cuhk-03.mat", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_the_other_version_of_msmt17_is_named(sources, tmp_path):
    with pytest.raises(DataError, match=r"is MSMT17 V1, not V2\. Use the name msmt17:v1"):
        make("msmt17:v2", sources["msmt17"], tmp_path / "data")


def test_an_image_that_a_list_names_must_be_there(sources, tmp_path):
    victim = sources["msmt17"] / "MSMT17_V1" / "test" / "0001" / "0001_002_04_0113afternoon_0010_2.jpg"
    victim.unlink()
    with pytest.raises(DataError, match=f"{victim.name}: is listed but does not exist"):
        make("msmt17", sources["msmt17"], tmp_path / "data")
    assert not (tmp_path / "data" / "msmt17-v1").exists()


def damage(folder: Path) -> dict[str, Path]:
    """A file of each kind of fault in a folder in Market-1501's layout, by kind."""
    train = sorted((folder / "bounding_box_train").iterdir())
    train[0].write_bytes(train[0].read_bytes()[:200])
    train[1].write_bytes(b"no image")
    train[2].write_bytes(b"")
    odd = train[3].rename(train[3].with_name("photo.jpg"))
    return {"truncated": train[0], "undecodable": train[1], "empty": train[2], "name": odd}


@pytest.mark.parametrize("archived", [False, True])
def test_every_fault_of_a_source_is_listed_at_once_and_nothing_is_prepared(ptlreid, tmp_path, archived):
    top = tmp_path / "download" / "Market"
    miniatures.write_market(top)
    faults = damage(top)
    source = pack(top, tmp_path / "Market.zip") if archived else top
    code, out, err = ptlreid("prepare", "market", "--source", source, "--json")
    assert code == 1
    assert f"error: {source}: 4 faults." in err
    expected = {kind: source / "Market" / file.relative_to(top) if archived else file for kind, file in faults.items()}
    assert {one["kind"]: Path(one["file"]) for one in json.loads(out)["findings"]} == expected
    assert all(f"  {file}: " in err for file in expected.values())
    assert list((tmp_path / "data").iterdir()) == []


def test_a_missing_and_an_undecodable_image_of_a_list_are_faults_of_one_run(sources, tmp_path):
    images = sorted((sources["msmt17"] / "MSMT17_V1" / "train").rglob("*.jpg"))
    images[0].unlink()
    images[4].write_bytes(b"no image")
    with pytest.raises(FaultsError) as caught:
        make("msmt17", sources["msmt17"], tmp_path / "data")
    assert {(fault.kind, fault.file) for fault in caught.value.faults} == {
        ("missing", images[0]),
        ("undecodable", images[4]),
    }


def test_a_long_list_of_faults_is_cut_in_the_message_but_not_in_the_error():
    error = FaultsError(Path("a.zip"), [reader.Fault("empty", Path(f"{n}.jpg"), "is empty", "Go.") for n in range(25)])
    lines = str(error).splitlines()
    assert lines[0].startswith("a.zip: 25 faults.")
    assert lines[20:] == ["  19.jpg: is empty. Go.", "  ... and 5 more"]
    assert len(error.faults) == 25


def test_what_is_left_out_of_a_public_dataset_is_counted_and_named(ptlreid, tmp_path):
    top = tmp_path / "in"
    miniatures.write_market(top)
    write_image(top / "query" / "deeper" / "0005_c1s1_000009_00.jpg", 1)
    write_image(top / "bounding_box_train" / "-1_c1s1_000001_00.jpg", 2)
    (top / "query" / "0005_c1s1_000008_00.gif").write_bytes(b"GIF89a")
    code, out, err = ptlreid("prepare", "market", "--source", top, "--check")
    assert "left out: 2 files, such as bounding_box_train/-1_c1s1_000001_00.jpg: is in no part of the dataset" in err
    assert "left out: 1 file, query/0005_c1s1_000008_00.gif: has the suffix .gif" in err
    assert "minor, left-out: data/market: 2 files left out by `ptlreid prepare`: each is in no part" in out
    listed = Path("data/market/left_out.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in listed[1:]] == [
        "query/0005_c1s1_000008_00.gif",
        "bounding_box_train/-1_c1s1_000001_00.jpg",
        "query/deeper/0005_c1s1_000009_00.jpg",
    ]
    assert code == 1, "the counts are not the published ones"


KILLED = """
import sys, time
from pathlib import Path
from ptlreid import contents, datasets
from ptlreid.datasets import {module} as slow
from ptlreid.progress import Silent
from ptlreid.workflows.prepare import prepare
function = slow.{function}
def wait(*arguments):
    function(*arguments)
    time.sleep(0.02)
slow.{function} = wait
root = Path(sys.argv[2])
prepare(datasets.find({name!r}, root), Path(sys.argv[1]), root, None, Silent())
"""


@pytest.mark.parametrize(
    ("name", "module", "function", "below"),
    [
        ("market", "reader", "link_or_copy", "dataset/bounding_box_train/*.jpg"),
        ("market", "_unpack", "_write", "unpacked/*/*/*.jpg"),
        ("cuhk03", "_cuhk03_mat", "_write_image", "dataset/*/*.png"),
    ],
)
def test_a_killed_prepare_resumes(sources, tmp_path, name, module, function, below):
    root = tmp_path / "data"
    folder = datasets.find(name).folders(root)[0]
    code = KILLED.format(name=name, module=module, function=function)
    process = subprocess.Popen([sys.executable, "-c", code, str(sources[name]), str(root)])
    for _ in range(1000):
        if len(list(unfinished_folder(folder).glob(below))) >= 5:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = {path: path.stat().st_ino for path in unfinished_folder(folder).glob(below)}
    assert len(before) >= 5
    with pytest.raises(DataError, match="is incomplete: preparing it"):
        datasets.load(name, root)

    kept: list[bool] = []
    rename = Path.rename

    def watched(path: Path, target: Path) -> Path:
        if target == folder:
            kept.extend(one.stat().st_ino == inode for one, inode in before.items())
        return rename(path, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", watched)
        assert make(name, sources[name], root) is True
    assert all(kept)
    assert len(kept) == len(before)
    assert len(datasets.load(name, root).train) > 0
    assert not unfinished_folder(folder).exists()


def test_two_at_once_make_one_dataset_and_do_no_harm(market_zip, tmp_path, monkeypatch):
    link_or_copy = reader.link_or_copy

    def slow(*arguments: Path) -> None:
        link_or_copy(*arguments)
        time.sleep(0.01)

    monkeypatch.setattr(reader, "link_or_copy", slow)
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda _: make("market", market_zip, tmp_path / "data"), range(2)))
    assert sorted(made) == [False, True]
    splits = datasets.load("market", tmp_path / "data")
    assert [len(part) for part in splits.parts] == [16, 6, 8]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["market"]


def test_two_that_render_at_once_make_one_site(tmp_path, monkeypatch):
    settings = SyntheticSettings(identities=4, cameras=2, images_per_camera=2, height=64, width=32)
    rendered: list[Path] = []
    render = synthetic._render

    def watched(folder: Path, *rest: object) -> None:
        rendered.append(folder)
        render(folder, *rest)

    monkeypatch.setattr(synthetic, "_render", watched)
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda _: synthetic.prepare(tmp_path / "data" / "site", "a", settings), range(2)))
    assert sorted(made) == [False, True]
    assert len(rendered) == 1
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["site"]


def test_what_was_begun_from_another_source_is_not_resumed(market_zip, tmp_path):
    part = unfinished_folder(tmp_path / "data" / "market")
    write_image(part / "dataset" / "query" / "0099_c1s1_000001_00.jpg", 5)
    (part / "made_of.json").write_text('{"data": "market", "source": "elsewhere", "digest": "0"}')
    make("market", market_zip, tmp_path / "data")
    assert len(datasets.load("market", tmp_path / "data").query) == 6


@pytest.mark.parametrize("kind", [OSError(28, "No space left on device"), RuntimeError("a bug")])
def test_after_an_error_nothing_is_left(market_zip, tmp_path, monkeypatch, kind):
    def fail(*_: object) -> None:
        raise kind

    monkeypatch.setattr(shutil, "copyfile", fail)
    monkeypatch.setattr(os, "link", lambda *_: shutil.copyfile())
    expected = PtlreidError if isinstance(kind, OSError) else type(kind)
    with pytest.raises(expected) as caught:
        make("market", market_zip, tmp_path / "data")
    assert "No space left on device" in str(caught.value) or not isinstance(kind, OSError)
    assert list((tmp_path / "data").iterdir()) == []


def test_after_ctrl_c_the_same_command_resumes(market_zip, tmp_path, monkeypatch):
    links, link = [], os.link

    def stop_at_the_third(*paths: str) -> None:
        if len(links) == 2:
            raise KeyboardInterrupt
        links.append(paths)
        link(*paths)

    monkeypatch.setattr(os, "link", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        make("market", market_zip, tmp_path / "data")
    kept = sorted(unfinished_folder(tmp_path / "data" / "market").glob("dataset/*/*.jpg"))
    assert len(kept) == 2
    monkeypatch.setattr(os, "link", link)
    numbers = [path.stat().st_ino for path in kept]
    make("market", market_zip, tmp_path / "data")
    made = [next((tmp_path / "data" / "market").glob(f"*/{path.name}")) for path in kept]
    assert [path.stat().st_ino for path in made] == numbers
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["market"]


def test_a_page_saved_as_an_archive_is_named_and_nothing_is_left(ptlreid, tmp_path):
    (tmp_path / "page.zip").write_bytes(b"<!DOCTYPE html><html><body>Log in first</body></html>")
    code, _, err = ptlreid("prepare", "market", "--source", "page.zip", "--root", "data")
    assert code == 1
    assert "page.zip: not an archive that can be unpacked: it is an HTML page" in " ".join(err.split())
    assert list((tmp_path / "data").iterdir()) == []


def test_an_incomplete_file_of_a_killed_prepare_is_replaced(market_zip, tmp_path):
    """As a power cut leaves it: under its final name, but without its content."""
    make("market", market_zip, tmp_path / "first")
    part = unfinished_folder(tmp_path / "data" / "market")
    expected = next((tmp_path / "first" / "market").glob("query/*.jpg"))
    (part / "dataset" / "query").mkdir(parents=True)
    (part / "dataset" / "query" / expected.name).write_bytes(b"")
    origin = json.loads((tmp_path / "first" / "market" / "prepared.json").read_text())
    (part / "made_of.json").write_text(json.dumps(origin))
    make("market", market_zip, tmp_path / "data")
    assert (tmp_path / "data" / "market" / "query" / expected.name).read_bytes() == expected.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("market", "--source", "nowhere"), "nowhere: does not exist"),
        (("market", "--source", "."), ".: no bounding_box_train, query, bounding_box_test in it"),
        (("synthetic-a", "--source", "."), "is not made from a --source"),
        (("market", "--source", ".", "--identities", 5), "--identities does not apply to market"),
        (("synthetic-a", "--name", "x"), "--name does not apply to synthetic-a"),
        (("folder", "--name", "x"), "Images of your own need --source"),
        (("folder", "--source", ".", "--name", "duke"), "'duke' cannot be the name of your images"),
        (("folder", "--source", ".", "--name", "a+b"), "The name 'a+b' has other characters than A-Z"),
        (("msmt17", "--variant", "v3"), "Unknown variant of msmt17 'v3'"),
        (("market", "--check"), "Market-1501 was not found"),
        (("duke",), "withdrew it in 2019"),
    ],
)
def test_a_mistake_in_prepare_is_one_clear_message(ptlreid, arguments, message):
    code, out, err = ptlreid("prepare", *arguments)
    assert (code, out) == (1, "")
    assert message in err
    assert err.startswith("error: ")


def test_preparing_and_checking_import_no_torch(market_zip, tmp_path):
    more = ["prepare", "market", "--source", str(market_zip), "--root", str(tmp_path / "data"), "--check", "--json"]
    script = (
        f"import sys; sys.argv += {more}; from ptlreid.cli import app; app(standalone_mode=False); print(*sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "h5py" not in run.stdout.split()
    assert not {"torch", "torchvision", "matplotlib", "sklearn"} & set(run.stdout.split())


def test_the_list_states_each_source_and_all_facts_as_json(ptlreid):
    code, out, _ = ptlreid("prepare", "--list")
    assert code == 0
    assert "MSMT17: https://www.pkuvmc.com/dataset.html" in out
    assert "DukeMTMC-reID: no page: its authors withdrew it in 2019" in out
    facts = {name: one for one in json.loads(ptlreid("prepare", "--list", "--json")[1]) for name in one["names"]}
    assert set(facts) == set(datasets.names())
    assert facts["market1501"]["counts"][""]["train_images"] == 12936
    assert all(one["citation"] and one["licence"] for one in facts.values())


def test_the_split_that_comes_with_the_package_has_the_published_counts():
    rows = cuhk03.read_new_split()
    for labelling in ("labeled", "detected"):
        found = count_rows(rows, labelling)
        assert found == dict(cuhk03.INFO.counts[labelling])
    assert all(row["camid"] == row["file"].split("_")[2] for row in rows)
