"""`ptlreid embed`, as a user meets it: the features of any images, in files that other programs read."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import write_image

import ptlreid as package
from ptlreid import datasets
from ptlreid.adapt.camera_pass import collect_cameras
from ptlreid.cache import partial
from ptlreid.features import Extractor
from ptlreid.models.camera_statistics import save_cameras
from ptlreid.runs import RunFolder
from ptlreid.settings import EvaluateSettings


@pytest.fixture
def embed(ptlreid, run, market_folder):
    """Runs `ptlreid embed ... --run tiny --json`; returns its document and standard error."""

    def embed_with(*arguments: object):
        root = market_folder.parent
        code, out, err = ptlreid("embed", *arguments, "--run", "tiny", "--root", root, "--device", "cpu", "--json")
        assert code == 0, err
        return json.loads(out), err

    return embed_with


@pytest.fixture
def crops(tmp_path) -> list[Path]:
    """`crops`: seven images without labels, in two folders."""
    paths = [Path("crops") / f"{'ab'[number % 2]}/{number}.jpg" for number in range(7)]
    for number, path in enumerate(paths):
        write_image(tmp_path / path, 300 + number)
    return sorted(paths)


def matrix_of(file: Path) -> np.ndarray:
    with h5py.File(file) as content:
        return content["features"][:]


def one_by_one(run: RunFolder, paths: list[Path], **settings: object) -> np.ndarray:
    """The features of each image by itself."""
    extractor = package.load_extractor(run, device="cpu", **settings)
    return np.concatenate([extractor.extract([path]).matrix for path in paths])


def test_a_part_of_a_dataset_has_the_features_of_evaluate_to_the_last_bit(ptlreid, embed, run, market_folder, tmp_path):
    embed("market", "--part", "gallery", "--out", "gallery.h5")
    shutil.rmtree(run.features)
    code, _, err = ptlreid("evaluate", "--run", "tiny", "--root", market_folder.parent, "--device", "cpu")
    assert code == 0, err
    with h5py.File("gallery.h5") as ours, h5py.File(run.features / "market.gallery.last.h5") as theirs:
        for name in ("features", "pids", "camids", "paths"):
            np.testing.assert_array_equal(ours[name][:], theirs[name][:])
            assert ours[name].dtype == theirs[name].dtype
        assert dict(ours.attrs) == {name: value for name, value in theirs.attrs.items() if name != "folder"}


def test_all_parts_of_a_dataset_go_into_a_folder(embed):
    found, _ = embed("market", "--out", "parts")
    assert [one["files"] for one in found["files"]] == [
        [f"parts/market.{part}.h5"] for part in ("train", "query", "gallery")
    ]
    assert [one["images"] for one in found["files"]] == [16, 6, 8]


def test_any_folder_is_embedded_in_order_of_its_paths(embed, run, crops):
    found, err = embed("crops", "--out", "f.h5")
    assert "crops: 7 images, read as identity" in err
    (one,) = found["files"]
    assert (one["images"], one["width"], one["skipped"]) == (7, 32, [])
    np.testing.assert_allclose(matrix_of(Path("f.h5")), one_by_one(run, crops), rtol=1e-4, atol=1e-5)
    features = package.read_features("f.h5")
    assert features.paths.tolist() == list(map(str, crops))
    with h5py.File("f.h5") as content:
        assert content["identities"].asstr()[:].tolist() == list("aaaabbb")


def test_options_reach_the_features(embed, run, crops):
    embed("crops", "--out", "f.npz", "--flip", "--normalize", "--dtype", "float16")
    with np.load("f.npz") as content:
        assert content["features"].dtype == np.float16
        expected = one_by_one(run, crops, flip=True, normalize=True)
        np.testing.assert_allclose(content["features"], expected, atol=1e-3)
        np.testing.assert_allclose(np.linalg.norm(content["features"].astype(float), axis=1), 1, atol=1e-3)


def test_a_list_single_files_and_standard_input_give_the_same_rows(embed, crops, tmp_path, monkeypatch):
    names = [str(crops[row]) for row in (3, 0, 3, 5)]
    (tmp_path / "mine.txt").write_text("\n".join(names))
    stream = io.TextIOWrapper(io.BytesIO("\n".join(names).encode()))
    monkeypatch.setattr("sys.stdin", stream)
    embed("crops", "--out", "all.npy")
    embed("mine.txt", "--out", "list.npy")
    embed("-", "--out", "stdin.npy")
    embed(*names, "--out", "files.npy")
    expected = np.load("all.npy")[[3, 0, 3, 5]]
    for name in ("list", "stdin", "files"):
        np.testing.assert_allclose(np.load(f"{name}.npy"), expected, rtol=1e-4, atol=1e-5)
        rows = list(csv.DictReader(Path(f"{name}.csv").read_text().splitlines()))
        assert [row["path"] for row in rows] == names


def forbid_work(monkeypatch) -> None:
    def refuse(*_: object, **__: object):
        raise AssertionError("an image is decoded")

    monkeypatch.setattr(Extractor, "stream", refuse)


@pytest.mark.parametrize("source", ["crops", "crops/a/0.jpg"])
def test_the_second_time_no_image_is_decoded_and_a_change_is_noticed(embed, crops, monkeypatch, source):
    embed(source, "--out", "f.h5")
    first = matrix_of(Path("f.h5"))
    with monkeypatch.context() as context:
        forbid_work(context)
        _, err = embed(source, "--out", "again.h5")
    assert "cached features, no image decoded" in err
    np.testing.assert_array_equal(matrix_of(Path("again.h5")), first)
    write_image(Path("crops/a/0.jpg"), 999)
    _, err = embed(source, "--out", "again.h5")
    assert "not used, the images changed" in err
    assert (matrix_of(Path("again.h5")) != first).any(axis=1).tolist() == [True] + [False] * (len(first) - 1)


def test_nothing_is_written_next_to_the_images(embed, crops):
    before = sorted(Path("crops").rglob("*"))
    embed("crops", "--out", "f.h5")
    assert sorted(Path("crops").rglob("*")) == before


def test_an_interrupted_extraction_resumes(ptlreid, embed, run, crops, monkeypatch):
    monkeypatch.setattr(partial, "BLOCK_ROWS", 2)
    forward = Extractor._forward
    calls = []

    def stop_after_two(self, images, cameras=None):
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return forward(self, images, cameras)

    with monkeypatch.context() as context:
        context.setattr(Extractor, "_forward", stop_after_two)
        code, _, err = ptlreid("embed", "crops", "--run", "tiny", "--out", "f.h5", "--batch-size", 2, "--device", "cpu")
    assert (code, Path("f.h5").exists()) == (130, False)
    assert "To resume: ptlreid embed crops" in err
    _, err = embed("crops", "--out", "f.h5", "--batch-size", 2)
    assert "resuming at 4/7" in err
    np.testing.assert_allclose(matrix_of(Path("f.h5")), one_by_one(run, crops), rtol=1e-4, atol=1e-5)


@pytest.fixture
def broken(crops) -> list[Path]:
    """Three of the images cannot be read: cut off, a text, empty."""
    crops[1].write_bytes(crops[1].read_bytes()[:-60])
    crops[3].write_text("not an image")
    crops[6].write_bytes(b"")
    return [crops[row] for row in (1, 3, 6)]


def test_unreadable_images_are_listed_and_refused(ptlreid, run, broken):
    code, _, err = ptlreid("embed", "crops", "--run", "tiny", "--out", "f.h5", "--device", "cpu")
    assert (code, Path("f.h5").exists()) == (1, False)
    assert "crops: 3 of 7 images cannot be read" in err
    assert [str(path) in err for path in broken] == [True] * 3


def test_unreadable_images_are_skipped_on_request_only_and_named(embed, run, crops, broken, monkeypatch):
    found, err = embed("crops", "--out", "f.h5", "--skip-bad")
    assert [one["path"] for one in found["files"][0]["skipped"]] == list(map(str, broken))
    assert f"skipped: {broken[0]}" in err
    good = [path for path in crops if path not in broken]
    assert package.read_features("f.h5").paths.tolist() == list(map(str, good))
    np.testing.assert_allclose(matrix_of(Path("f.h5")), one_by_one(run, good), rtol=1e-4, atol=1e-5)
    forbid_work(monkeypatch)
    again, _ = embed("crops", "--out", "f.h5", "--skip-bad")
    assert again == found


def test_a_missing_file_of_a_list_is_one_that_cannot_be_read(embed, ptlreid, run, crops):
    Path("mine.txt").write_text(f"{crops[0]}\ngone.jpg\n")
    code, _, err = ptlreid("embed", "mine.txt", "--run", "tiny", "--out", "f.h5", "--device", "cpu")
    assert (code, "gone.jpg: No such file" in err) == (1, True)
    found, _ = embed("mine.txt", "--out", "f.h5", "--skip-bad")
    assert found["files"][0]["images"] == 1


def test_cameras_of_a_site_have_their_statistics_and_others_those_of_the_site(embed, run, market_folder):
    """As `evaluate` reads the same images of the dataset."""
    splits = datasets.load("market", market_folder.parent)
    extractor = Extractor.from_run(run, EvaluateSettings.resolve(None, device="cpu"))
    save_cameras(collect_cameras(extractor, splits.train), run.weights())
    for path in splits.gallery.paths:
        Path("new").mkdir(exist_ok=True)
        shutil.copy(path, Path("new") / path.name)
    embed("market", "--part", "gallery", "--out", "expected.h5")
    _, err = embed("new", "--out", "site.h5", "--site", "market")
    assert "no statistics" not in err
    np.testing.assert_array_equal(matrix_of(Path("site.h5")), matrix_of(Path("expected.h5")))
    _, err = embed("new", "--out", "other.h5")
    assert "no statistics of cameras 1 of new, 2 of new: 8 of 8 images" in err
    assert "name it with --site" in err
    assert not np.allclose(matrix_of(Path("other.h5")), matrix_of(Path("expected.h5")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["crops", "--out", "f.pkl"], "f.pkl: unknown file format"),
        (["crops"], "Nothing to embed: expected SOURCE..., --run RUN or --model FILE, and --out PATH"),
        (["market", "--out", "f.h5"], "one file, but market has 3 parts"),
        (["nowhere", "--out", "f.h5"], "Unknown dataset 'nowhere'"),
        (["crops", "crops", "--part", "query", "--out", "f.h5"], "--part query with 2 sources"),
        (["market", "--part", "query", "--layout", "files", "--out", "f.h5"], "--layout: for images that are not"),
        (["crops", "--layout", "files", "--pattern", "(?P<pid>x)", "--out", "f.h5"], "layout and pattern"),
        (["crops", "--pattern", "(?P<identity>x)", "--out", "f.h5"], "has a group identity"),
        (["crops", "--run", "nobody", "--out", "f.h5"], "Unknown run 'nobody'"),
    ],
)
def test_what_cannot_be_done_is_one_message(ptlreid, run, crops, market_folder, arguments, message):
    given = arguments if "--run" in arguments else [*arguments, "--run", "tiny"]
    code, out, err = ptlreid("embed", *given, "--root", market_folder.parent, "--device", "cpu")
    assert (code, out) == (1, "")
    assert message in err


def test_the_table_names_files_and_numbers(ptlreid, run, crops):
    code, out, err = ptlreid("embed", "crops", "--run", "tiny", "--out", "f.npy", "--device", "cpu")
    assert code == 0, err
    assert out == "7 images (32-d float32, 2 identities): f.npy, f.csv\n"


def test_an_image_that_was_good_at_the_last_time_is_skipped_when_it_is_not(embed, ptlreid, run, crops):
    embed("crops", "--out", "f.h5")
    crops[2].write_bytes(crops[2].read_bytes()[:-60])
    code, _, err = ptlreid("embed", "crops", "--run", "tiny", "--out", "g.h5", "--device", "cpu")
    assert (code, "1 of 7 images cannot be read" in err) == (1, True), err
    found, _ = embed("crops", "--out", "g.h5", "--skip-bad")
    assert [one["path"] for one in found["files"][0]["skipped"]] == [str(crops[2])]
    assert matrix_of(Path("g.h5")).shape[0] == 6


def test_a_csv_of_another_program_is_not_replaced(embed, ptlreid, run, crops):
    Path("people.csv").write_text(f"path,pid,note\n{crops[0]},1,mine\n")
    code, _, err = ptlreid("embed", "people.csv", "--run", "tiny", "--out", "people.npy", "--device", "cpu")
    assert (code, "people.csv, the list of its rows, exists already" in err) == (1, True), err
    assert "mine" in Path("people.csv").read_text()
    for _ in range(2):  # one of its own is
        embed("people.csv", "--out", "new.npy")
    assert np.load("new.npy").shape[0] == 1


def test_a_dataset_with_a_dot_in_its_name_is_one(embed, ptlreid, market_folder, tmp_path):
    for number in range(12):
        write_image(tmp_path / f"people/{number // 3}/{'abc'[number % 3]}/1.jpg", 800 + number)
    given = ("--source", "people", "--layout", "identity/camera", "--root", market_folder.parent)
    code, _, err = ptlreid("prepare", "folder", *given, "--name", "lobby.v2")
    assert code == 0, err
    found, _ = embed("lobby.v2", "--part", "train", "--out", "a.h5")
    assert embed("lobby.v2", "--out", "parts")[0]["files"][0]["images"] == found["files"][0]["images"] == 6
