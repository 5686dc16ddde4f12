"""`ptlreid report` on an adapted run: its page, and the page of its clusters from their files."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from damage import damage_examples, damaged, within_seconds
from hypothesis import given
from hypothesis import strategies as st
from test_adapt import make_settings, write_part
from test_report import Notes, headings

from ptlreid import datasets
from ptlreid.adapt.cluster_files import find_epochs, read_clusters, write_clusters
from ptlreid.errors import DataError
from ptlreid.progress import Silent
from ptlreid.records import Records
from ptlreid.runs import RunFolder
from ptlreid.settings import FinetuneSettings
from ptlreid.settings.report import ReportSettings
from ptlreid.workflows.adapt import adapt
from ptlreid.workflows.finetune import finetune
from ptlreid.workflows.report import report, write_pages


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Below it, `home` and `site`, six identities for training and four for the test each."""
    root = tmp_path_factory.mktemp("sites")
    for name, first in (("site", 1), ("home", 21)):
        write_part(root / name / "bounding_box_train", range(first, first + 6), range(1, 4))
        write_part(root / name / "query", range(first + 6, first + 10), range(1, 2))
        write_part(root / name / "bounding_box_test", range(first + 6, first + 10), range(2, 4))
    return root


@pytest.fixture(scope="module")
def runs(root, tmp_path_factory) -> Path:
    """`home`, `moved` and `cameras`, adapted from it; `bare`, adapted to the same site without a test set."""
    runs = tmp_path_factory.mktemp("runs")
    size = {"height": 64, "width": 32, "batch_size": 12, "epochs": 1, "report": False}
    settings = FinetuneSettings.resolve(
        None, data=str(root / "home"), backbone="tiny", init="none", device="cpu", **size
    )
    finetune(settings, datasets.load(str(root / "home"), root), RunFolder(runs / "home"), Silent())
    site, nothing = datasets.load(str(root / "site"), root), Records.make([], [], [], source="")
    bare = replace(site, query=nothing, gallery=nothing)
    for name, splits, changes in (
        ("moved", site, {}),
        ("bare", bare, {"epochs": 1}),
        ("cameras", site, {"method_": "cameras"}),
    ):
        adapt(make_settings(root, runs, **changes), splits, RunFolder(runs / name), Silent())
    return runs


@pytest.fixture(scope="module")
def settings(root):
    return ReportSettings.resolve(None, root=str(root), device="cpu", queries=1)


@pytest.fixture(scope="module")
def pages(runs, settings, tmp_path_factory):
    """The files of the pages of `moved`."""
    return report(["moved"], runs, settings, Silent(), out=tmp_path_factory.mktemp("pages") / "a page.html")


@pytest.fixture
def moved(runs, tmp_path):
    """A copy of the run `moved`, to be changed."""
    return RunFolder(Path(shutil.copytree(runs / "moved", tmp_path / "moved")))


def test_both_pages_are_written_and_linked_to_each_other(pages):
    assert [path.name for path in pages] == ["a page.html", "a page-clusters.html"]
    page, clusters = (path.read_text(encoding="utf-8") for path in pages)
    assert headings(page)[:5] == ["Summary", "Adaptation", "Before and after", "Cameras", "Clusters"]
    assert '<a href="a%20page-clusters.html">Page of clusters</a>' in page
    assert '<a href="a%20page.html">Report of the run</a>' in clusters
    assert headings(clusters)[:2] == ["Summary", "Largest clusters"]
    assert "Clusters of epoch 2 · training images of " in clusters


def test_without_a_name_the_pages_are_in_the_folder_of_the_run(moved, settings):
    assert write_pages([moved], settings, Silent()) == [moved.report, moved.path / "report-clusters.html"]


def test_the_scores_before_and_after_are_those_of_the_metrics(runs, pages):
    page = pages[0].read_text(encoding="utf-8")
    metrics = RunFolder(runs / "moved").read_metrics()
    for label, share in (("before: home", metrics["before"]["mAP"]), ("after: moved", metrics["mAP"])):
        assert re.search(rf'<th scope="row">{label}</th>\s*<td class="n">{100 * share:.1f}</td>', page)
    assert re.search(r'<th scope="row">2</th>\s*<td class="n">18</td><td class="n">52\.9</td>', page)  # 18 of 18 + 16


def test_the_page_of_clusters_is_about_the_last_epoch_next_to_the_one_before(moved, root, settings):
    train = datasets.load(str(root / "site"), root).train
    for epoch, labels in enumerate((np.full(36, -1), np.repeat([0, 1], [20, 16]), np.repeat([0, 1], [30, 6]))):
        write_clusters(moved.clusters(epoch), train, np.ones((36, 4), dtype=np.float32), labels)
    page = write_pages([moved], settings, Silent())[1].read_text(encoding="utf-8")
    # The smaller one continues none: of 16 images, 6 are in it, and more in the other.
    assert "<b>Cluster 0</b> · 30 images · cameras 1, 2 · similarity 1.00 to 1.00, mean 1.00 · 10 new</h4>" in page
    assert "Clusters of epoch 3 · " in page
    assert re.search(r"New images</th>\s*<td[^>]*>16 of 36 in clusters</td>", page)


def test_pages_are_the_same_every_time(runs, settings, pages, tmp_path):
    again = report(["moved"], runs, settings, Silent(), out=tmp_path / pages[0].name)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in pages]


def test_cameras_alone_have_no_page_of_clusters(runs, settings, tmp_path):
    (path,) = report(["cameras"], runs, settings, Silent(), out=tmp_path / "a.html")
    assert headings(path.read_text(encoding="utf-8"))[1:4] == ["Adaptation", "Before and after", "Cameras"]


def test_without_a_test_set_the_page_says_that_nothing_measures_accuracy(runs, root, settings, tmp_path):
    splits, nothing = datasets.load(str(root / "site"), root), Records.make([], [], [], source="")
    bare, progress = replace(splits, query=nothing, gallery=nothing), Notes()
    pages = write_pages([RunFolder(runs / "bare")], settings, progress, out=tmp_path / "a.html", splits=bare)
    page = pages[0].read_text(encoding="utf-8")
    assert "no labelled test part: nothing on this page measures accuracy" in page
    assert headings(page) == ["Summary", "Adaptation", "Cameras", "Clusters", "Training", "Latent state and gates"]
    assert progress.notes == []
    assert "Newest clusters" not in pages[1].read_text(encoding="utf-8")  # of its first epoch


def test_a_missing_dataset_leaves_the_page_of_clusters_out_and_the_report_says_so(moved, root, settings, tmp_path):
    config = moved.config.read_text(encoding="utf-8").replace(str(root / "site"), str(tmp_path / "gone"))
    moved.config.write_text(config, encoding="utf-8")
    progress = Notes()
    (path,) = write_pages([moved], settings, progress, out=tmp_path / "a.html")
    page = path.read_text(encoding="utf-8")
    assert 'class="note">No page of clusters. ' in page
    assert "Page of clusters</a>" not in page
    assert any("moved has no page of clusters: " in note for note in progress.notes)


def test_an_image_that_cannot_be_decoded_is_named(moved, root, settings, tmp_path, monkeypatch):
    from ptlreid.reports import page

    def refuse(paths, *, incomplete):
        raise DataError("one.jpg: not an image that can be decoded (why). Replace the file.")

    monkeypatch.setattr(page, "embed_crops", refuse)
    progress = Notes()
    with pytest.raises(DataError, match="not an image that can be decoded"):  # as for rank lists
        write_pages([moved], settings, progress, out=tmp_path / "a.html")
    assert any("no page of clusters: one.jpg: not an image" in note for note in progress.notes)


def records(count=4, *, first=1, camid=1):
    paths = [Path(f"/data/lobby/train/{number}.jpg") for number in range(first, first + count)]
    return Records.make(paths, [-1] * count, [camid] * count, source="lobby")


@pytest.fixture
def file(tmp_path):
    """Two images in a cluster, with vectors that are as long, one between them, and an outlier."""
    run = RunFolder(tmp_path / "run")
    features = np.array([[1, 0], [0, 2], [3, 3], [5, 0]], dtype=np.float32)
    write_clusters(run.clusters(0), records(), features, np.array([0, 0, 0, -1], dtype=np.int64))
    return run.clusters(0)


def test_clusters_are_read_as_they_were_written(file):
    labels, similarities = read_clusters(file, records())
    assert labels.tolist() == [0, 0, 0, -1]
    assert similarities[:3] == pytest.approx([0.5**0.5, 0.5**0.5, 1])  # the centroid is along (1, 1)
    assert np.isnan(similarities[3])


def test_epochs_are_found_in_order_without_other_files(file):
    for name in ("010.npz", "002.npz", "notes.npz", "003.txt", "²³¹.npz"):
        shutil.copy(file, file.with_name(name))
    assert find_epochs(RunFolder(file.parent.parent)) == [0, 2, 10]
    assert find_epochs(RunFolder(file.parent / "none")) == []


@pytest.mark.parametrize("other", [records(3), records(first=2), records(camid=2)])
def test_clusters_of_other_images_are_refused(file, other):
    with pytest.raises(DataError, match=r"000\.npz: is of other images than the \d training images that were found"):
        read_clusters(file, other)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("labels", np.array([0, 0, 0, -2])),
        ("labels", np.array([0.0, 0, 0, -1])),
        ("labels", np.array([0, 0, -1, -1])),  # an outlier with a similarity
        ("labels", np.array([0, 0, 0, 0])),  # an image in a cluster without one
        ("labels", np.array([0, 0, 0])),
        ("similarities", np.array(["a"] * 4)),
        ("paths", None),
    ],
)
def test_arrays_that_are_no_clusters_are_refused(file, name, values):
    with np.load(file) as content:
        arrays = {**content, name: values}
    np.savez(file, **{key: value for key, value in arrays.items() if value is not None})
    with pytest.raises(DataError, match=r"000\.npz: damaged, or not clusters of images\. Remove it"):
        read_clusters(file, records())


@damage_examples()
@given(data=st.data())
def test_damaged_clusters_are_refused_or_read_as_they_were(file, data):
    content = file.read_bytes()
    labels = read_clusters(file, records())[0].tolist()
    damaged_file = file.with_name("001.npz")
    damaged_file.write_bytes(data.draw(damaged(content)))
    with within_seconds():
        try:
            assert read_clusters(damaged_file, records())[0].tolist() == labels
        except DataError as error:
            assert str(error).startswith(f"{damaged_file}: ")
