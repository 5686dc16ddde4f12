"""Figures and warnings of a clustering: by hand, by loops and by enumeration."""

from __future__ import annotations

import json
from collections import Counter
from itertools import permutations

import numpy as np
import pytest

from ptlreid.retrieval.cluster_statistics import measure_clusters

LABELS = np.array([0, 0, 0, 1, 1, -1])
CAMERAS = np.array([1, 1, 2, 2, 2, 1])


def test_six_images_by_hand():
    found = measure_clusters(LABELS, CAMERAS)
    assert (found.images, found.clusters, found.outliers, found.cameras) == (6, 2, 1, 2)
    assert (found.smallest, found.median_size, found.largest) == (2, 2.5, 3)
    assert found.several_cameras == pytest.approx(1 / 2)
    assert found.camera_purity == pytest.approx((2 + 2) / 5)
    assert found.agreement is None


def test_purity_by_chance_by_hand():
    """Cameras 1, 1, 2, 2, 2 in clusters of 3 and 2: of 10 arrangements, 1 has purity 5/5, 6 have 3/5 and 3 have 4/5."""
    assert measure_clusters(LABELS, CAMERAS).chance_purity == pytest.approx((1 + 6 * 3 / 5 + 3 * 4 / 5) / 10, abs=0.04)


@pytest.mark.parametrize("seed", range(5))
def test_purity_by_chance_is_the_mean_of_all_arrangements(seed):
    rng = np.random.default_rng(seed)
    labels, cameras = rng.integers(0, 3, 7), rng.integers(0, 3, 7)
    expected = np.mean([slow_purity(labels, np.array(one)) for one in permutations(cameras)])
    assert measure_clusters(labels, cameras).chance_purity == pytest.approx(expected, abs=0.04)


def slow_purity(labels: np.ndarray, cameras: np.ndarray) -> float:
    clusters = set(labels[labels >= 0].tolist())
    largest = sum(Counter(cameras[labels == one].tolist()).most_common(1)[0][1] for one in clusters)
    return largest / sum(label >= 0 for label in labels)


@pytest.mark.parametrize("seed", range(20))
def test_figures_equal_those_of_a_loop(seed):
    rng = np.random.default_rng(seed)
    labels, cameras = rng.integers(-1, 6, 40), rng.choice([0, 3, 9], 40)
    found = measure_clusters(labels, cameras)
    groups = [cameras[labels == one].tolist() for one in sorted(set(labels.tolist()) - {-1})]
    sizes = sorted(map(len, groups))
    assert (found.clusters, found.smallest, found.largest) == (len(groups), sizes[0], sizes[-1])
    assert found.several_cameras == pytest.approx(sum(len(set(group)) > 1 for group in groups) / len(groups))
    assert found.camera_purity == pytest.approx(slow_purity(labels, cameras))


def test_figures_do_not_depend_on_numbers_of_clusters_and_cameras():
    renamed = measure_clusters(np.array([7, 7, 7, 2, 2, -1]), np.array([40, 40, -3, -3, -3, 40]))
    found = measure_clusters(LABELS, CAMERAS)
    assert renamed.camera_purity == found.camera_purity
    assert renamed.several_cameras == found.several_cameras
    assert renamed.chance_purity == pytest.approx(found.chance_purity, abs=0.04)


def test_one_cluster_of_everything_has_the_purity_of_chance():
    found = measure_clusters(np.zeros(8, dtype=int), np.array([1, 1, 1, 2, 2, 3, 3, 3]))
    assert found.camera_purity == found.chance_purity == pytest.approx(3 / 8)


def test_agreement_by_hand():
    """Of 6 pairs, 2 are together in each and none in both: (0 - 2 · 2 / 6) / (2 - 2 · 2 / 6) = -1/2."""
    found = measure_clusters(np.array([0, 0, 1, 1]), np.ones(4), previous=np.array([0, 1, 0, 1]))
    assert found.agreement == pytest.approx(-1 / 2)


def test_agreement_leaves_out_outliers_of_either_time():
    found = measure_clusters(np.array([0, 0, 1, 1, -1, 1]), np.ones(6), previous=np.array([5, 5, 3, 3, 5, -1]))
    assert found.agreement == 1


def test_agreement_needs_two_images_that_were_in_clusters_both_times():
    found = measure_clusters(np.array([0, 0, 1, 1]), np.ones(4), previous=np.array([-1, -1, -1, 0]))
    assert found.agreement is None


def test_no_clusters():
    found = measure_clusters(np.full(150, -1), np.arange(150) % 2, previous=np.zeros(150, dtype=int))
    assert (found.clusters, found.outliers, found.smallest, found.median_size, found.largest) == (0, 150, 0, 0, 0)
    assert (found.several_cameras, found.camera_purity, found.chance_purity, found.agreement) == (None,) * 4
    assert one_warning(found).startswith("None of 150 images is in a cluster")


def test_described_as_json():
    found = measure_clusters(LABELS, CAMERAS)
    again = json.loads(json.dumps(found.describe()))
    assert again["clusters"] == 2
    assert again["camera_purity"] == pytest.approx(0.8)
    assert again["agreement"] is None


def one_warning(found) -> str:
    (warning,) = found.warnings()
    return warning


def sound(clusters: int, size: int, cameras: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and cameras of clusters that have images from each camera in turn."""
    return np.repeat(np.arange(clusters), size), np.arange(clusters * size) % cameras


def test_sound_clusters_have_no_warning():
    assert measure_clusters(*sound(30, 8, 4)).warnings() == []


def test_few_images_are_a_warning():
    assert "There are 99 images to cluster" in one_warning(measure_clusters(*sound(33, 3, 3)))
    assert measure_clusters(*sound(25, 4, 2)).warnings() == []


def test_nearly_all_outliers_are_a_warning():
    labels, cameras = sound(50, 4, 4)
    labels[20:] = -1
    assert measure_clusters(labels, cameras).warnings() == []
    labels[16:] = -1
    assert one_warning(measure_clusters(labels, cameras)).startswith("184 of 200 images are outliers")


def test_a_cluster_of_most_images_is_a_warning():
    labels, cameras = sound(50, 4, 4)
    labels[100:] = 99
    assert measure_clusters(labels, cameras).warnings() == []
    labels[96:] = 99
    assert one_warning(measure_clusters(labels, cameras)).startswith("One cluster has 104 of 200 images")


def test_one_camera_is_a_warning():
    labels, _ = sound(30, 8, 4)
    assert one_warning(measure_clusters(labels, np.full(240, 3))).startswith("All images are from one camera")


def test_clusters_that_follow_cameras_are_a_warning():
    labels, _ = sound(30, 8, 4)
    cameras = labels % 4
    warning = one_warning(measure_clusters(labels, cameras))
    assert warning.startswith("Clusters follow cameras: 100% of the clustered images are from the main camera")


def test_purity_that_chance_explains_is_no_warning():
    """Nine of ten images are from camera 0, so that pure clusters are to be expected."""
    labels, _ = sound(30, 10, 4)
    cameras = np.where(np.arange(300) % 10 == 0, 1, 0)
    found = measure_clusters(labels, cameras)
    assert found.camera_purity == pytest.approx(0.9)
    assert found.warnings() == []


def test_few_clusters_over_several_cameras_are_a_warning():
    """One camera has few images, so that chance explains the purity: the share alone is low."""
    labels = np.repeat(np.arange(100), 3)
    cameras = np.zeros(300, dtype=int)
    cameras[:60:3] = 1  # 20 of 100 clusters
    found = measure_clusters(labels, cameras)
    assert found.several_cameras == pytest.approx(0.2)
    assert found.camera_purity - found.chance_purity < 0.4 * (1 - found.chance_purity)
    assert one_warning(found).startswith("20% of the clusters have images from several cameras")


def test_following_cameras_is_judged_by_what_chance_leaves():
    """Seven of ten images are from camera 0: pure clusters are 0.3 from chance at most, and still follow cameras."""
    labels, _ = sound(30, 8, 4)
    found = measure_clusters(labels, np.where(labels % 10 < 3, 1, 0))
    assert 0.6 < found.chance_purity < 0.8
    assert one_warning(found).startswith("Clusters follow cameras: 100%")
