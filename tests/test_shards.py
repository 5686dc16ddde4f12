"""Folders of shards: written by any number of processes, and read back or refused."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_network, write_image
from shard_folders import make_shards, random_features

import ptlreid as package
from ptlreid import contents
from ptlreid.cache import partial
from ptlreid.errors import DataError
from ptlreid.features import Extractor
from ptlreid.json_files import write_json
from ptlreid.models import weights
from ptlreid.network_types import NetworkSpec
from ptlreid.retrieval import feature_files
from ptlreid.retrieval.shard_files import Columns, read_columns, write_shard
from ptlreid.retrieval.shards import Shards, is_shard_folder, manifest_file, read_manifest
from ptlreid.workflows import embed_shards

IMAGES, ROWS = 23, 5  # in shards of 5, 5, 5, 5 and 3


@pytest.fixture
def crops(tmp_path, run) -> list[str]:
    """`crops`: images of two identities by two cameras, all with names."""
    paths = [f"crops/{'ab'[number % 2]}/{'yard' if number % 3 else 'door'}/{number}.jpg" for number in range(IMAGES)]
    for number, path in enumerate(paths):
        write_image(tmp_path / path, 500 + number)
    return sorted(paths)


@pytest.fixture
def embed(ptlreid, crops):
    """Runs `ptlreid embed ... --run tiny`; returns exit code, document and standard error."""

    def embed_with(*arguments: object, rows: int = ROWS):
        layout = () if {"--layout", "--root"} & set(arguments) else ("--layout", "identity/camera")
        given = (*arguments, "--run", "tiny", "--batch-size", 1, *layout)
        code, out, err = ptlreid("embed", *given, "--shards", rows, "--device", "cpu", "--workers", 0, "--json")
        return code, json.loads(out) if code == 0 else None, err

    return embed_with


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != ".contents.npz"}


EXPECTED = [*(f"{number:05d}.{suffix}" for number in range(5) for suffix in ("npy", "npz")), "manifest.json"]


def test_shards_hold_the_features_labels_and_paths_of_one_file(embed, ptlreid, crops):
    code, document, err = embed("crops", "--out", "shards")
    assert code == 0, err
    (found,) = document["files"]
    assert (found["files"], found["shards"], found["images"], found["width"]) == (["shards"], 5, IMAGES, 32)
    assert [len(np.load(f"shards/0000{number}.npy")) for number in range(5)] == [5, 5, 5, 5, 3]
    given = ("--layout", "identity/camera", "--device", "cpu", "--batch-size", 1)
    code, _, err = ptlreid("embed", "crops", "--out", "one.h5", "--run", "tiny", *given)
    assert code == 0, err
    one, several = feature_files.read_in_place(Path("one.h5")), feature_files.read_in_place(Path("shards"))
    np.testing.assert_array_equal(several.features.matrix, one.features.matrix)
    for name in ("pids", "camids"):
        np.testing.assert_array_equal(getattr(several.features, name), getattr(one.features, name))
    assert several.features.paths.tolist() == crops
    assert several.names["cameras"][0] == "door"
    assert {name: column.tolist() for name, column in several.names.items()} == {
        name: column.tolist() for name, column in one.names.items()
    }
    for name in ("weights", "network", "readout", "view", "dtype"):
        assert several.attributes[name] == one.attributes[name]


def test_paths_are_kept_byte_for_byte(tmp_path):
    """Two that are not UTF-8 and would be another character one behind the other; a line end; nothing."""
    names = [os.fsdecode(name) for name in (b"a/\xc3", b"\xa9.jpg", "ü\n.jpg".encode(), b"")]
    zeros, paths = np.zeros(4, dtype=np.int64), np.array(names, dtype=object)
    write_shard(tmp_path, 7, np.zeros((4, 2), dtype=np.float32), Columns(zeros, zeros, paths, None, {}))
    assert read_columns(tmp_path, 7, rows=4, wanted=("paths",)).paths.tolist() == names


def test_float16_is_stored_as_it_is_and_options_reach_the_features(embed):
    assert embed("crops", "--out", "shards", "--dtype", "float16", "--normalize")[0] == 0
    assert np.load("shards/00000.npy").dtype == np.float16
    features = package.read_features("shards")
    np.testing.assert_allclose(np.linalg.norm(features.matrix, axis=1), 1, atol=1e-3)


def test_the_second_time_nothing_is_extracted(embed, monkeypatch):
    _, first, _ = embed("crops", "--out", "shards")
    before = files_of(Path("shards"))
    monkeypatch.setattr(Extractor, "stream", lambda *_, **__: pytest.fail("an image is decoded"))
    code, second, _ = embed("crops", "--out", "shards")
    assert (code, second, files_of(Path("shards"))) == (0, first, before)


def test_an_interrupted_shard_resumes(embed, monkeypatch):
    embed("crops", "--out", "expected")
    monkeypatch.setattr(partial, "BLOCK_ROWS", 2)
    forward, calls = Extractor._forward, []

    def stop(self, images, cameras=None):
        calls.append(len(images))
        if len(calls) == 9:
            raise KeyboardInterrupt
        return forward(self, images, cameras)

    with monkeypatch.context() as context:
        context.setattr(Extractor, "_forward", stop)
        assert embed("crops", "--out", "shards")[0] == 130
    assert [one["number"] for one in read_manifest(Path("shards"))["shards"]] == [0]
    code, _, err = embed("crops", "--out", "shards")
    assert code == 0
    assert "00001.npy: resuming at 2/5" in err
    assert files_of(Path("shards")) == files_of(Path("expected"))


def embed_slowly(seconds: float) -> None:
    """`ptlreid embed --shards` in its own process, which needs so long for each image."""
    import conftest  # noqa: F401 - registers the tiny backbones in this process

    partial.BLOCK_ROWS, embed_shards._POLL_SECONDS = 1, 0.02
    forward = Extractor._forward
    Extractor._forward = lambda *given: time.sleep(seconds) or forward(*given)
    settings = {"layout": "identity/camera", "device": "cpu", "workers": 0, "batch_size": 1, "shards": ROWS}
    document = package.embed("crops", "tiny", "shards", **settings)
    assert document["files"][0]["images"] == IMAGES


def test_three_processes_of_which_some_are_killed_write_the_shards_of_one(embed):
    """At random moments: no image is lost or there twice, and nothing else is left."""
    embed("crops", "--out", "expected")
    expected = files_of(Path("expected"))
    assert sorted(expected) == EXPECTED
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["conftest", "ptlreid.workflows.embed_shards", "ptlreid.images"])
    chance, folder = random.Random(0), Path("shards")

    def start(seconds: float) -> multiprocessing.process.BaseProcess:
        process = context.Process(target=embed_slowly, args=(seconds,))
        process.start()
        return process

    processes = [start(0.05) for _ in range(3)]
    while not is_shard_folder(folder):
        time.sleep(0.01)
    for process in processes[:2]:
        time.sleep(chance.uniform(0.1, 0.5))
        process.kill()
    processes.append(start(0))
    for process in processes:
        process.join(100)
    assert [process.exitcode for process in processes] == [-signal.SIGKILL] * 2 + [0, 0]
    assert files_of(folder) == expected


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A folder of three shards of made-up features, of four rows each but the last, of two."""
    return make_shards(tmp_path_factory.mktemp("shards") / "s", random_features(0, 10), rows=4)


@pytest.fixture
def copy(written, tmp_path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "copy"))


def swap(folder: Path, suffix: str) -> None:
    first, second = (folder / f"0000{number}.{suffix}" for number in (0, 1))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "00001.npy").unlink(), "00001.npy: cannot be read (No such file or directory)"),
        (lambda folder: (folder / "00002.npz").unlink(), "00002.npz: no such file"),
        (lambda folder: os.truncate(folder / "00001.npy", 150), "00001.npy: has 150 bytes, expected 208: it was cut"),
        (lambda folder: os.truncate(folder / "00001.npy", 9), "00001.npy: is no .npy file"),
        (lambda folder: (folder / "00002.npy").write_bytes(b""), "00002.npy: is no .npy file"),
        (lambda folder: swap(folder, "npy"), "00000.npy: changed since it was written"),
        (lambda folder: swap(folder, "npz"), "00000.npz: changed since it was written"),
        (lambda folder: flip_a_bit(folder / "00002.npy"), "00002.npy: changed since it was written"),
        (lambda folder: flip_a_bit(folder / "00002.npz"), "00002.npz: changed since it was written"),
        (
            lambda folder: shutil.copy(folder / "00000.npy", folder / "00002.npy"),
            "holds (4, 5) float32, expected (2, 5)",
        ),
    ],
)
def test_a_missing_cut_swapped_or_edited_shard_is_named(copy, damage, message):
    feature_files.read(copy)
    damage(copy)
    with pytest.raises(DataError) as raised:
        feature_files.read(copy)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("schema", 2, "schema = 2"),
        ("width", 6, "holds (4, 5) float32, expected (4, 6)"),
        ("dtype", "float16", "expected (4, 5) float16"),
        ("rows_per_shard", 2, "2 of 5 shards are not extracted yet, the first of them 3"),
        ("shards", [], "3 of 3 shards are not extracted yet, the first of them 0"),
        ("more", 1, "more is no key of this file"),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(copy, key, value, message):
    write_json(manifest_file(copy), {**read_manifest(copy), key: value})
    with pytest.raises(DataError) as raised:
        feature_files.read(copy)
    assert message in str(raised.value)


def test_an_edited_manifest_and_one_with_a_shard_twice_are_refused(copy):
    manifest = read_manifest(copy)
    manifest["shards"].append(manifest["shards"][0])
    write_json(manifest_file(copy), manifest)
    with pytest.raises(DataError, match="expected ascending numbers"):
        read_manifest(copy)
    manifest_file(copy).write_text(manifest_file(copy).read_text().replace("float32", "float16"))
    with pytest.raises(DataError, match="changed since it was written"):
        read_manifest(copy)


def test_the_digests_are_computed_once(copy, monkeypatch):
    monkeypatch.setattr(contents, "MARGIN_NS", -(10**12))  # files that are newer than two seconds are not indexed
    Shards.open(copy)
    contents._indexes.clear()
    monkeypatch.setattr(contents, "_digest", lambda *_: pytest.fail("a file is read"))
    assert len(Shards.open(copy)) == 10


def test_blocks_are_in_order_and_end_with_their_shard(written):
    shards, features = Shards.open(written), feature_files.read(written)
    blocks = [one for index in range(3) for one in shards.read_blocks(index, 3)]
    assert [(first, len(block)) for first, block in blocks] == [(0, 3), (3, 1), (0, 3), (3, 1), (0, 2)]
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), features.matrix)
    assert shards.find_paths(np.array([9, 0, 4])) == {row: features.paths[row] for row in (0, 4, 9)}


def test_features_that_do_not_fit_into_memory_are_refused(written, monkeypatch):
    monkeypatch.setattr("ptlreid.retrieval.shards.free_memory_bytes", lambda: 100)
    with pytest.raises(DataError, match="its features take"):
        feature_files.read(written)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dtype", "float16"], "other dtype (float32, not float16)"),
        (["--flip"], "other readout ("),
        (["--shards", 4], "other rows a shard (5, not 4)"),
        (["--glob"], "other images, labels or cameras ("),
        (["--weights"], "other weights ("),
    ],
)
def test_other_options_images_or_weights_are_refused_and_nothing_is_changed(embed, crops, run, arguments, message):
    assert embed("crops", "--out", "shards")[0] == 0
    before = files_of(Path("shards"))
    if arguments == ["--glob"]:
        Path(crops[0]).rename(crops[0].replace("a/", "b/"))
        arguments = []
    if arguments == ["--weights"]:
        weights.save(tiny_network("mean", classes=4), NetworkSpec("tiny", True, "mean", 4, 64, 32), run.weights())
        arguments = []
    rows = arguments[1] if "--shards" in arguments else ROWS
    code, _, err = embed("crops", "--out", "shards", *(() if "--shards" in arguments else arguments), rows=rows)
    assert (code, files_of(Path("shards"))) == (1, before)
    assert f"shards: holds shards with {message}" in err


def test_an_image_that_changed_is_noticed_on_request(embed, crops):
    assert embed("crops", "--out", "shards")[0] == 0
    assert embed("crops", "--out", "shards", "--verify")[0] == 0
    write_image(Path(crops[7]), 999)
    code, _, err = embed("crops", "--out", "shards", "--verify")
    assert code == 1
    assert f"00001.npy: its images changed since they were extracted, from {crops[5]} to {crops[9]}" in err


def test_a_damaged_shard_is_extracted_again(embed):
    embed("crops", "--out", "shards")
    before = files_of(Path("shards"))
    Path("shards/00000.npy").unlink()
    os.truncate("shards/00003.npy", 150)
    code, _, err = embed("crops", "--out", "shards")
    assert (code, files_of(Path("shards"))) == (0, before)
    assert ("extracting shard 0 again" in err, "extracting shard 3 again" in err) == (True, True)
    flip_a_bit(Path("shards/00001.npz"))
    code, _, err = embed("crops", "--out", "shards", "--verify")
    assert (code, files_of(Path("shards"))) == (0, before)
    assert "extracting shard 1 again" in err


def test_images_that_cannot_be_read_are_named_or_skipped(embed, crops):
    for row in (1, 7):
        Path(crops[row]).write_text("not an image")
    code, _, err = embed("crops", "--out", "shards")
    assert (code, "crops: 1 of 5 images cannot be read" in err, crops[1] in err) == (1, True, True)
    code, document, err = embed("crops", "--out", "shards", "--skip-bad")
    assert code == 0, err
    assert [one["path"] for one in document["files"][0]["skipped"]] == [crops[1], crops[7]]
    features = feature_files.read(Path("shards"))
    assert features.paths.tolist() == [path for row, path in enumerate(crops) if row not in (1, 7)]
    assert embed("crops", "--out", "shards", "--skip-bad", "--verify")[1] == document


def test_a_shard_without_an_image_that_can_be_read_is_empty(embed, ptlreid, crops):
    for row in range(10, 15):  # shard 2
        Path(crops[row]).write_text("not an image")
    Path(crops[22]).write_text("not an image")  # shard 11 of two rows each
    for out, rows in (("shards", ROWS), ("small", 2)):
        code, document, err = embed("crops", "--out", out, "--skip-bad", rows=rows)
        assert code == 0, err
        assert document["files"][0]["images"] == IMAGES - 6
        assert embed("crops", "--out", out, "--skip-bad", "--verify", rows=rows)[1] == document
        left = [path for row, path in enumerate(crops) if not 10 <= row < 15 and row != 22]
        assert feature_files.read(Path(out)).paths.tolist() == left
        code, found, err = ptlreid("search", crops[0], "--run", "tiny", "--gallery", out, "--device", "cpu", "--json")
        assert code == 0, err
        assert json.loads(found)["queries"][0]["hits"][0]["path"] == crops[0]


def test_counts_are_of_the_images_that_are_left(embed, crops):
    for path in crops:
        if "/b/" in path or "/door/" in path:
            Path(path).write_text("not an image")
    _, document, _ = embed("crops", "--out", "shards", "--skip-bad")
    _, whole, _ = embed("crops", "--out", "one", "--skip-bad", rows=100)
    for found in (document["files"][0], whole["files"][0]):
        assert (found["identities"], found["cameras"]) == (1, 1)
    for path in crops:
        Path(path).write_text("not an image")
    code, _, err = embed("crops", "--out", "none", "--skip-bad")
    assert (code, f"crops: none of its {IMAGES} images can be read" in err) == (1, True), err


@pytest.mark.parametrize(
    ("source", "out", "message"),
    [
        ("crops", "f.h5", "--out f.h5 with --shards: is a file, expected a folder"),
        ("market", "shards", "--shards: market has 3 parts, expected one"),
        ("crops", "crops", "manifest.json: is of another program"),
    ],
)
def test_what_cannot_be_done_is_one_message(embed, market_folder, source, out, message):
    Path("crops/manifest.json").write_text("{}")
    given = ["--root", market_folder.parent] if source == "market" else ["--layout", "files"]
    code, _, err = embed(source, "--out", out, *given)
    assert code == 1
    assert message in err
