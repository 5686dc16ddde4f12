"""Features on disk: reused when nothing changed, never when something did."""

from __future__ import annotations

import dataclasses
import shutil
import threading

import h5py
import numpy as np
import pytest
from conftest import write_image

from ptlreid import cache, datasets
from ptlreid.errors import DataError
from ptlreid.models.weights import Saved
from ptlreid.outputs import NetworkSpec, Readout
from ptlreid.progress import Silent
from ptlreid.records import Records
from ptlreid.retrieval.values import Features
from ptlreid.views import EvalView

VIEW = EvalView(64, 32)


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Extractor:
    """Counts its calls; every call gives other features."""

    def __init__(self, records: Records) -> None:
        self.records, self.calls = records, 0

    def __call__(self) -> Features:
        self.calls += 1
        matrix = np.random.default_rng(self.calls).normal(size=(len(self.records), 5)).astype(np.float32)
        paths = np.array([str(path) for path in self.records.paths], dtype=object)
        return Features(matrix, self.records.pids, self.records.camids, paths)


@pytest.fixture
def gallery(market_folder, tmp_path) -> Records:
    shutil.copytree(market_folder, tmp_path / "market")
    return datasets.load("market", tmp_path).gallery


@pytest.fixture
def source(tmp_path) -> cache.Source:
    spec = NetworkSpec("resnet18", True, "slot", 3, 64, 32)
    return cache.Source(Saved(tmp_path / "w.safetensors", spec, Readout(), digest="abc"), Readout(), VIEW)


def test_the_second_time_nothing_is_extracted(tmp_path, gallery, source):
    extract, notes = Extractor(gallery), Notes()
    first = cache.cached(tmp_path / "f.h5", source, gallery, extract, progress=notes)
    second = cache.cached(tmp_path / "f.h5", source, gallery, extract, progress=notes)
    assert extract.calls == 1
    assert notes.notes == ["f.h5: 8 features reused, no image decoded"]
    for field in dataclasses.fields(Features):
        assert np.array_equal(getattr(first, field.name), getattr(second, field.name)), field.name


def test_the_layout_is_the_documented_one(tmp_path, gallery, source):
    features = cache.cached(tmp_path / "f.h5", source, gallery, Extractor(gallery))
    with h5py.File(tmp_path / "f.h5") as content:
        assert content["features"].dtype == np.float32
        assert np.array_equal(content["features"], features.matrix)
        assert content["pids"][:].tolist() == gallery.pids.tolist()
        assert content["camids"][:].tolist() == gallery.camids.tolist()
        assert content["paths"].asstr()[:].tolist() == [str(path) for path in gallery.paths]


def test_another_place_for_the_same_images_is_no_change(tmp_path, gallery, source):
    extract = Extractor(gallery)
    cache.cached(tmp_path / "f.h5", source, gallery, extract)
    (tmp_path / "market").rename(tmp_path / "elsewhere")
    moved = datasets.load(str(tmp_path / "elsewhere"), tmp_path).gallery
    cache.cached(tmp_path / "f.h5", source, moved, extract)
    assert extract.calls == 1


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("weights", "the weights"),
        ("network", "the network"),
        ("readout", "how features are read"),
        ("view", "the view"),
        ("images", "the images"),
        ("labels", "the identities or cameras"),
        ("schema", "the file's schema"),
    ],
)
def test_a_change_is_named_and_extracted_anew(tmp_path, gallery, source, monkeypatch, what, words):
    extract, notes = Extractor(gallery), Notes()
    cache.cached(tmp_path / "f.h5", source, gallery, extract)
    if what == "weights":
        source = dataclasses.replace(source, saved=dataclasses.replace(source.saved, digest="abd"))
    elif what == "network":
        spec = dataclasses.replace(source.saved.spec, memory="mean")
        source = dataclasses.replace(source, saved=dataclasses.replace(source.saved, spec=spec))
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
    features = cache.cached(tmp_path / "f.h5", source, gallery, extract, progress=notes)
    assert notes.notes == [f"f.h5: not used, {words} changed; extracting anew"]
    assert extract.calls == 2
    assert np.array_equal(cache.read(tmp_path / "f.h5").matrix, features.matrix)


def test_a_file_cut_short_is_never_used(tmp_path, gallery, source):
    extract = Extractor(gallery)
    cache.cached(tmp_path / "f.h5", source, gallery, extract)
    whole = (tmp_path / "f.h5").read_bytes()
    for length in (0, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "f.h5").write_bytes(whole[:length])
        notes = Notes()
        calls = extract.calls
        cache.cached(tmp_path / "f.h5", source, gallery, extract, progress=notes)
        assert extract.calls == calls + 1, length
        assert notes.notes == ["f.h5: not used, it is damaged; extracting anew"]


def test_a_writer_that_fails_leaves_nothing(tmp_path, gallery, source):
    def fail() -> Features:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.cached(tmp_path / "features" / "f.h5", source, gallery, fail)
    assert not (tmp_path / "features" / "f.h5").exists()


def test_writers_at_the_same_time_leave_one_whole_file(tmp_path, gallery, source):
    features = [Extractor(gallery)() for _ in range(4)]
    threads = [threading.Thread(target=cache.write, args=(tmp_path / "f.h5", one, {"schema": "1"})) for one in features]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.array_equal(cache.read(tmp_path / "f.h5").matrix, features[0].matrix)
    assert [path.name for path in tmp_path.glob("*f.h5*")] == ["f.h5"]


def test_a_file_without_a_part_is_refused_by_name(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as content:
        content["features"] = np.zeros((2, 3), dtype=np.float32)
    with pytest.raises(DataError, match=r"f\.h5: not a whole feature file"):
        cache.read(tmp_path / "f.h5")
