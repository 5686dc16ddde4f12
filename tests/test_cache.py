"""Features on disk: reused when nothing changed, never when something did."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import h5py
import numpy as np
import pytest
from conftest import write_image

from ptlreid import cache, datasets
from ptlreid.cache import partial
from ptlreid.errors import DataError
from ptlreid.features import Extractor
from ptlreid.models.weights import WeightsFile
from ptlreid.network_types import NetworkSpec, Readout
from ptlreid.progress import Silent
from ptlreid.records import Records
from ptlreid.retrieval import feature_files
from ptlreid.retrieval.types import Features
from ptlreid.views import EvalView

VIEW = EvalView(64, 32)


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Rows:
    """Stands in for a network: one row per step, other rows by each call; counts its calls and where they start."""

    def __init__(self, records: Records, *, scale: float = 1.0, stop_after: int | None = None) -> None:
        self.records, self.calls, self.starts = records, 0, []
        self.scale, self.stop_after = scale, stop_after

    def matrix(self, call: int) -> np.ndarray:
        return self.scale * np.random.default_rng(call).normal(size=(len(self.records), 5)).astype(np.float32)

    def __call__(self, start: int) -> Iterator[np.ndarray]:
        self.calls += 1
        self.starts.append(start)
        for row in range(start, len(self.records)):
            if row == self.stop_after:
                raise KeyboardInterrupt
            yield self.matrix(self.calls)[row : row + 1]


class WithRows(Extractor):
    """The extractor `like`, whose features come from `rows`."""

    def __init__(self, like: Extractor, rows: Rows) -> None:
        super().__init__(like.model, like.readout, like.view, "cpu", 64, None)
        object.__setattr__(self, "rows", rows)

    def stream(self, paths, *, start=0, progress=None):
        return self.rows(start)


def load(file, extractor, records, rows, *, dtype="float32", progress=None) -> Features:
    fed = WithRows(extractor, rows)
    return cache.load_or_extract(file, fed, records, dtype=dtype, progress=progress or Silent())


@pytest.fixture
def gallery(market_folder, tmp_path) -> Records:
    shutil.copytree(market_folder, tmp_path / "market")
    return datasets.load("market", tmp_path).gallery


@pytest.fixture
def source(tmp_path) -> Extractor:
    spec = NetworkSpec("resnet18", True, "slot", 3, 64, 32)
    weights = WeightsFile(tmp_path / "w.safetensors", spec, Readout(), digest="abc")
    return Extractor(weights, Readout(), VIEW, "cpu", 64, None)


def test_the_second_time_nothing_is_extracted(tmp_path, gallery, source):
    extract, notes = Rows(gallery), Notes()
    first = load(tmp_path / "f.h5", source, gallery, extract, progress=notes)
    second = load(tmp_path / "f.h5", source, gallery, extract, progress=notes)
    assert extract.calls == 1
    assert notes.notes == ["f.h5: 8 cached features, no image decoded"]
    for field in dataclasses.fields(Features):
        assert np.array_equal(getattr(first, field.name), getattr(second, field.name)), field.name


def test_the_layout_is_the_documented_one(tmp_path, gallery, source):
    features = load(tmp_path / "f.h5", source, gallery, Rows(gallery))
    with h5py.File(tmp_path / "f.h5") as content:
        assert content["features"].dtype == np.float32
        assert np.array_equal(content["features"], features.matrix)
        assert content["pids"][:].tolist() == gallery.pids.tolist()
        assert content["camids"][:].tolist() == gallery.camids.tolist()
        assert content["paths"].asstr()[:].tolist() == [str(path) for path in gallery.paths]


def test_moving_the_images_is_no_change(tmp_path, gallery, source):
    extract = Rows(gallery)
    load(tmp_path / "f.h5", source, gallery, extract)
    (tmp_path / "market").rename(tmp_path / "elsewhere")
    moved = datasets.load(str(tmp_path / "elsewhere"), tmp_path).gallery
    load(tmp_path / "f.h5", source, moved, extract)
    assert extract.calls == 1


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("weights", "the weights"),
        ("network", "the network"),
        ("readout", "the readout"),
        ("view", "the view"),
        ("images", "the images"),
        ("labels", "the identities, cameras or clothes"),
        ("schema", "the file's schema"),
    ],
)
def test_a_change_is_named_and_features_are_extracted_again(tmp_path, gallery, source, monkeypatch, what, words):
    extract, notes = Rows(gallery), Notes()
    load(tmp_path / "f.h5", source, gallery, extract)
    if what == "weights":
        source = dataclasses.replace(source, model=dataclasses.replace(source.model, digest="abd"))
    elif what == "network":
        spec = dataclasses.replace(source.model.spec, memory="mean")
        source = dataclasses.replace(source, model=dataclasses.replace(source.model, spec=spec))
    elif what == "readout":
        source = dataclasses.replace(source, readout=Readout(flip=True))
    elif what == "view":
        source = dataclasses.replace(source, view=EvalView(64, 64))
    elif what == "images":
        write_image(gallery.paths[3], seed=12345)
    elif what == "labels":
        gallery = dataclasses.replace(gallery, camids=gallery.camids + 1)
    else:
        monkeypatch.setattr(cache, "SCHEMA", "0")
    features = load(tmp_path / "f.h5", source, gallery, extract, progress=notes)
    assert notes.notes == [f"f.h5: not used, {words} changed; re-extracting"]
    assert extract.calls == 2
    assert np.array_equal(feature_files.read(tmp_path / "f.h5").matrix, features.matrix)


def test_datasets_in_two_folders_keep_a_file_each_and_edits_in_place_replace_it(tmp_path, gallery, source):
    shutil.copytree(tmp_path / "market", tmp_path / "b")
    second = datasets.load(str(tmp_path / "b"), tmp_path).gallery
    write_image(second.paths[3], seed=12345)
    extract = Rows(gallery)
    for records in (gallery, second, gallery, second):
        load(tmp_path / "f.h5", source, records, extract)
    assert extract.calls == 2
    assert cache.describe_status(tmp_path / "f.h5", source, gallery, "float32") == "cached"
    names = sorted(tmp_path.glob("f*.h5"))
    assert len(names) == 2
    write_image(second.paths[4], seed=12345)
    write_image(gallery.paths[4], seed=12346)
    assert cache.describe_status(tmp_path / "f.h5", source, second, "float32") == "to extract: the images changed"
    for records in (gallery, second, gallery, second):
        load(tmp_path / "f.h5", source, records, extract)
    assert extract.calls == 4
    assert sorted(tmp_path.glob("f*.h5")) == names


def test_a_file_that_does_not_name_its_folder_is_used_and_replaced(tmp_path, gallery, source):
    extract = Rows(gallery)
    load(tmp_path / "f.h5", source, gallery, extract)
    with h5py.File(tmp_path / "f.h5", "a") as content:
        del content.attrs[cache.FOLDER]
    load(tmp_path / "f.h5", source, gallery, extract)
    assert extract.calls == 1
    (tmp_path / "market").rename(tmp_path / "b")
    moved = datasets.load(str(tmp_path / "b"), tmp_path).gallery
    write_image(moved.paths[3], seed=12345)
    load(tmp_path / "f.h5", source, moved, extract)
    assert [path.name for path in tmp_path.glob("f*.h5")] == ["f.h5"]


def test_files_for_other_folders_are_bounded(tmp_path, gallery, source):
    load(tmp_path / "f.h5", source, gallery, Rows(gallery))
    (tmp_path / "f.query.h5").write_bytes(b"another name")
    for number in range(6):
        (tmp_path / "market").rename(tmp_path / str(number))
        records = datasets.load(str(tmp_path / str(number)), tmp_path).gallery
        write_image(records.paths[3], seed=100 + number)
        extract = Rows(records)
        load(tmp_path / "f.h5", source, records, extract)
        load(tmp_path / "f.h5", source, records, extract)
        assert extract.calls == 1
        (tmp_path / str(number)).rename(tmp_path / "market")
    assert len(list(tmp_path.glob("f.*.h5"))) == cache.OTHER_FOLDERS + 1
    assert (tmp_path / "f.h5").is_file()


def test_a_file_cut_short_is_never_used(tmp_path, gallery, source):
    extract = Rows(gallery)
    load(tmp_path / "f.h5", source, gallery, extract)
    whole = (tmp_path / "f.h5").read_bytes()
    for length in (0, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "f.h5").write_bytes(whole[:length])
        notes = Notes()
        calls = extract.calls
        load(tmp_path / "f.h5", source, gallery, extract, progress=notes)
        assert extract.calls == calls + 1, length
        assert notes.notes == ["f.h5: not used, the file is damaged; re-extracting"]


def test_a_file_of_nothing_but_the_first_bytes_of_strings_is_damaged(tmp_path):
    (tmp_path / "f.h5").write_bytes(b"GCOL\x01")
    assert cache.find_mismatch(tmp_path / "f.h5", {}) == "the file is damaged"


def test_features_that_were_changed_in_the_file_are_never_used(tmp_path, gallery, source):
    extract, notes = Rows(gallery), Notes()
    first = load(tmp_path / "f.h5", source, gallery, extract)
    bytes_of = (tmp_path / "f.h5").read_bytes()
    where = bytes_of.index(first.matrix[3].tobytes())
    (tmp_path / "f.h5").write_bytes(bytes_of[:where] + b"\1" + bytes_of[where + 1 :])
    load(tmp_path / "f.h5", source, gallery, extract, progress=notes)
    assert notes.notes == ["f.h5: not used, its features changed; re-extracting"]


@pytest.mark.parametrize("whole", [True, False])
def test_a_file_of_another_program_is_never_used(tmp_path, gallery, source, whole):
    with h5py.File(tmp_path / "f.h5", "w") as content:
        content["features"] = np.zeros((8, 5), dtype=np.float32)
        if whole:
            content.attrs.update(cache.fingerprint(source, gallery, "float32"))  # and no digest of the features
    notes = Notes()
    features = load(tmp_path / "f.h5", source, gallery, Rows(gallery), progress=notes)
    reason = "the file is damaged" if whole else "the file was written by another program"
    assert notes.notes == [f"f.h5: not used, {reason}; re-extracting"]
    assert features.matrix.any()


def test_an_interrupted_extraction_resumes_after_its_last_block(tmp_path, gallery, source, monkeypatch):
    monkeypatch.setattr(partial, "BLOCK_ROWS", 2)
    file, notes = tmp_path / "features" / "f.h5", Notes()
    first = Rows(gallery, stop_after=5)
    with pytest.raises(KeyboardInterrupt):
        load(file, source, gallery, first)
    assert [path.name for path in file.parent.iterdir()] == ["f.partial"]
    assert cache.describe_status(file, source, gallery, "float32") == "to extract: no cached features; resuming at 4/8"

    second = Rows(gallery)
    second.calls = 1  # so that its rows differ
    features = load(file, source, gallery, second, progress=notes)
    assert second.starts == [4]
    assert notes.notes == ["f.h5: resuming at 4/8"]
    expected = np.concatenate([first.matrix(1)[:4], second.matrix(2)[4:]])
    np.testing.assert_array_equal(features.matrix, expected)
    np.testing.assert_array_equal(feature_files.read(file).matrix, expected)
    assert [path.name for path in file.parent.iterdir()] == ["f.h5"]
    assert cache.describe_status(file, source, gallery, "float32") == "cached"


def test_rows_of_other_weights_are_not_resumed(tmp_path, gallery, source, monkeypatch):
    monkeypatch.setattr(partial, "BLOCK_ROWS", 2)
    with pytest.raises(KeyboardInterrupt):
        load(tmp_path / "f.h5", source, gallery, Rows(gallery, stop_after=5))
    other = dataclasses.replace(source, model=dataclasses.replace(source.model, digest="abd"))
    extract = Rows(gallery)
    load(tmp_path / "f.h5", other, gallery, extract)
    assert extract.starts == [0]


def test_two_evaluations_at_once_do_no_harm(tmp_path, gallery, source, monkeypatch):
    """The second begins while the first extracts, and ends before it."""
    monkeypatch.setattr(partial, "BLOCK_ROWS", 2)
    found = []

    class Slow(Rows):
        def __call__(self, start: int) -> Iterator[np.ndarray]:
            for number, row in enumerate(super().__call__(start)):
                if number == 5:
                    thread = threading.Thread(
                        target=lambda: found.append(load(tmp_path / "f.h5", source, gallery, quick))
                    )
                    thread.start()
                    thread.join()
                    assert np.array_equal(load(tmp_path / "f.h5", source, gallery, quick).matrix, quick.matrix(1))
                yield row

    quick = Rows(gallery)
    slow = Slow(gallery)
    features = load(tmp_path / "f.h5", source, gallery, slow)
    assert (slow.starts, quick.starts) == ([0], [0])
    np.testing.assert_array_equal(features.matrix, found[0].matrix)
    np.testing.assert_array_equal(feature_files.read(tmp_path / "f.h5").matrix, features.matrix)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["f.h5"]


def test_a_killed_extraction_resumes(tmp_path, market_folder):
    """Two processes, the first ended by SIGKILL in the middle of a block."""
    script = f"""
import os, signal, sys
from pathlib import Path
import numpy as np
from ptlreid import cache, datasets
from ptlreid.cache import partial
from ptlreid.features import Extractor
from ptlreid.models.weights import WeightsFile
from ptlreid.network_types import NetworkSpec, Readout
from ptlreid.progress import Silent
from ptlreid.views import EvalView
partial.BLOCK_ROWS = 2
gallery = datasets.load({str(market_folder)!r}, Path(".")).gallery
weights = WeightsFile(Path("w"), NetworkSpec("resnet18", True, "slot", 3, 64, 32), Readout(), digest="abc")
class Killed(Extractor):
    def stream(self, paths, *, start=0, progress=None):
        print(start)
        for row in range(start, 8):
            if row == 5 and "kill" in sys.argv:
                os.kill(os.getpid(), signal.SIGKILL)
            yield np.full((1, 3), row, dtype=np.float32)
extractor = Killed(weights, Readout(), EvalView(64, 32), "cpu", 64, None)
file = Path({str(tmp_path)!r}, "f.h5")
features = cache.load_or_extract(file, extractor, gallery, dtype="float32", progress=Silent())
print(features.matrix[:, 0].tolist())
"""
    killed = subprocess.run([sys.executable, "-c", script, "kill"], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    again = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert again.stdout.split("\n")[:2] == ["4", str([float(row) for row in range(8)])]


def test_as_float16_features_are_rounded_before_their_first_use(tmp_path, gallery, source):
    extract, notes = Rows(gallery), Notes()
    first = load(tmp_path / "f.h5", source, gallery, extract, dtype="float16")
    second = load(tmp_path / "f.h5", source, gallery, extract, dtype="float16")
    assert extract.calls == 1
    np.testing.assert_array_equal(first.matrix, extract.matrix(1).astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(first.matrix, second.matrix)
    with h5py.File(tmp_path / "f.h5") as content:
        assert content["features"].dtype == np.float16
    load(tmp_path / "f.h5", source, gallery, extract, progress=notes)
    assert notes.notes == ["f.h5: not used, the precision changed; re-extracting"]


def test_a_number_too_large_for_float16_is_an_error_that_names_the_image(tmp_path, gallery, source):
    with pytest.raises(DataError, match=rf"{gallery.paths[0].name}: a feature is too large for float16"):
        load(tmp_path / "f.h5", source, gallery, Rows(gallery, scale=1e6), dtype="float16")


def test_paths_are_where_the_images_lie_now(tmp_path, gallery, source):
    load(tmp_path / "f.h5", source, gallery, Rows(gallery))
    (tmp_path / "market").rename(tmp_path / "elsewhere")
    moved = datasets.load(str(tmp_path / "elsewhere"), tmp_path).gallery
    features = load(tmp_path / "f.h5", source, moved, Rows(gallery))
    assert features.paths.tolist() == [str(path) for path in moved.paths]
