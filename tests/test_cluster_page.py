"""The page of clusters: which clusters and images it shows, and what it says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import write_image
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from test_report_page import HOSTILE, Outline

from ptlreid.errors import DataError
from ptlreid.reports import page
from ptlreid.reports.cluster_page import make_cluster_page
from ptlreid.reports.cluster_rows import ClusteredImages, choose, find_new, show_cluster, show_outliers

NAN = float("nan")
NAMES = ["1", "2", "3"]


def clustered(labels, *, similarities=None, cameras=None, previous=None, folder=Path(), names=NAMES):
    """Images `0.jpg`, `1.jpg`, ... in these clusters; by default equally similar, from camera 1."""
    count = len(labels)
    paths = np.empty(count, dtype=object)
    paths[:] = [folder / f"{number}.jpg" for number in range(count)]
    values = [1.0] * count if similarities is None else similarities
    rows = np.array([0] * count if cameras is None else cameras)
    before = None if previous is None else np.array(previous)
    return ClusteredImages(np.array(labels), np.array(values), rows, names, paths, before)


def sections(images):
    """The titles of the rows of each section, by the section's name."""
    found = make_cluster_page("run", "", images).sections
    return {one.name: [row.title for row in one.crop_rows] for one in found}


def summary(images):
    (table,) = make_cluster_page("run", "", images).sections[0].tables
    return dict(table.rows)


# Cluster 0: images 0, 1, 5 of cameras 1 and 2. Cluster 1: images 2 and 3 of camera 1. Cluster 2: 6 and 7 of camera 3.
LABELS = [0, 0, 1, 1, -1, 0, 2, 2]
SIMILARITIES = [0.9, 0.7, 0.5, 0.5, NAN, 0.8, 0.95, 0.85]
CAMERAS = [0, 0, 0, 0, 1, 1, 2, 2]
IMAGES = clustered(LABELS, similarities=SIMILARITIES, cameras=CAMERAS)


def test_a_cluster_is_described_by_its_images():
    first, second, _ = IMAGES.clusters()
    assert (first.label, first.rows.tolist(), first.cameras.tolist(), first.new) == (0, [0, 1, 5], [0, 1], 0)
    assert (first.low, first.mean, first.high) == pytest.approx((0.7, 0.8, 0.9))
    assert (second.label, second.rows.tolist(), second.cameras.tolist()) == (1, [2, 3], [0])


def test_a_row_says_how_many_images_from_which_cameras_and_how_similar():
    row = show_cluster(IMAGES, IMAGES.clusters()[0], 10)
    assert (row.title, row.description) == (
        "Cluster 0",
        "3 images · cameras 1, 2 · similarity 0.70 to 0.90, mean 0.80",
    )
    assert [image.path.name for image in row.images] == ["0.jpg", "5.jpg", "1.jpg"]  # the most similar first
    assert [image.lines for image in row.images] == [["0.90", "camera 1"], ["0.80", "camera 2"], ["0.70", "camera 1"]]
    assert row.table.rows[1] == ["5.jpg", "2", "0.80", "–"]


def test_many_cameras_are_counted():
    images = clustered([0] * 9, cameras=range(9), names=[str(number) for number in range(9)])
    assert "9 images · 9 cameras · " in show_cluster(images, images.clusters()[0], 10).description


def test_a_row_of_a_large_cluster_is_evenly_spaced_from_the_most_to_the_least_similar():
    images = clustered([0] * 9, similarities=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    row = show_cluster(images, images.clusters()[0], 3)
    assert [image.path.name for image in row.images] == ["8.jpg", "4.jpg", "0.jpg"]


def test_each_section_has_its_clusters_in_order():
    assert sections(IMAGES) == {
        "summary": [],
        "largest": ["Cluster 0", "Cluster 1", "Cluster 2"],
        "least-sure": ["Cluster 1", "Cluster 0", "Cluster 2"],
        "one-camera": ["Cluster 1", "Cluster 2"],
        "outliers": ["Outliers"],
    }


def test_among_equals_the_cluster_of_the_first_image_comes_first():
    images = clustered([3, 1, 1, 3])
    assert [one.label for one in choose(images.clusters(), lambda one: (-len(one.rows),), 2)] == [3, 1]


def test_a_section_has_at_most_twelve_clusters():
    assert len(sections(clustered(np.repeat(np.arange(13), 2)))["largest"]) == 12


def test_the_newest_clusters_have_the_largest_share_of_new_images():
    # Cluster 0 continues 7 with one more image, cluster 1 continues 4, cluster 2 is of former outliers.
    images = clustered([0, 0, 0, 1, 1, 2, 2], previous=[7, 7, -1, 4, 4, -1, -1])
    assert sections(images)["newest"] == ["Cluster 2", "Cluster 0"]
    row = show_cluster(images, images.clusters()[0], 10)
    assert row.description.endswith(" · 1 new")
    assert [(image.marked, image.lines) for image in row.images][1:] == [
        (False, ["1.00", "camera 1"]),
        (True, ["1.00", "camera 1", "new"]),
    ]
    assert [cells[-1] for cells in row.table.rows] == ["7", "7", "none"]
    assert summary(images)["New images"] == "3 of 7 in clusters"


def test_few_new_images_of_a_large_cluster_come_after_a_small_cluster_that_is_new():
    labels, previous = [0] * 7 + [1] * 2 + [2] * 3, [0] * 4 + [-1] * 3 + [-1] * 5
    assert sections(clustered(labels, previous=previous))["newest"] == ["Cluster 2", "Cluster 1", "Cluster 0"]


def test_one_image_far_from_its_centroid_does_not_make_a_cluster_the_least_sure():
    images = clustered([0, 0, 0, 1, 1], similarities=[0.9, 0.9, 0.1, 0.5, 0.5])
    assert sections(images)["least-sure"] == ["Cluster 1", "Cluster 0"]


def test_without_a_previous_epoch_nothing_is_new():
    assert "newest" not in sections(IMAGES)
    assert "New images" not in summary(IMAGES)


@pytest.mark.parametrize(
    ("labels", "previous", "new"),
    [
        ([0, 0, 1, 1], [5, 5, 2, 2], []),  # other labels
        ([0, 0, 0, 1, 1], [0, 0, 0, 0, 0], [3, 4]),  # split: the larger part continues the cluster
        ([0, 0, 0, 0, 0], [0, 0, 1, 1, 1], [0, 1]),  # merged: those of the smaller cluster came to the other
        ([0, 0, 1, 1], [0, 0, 0, 0], [2, 3]),  # equal parts: the lower label continues the cluster
        ([0, 0, 0, 0], [1, 1, 0, 0], [0, 1]),
        ([0, 0, -1, -1], [0, -1, 0, -1], [1]),  # an outlier is not new
        ([0, 0], [-1, -1], [0, 1]),
        ([-1, -1], [0, 0], []),
    ],
)
def test_new_images_were_in_another_cluster_or_in_none(labels, previous, new):
    assert np.flatnonzero(find_new(np.array(labels), np.array(previous))).tolist() == new


def new_by_loop(labels, previous):
    """As `find_new`, from its definition."""
    shared = {}
    for pair in zip(labels.tolist(), previous.tolist(), strict=True):
        if min(pair) >= 0:
            shared[pair] = shared.get(pair, 0) + 1
    best_before, best_now = {}, {}
    for pair in sorted(shared, key=lambda pair: (-shared[pair], pair)):
        best_before.setdefault(pair[0], pair[1])
        best_now.setdefault(pair[1], pair[0])
    return [
        now >= 0 and not (before >= 0 and best_before[now] == before and best_now[before] == now)
        for now, before in zip(labels.tolist(), previous.tolist(), strict=True)
    ]


@settings(derandomize=True, deadline=None, max_examples=100)
@given(data=st.data(), count=st.integers(1, 30))
def test_new_images_are_those_of_the_definition(data, count):
    draw = arrays(np.int64, count, elements=st.integers(-1, 4))
    labels, previous = data.draw(draw), data.draw(draw)
    assert find_new(labels, previous).tolist() == new_by_loop(labels, previous)


def test_outliers_are_a_sample_over_all_of_them():
    images = clustered([-1] * 7, similarities=[NAN] * 7)
    row = show_outliers(images, 3)
    assert (row.title, row.description) == ("Outliers", "3 of 7 images in no cluster")
    assert [image.path.name for image in row.images] == ["0.jpg", "3.jpg", "6.jpg"]
    assert row.images[0].lines == ["camera 1"]
    assert row.table.rows[0] == ["0.jpg", "1", "–", "–"]


def test_the_summary_has_the_figures_of_the_clusters():
    found = summary(clustered(LABELS, similarities=SIMILARITIES, cameras=CAMERAS, previous=LABELS))
    purity = found.pop("Camera purity")
    assert found == {
        "Images": "8 from 3 cameras",
        "Outliers": "1 (12.5%)",
        "Clusters": "3",
        "Images of a cluster": "2 to 3, median 2",
        "New images": "0 of 7 in clusters",
        "Agreement with the previous epoch": "1.00 (adjusted Rand index; 1: the same)",
        "From several cameras": "33.3% of the clusters",
    }
    assert purity.startswith("85.7% of the images are from the main camera of their cluster; ")  # 2 + 2 + 2 of 7


def test_without_clusters_the_page_says_so_and_shows_outliers():
    images = clustered([-1, -1], similarities=[NAN, NAN], previous=[0, 0])
    found = make_cluster_page("run", "", images)
    assert sections(images) == {"summary": [], "outliers": ["Outliers"]}
    assert summary(images) == {"Images": "2 from 1 camera", "Outliers": "2 (100.0%)", "Clusters": "0"}
    assert any("None of 2 images is in a cluster" in note for note in found.notes)


def test_one_cluster_of_one_camera_has_no_section_on_cameras():
    images = clustered([0, 0, 0])
    assert sections(images) == {"summary": [], "largest": ["Cluster 0"], "least-sure": ["Cluster 0"]}
    assert "From several cameras" not in summary(images)


def test_the_report_of_the_run_is_linked():
    (table,) = make_cluster_page("run", "", IMAGES, report_url="report.html").sections[0].tables
    assert table.links == {table.rows[-1][0]: "report.html"} == {"Report of the run": "report.html"}


def test_the_page_says_that_it_measures_no_accuracy():
    (text,) = make_cluster_page("run", "", IMAGES).sections[0].texts
    assert "no figure on this page measures accuracy" in text


@pytest.fixture
def folder(tmp_path):
    for number in range(len(LABELS)):
        write_image(tmp_path / f"{number}.jpg", number)
    return tmp_path


def test_each_crop_is_on_the_page_once_and_every_row_is_shown(folder):
    images = clustered(LABELS, similarities=SIMILARITIES, cameras=CAMERAS, folder=folder)
    html = page.render_html(make_cluster_page("run", "clusters", images))
    outline = Outline(html)
    uris = [uri for uri in outline.attributes("image", "href") if uri]
    assert len(uris) == len(set(uris)) == 8
    assert sum(tag == "article" for tag, _ in outline.tags) == 3 + 3 + 2 + 1
    assert sum(tag == "use" for tag, _ in outline.tags) == 7 + 7 + 4 + 1
    assert html == page.render_html(make_cluster_page("run", "clusters", images))


def test_new_images_have_a_dashed_frame(folder):
    images = clustered([0, 0, 0], previous=[0, 0, -1], folder=folder)
    outline = Outline(page.render_html(make_cluster_page("run", "", images)))
    marks = [found.get("class") for tag, found in outline.tags if tag == "li"]
    assert marks == [None, None, "marked"] * 3  # largest, newest, least sure


def test_a_hostile_name_is_shown_as_it_is(tmp_path):
    name = HOSTILE.replace("/", "") + ".jpg"
    write_image(tmp_path / name, 0)
    images = clustered([0], names=[HOSTILE])
    images.paths[0] = tmp_path / name
    outline = Outline(page.render_html(make_cluster_page(HOSTILE, HOSTILE, images)))
    tags = {tag for tag, _ in outline.tags}
    assert not tags & {"script", "img"}
    assert not [key for _, attributes in outline.tags for key in attributes if key.startswith("on")]
    # In both rows: file below the crop, in its title, and in the table of values.
    assert outline.text.count(name) == 2 * 3
    assert outline.text.count(f"camera {HOSTILE}") == 2 * 2


def test_an_image_that_is_missing_is_named(tmp_path):
    images = clustered([0, 0], folder=tmp_path)
    with pytest.raises(DataError, match=r"0\.jpg: not an image that can be decoded \(No such file"):
        page.render_html(make_cluster_page("run", "", images))


def test_a_page_without_rows_of_crops_is_as_before():
    assert "marked" not in page.render_html(page.Page("run", "", []))
