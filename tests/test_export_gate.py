"""The gate of an export on features made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ptlreid.export.gate import FeatureGap, compare, find_faults, sample_test_set
from ptlreid.records import Records, Splits
from ptlreid.retrieval.protocols import PROTOCOLS
from ptlreid.retrieval.types import Features, Retrieval
from ptlreid.settings import ExportSettings


def splits(identities: int = 10, junk: int = 2) -> Splits:
    """Each identity has one query image and three gallery images; then there is junk in the gallery."""
    query = Records.make([f"q{pid}" for pid in range(identities)], list(range(identities)), [0] * identities, "s")
    pids = [pid for pid in range(identities) for _ in range(3)] + [-1] * junk
    gallery = Records.make([f"g{row}" for row in range(len(pids))], pids, [1] * len(pids), "s")
    empty = Records.make([], [], [], "s")
    return Splits("s", empty, query, gallery, "market")


def test_a_sample_has_whole_identities_and_at_least_as_many_images_as_asked():
    found = sample_test_set(splits(), ExportSettings.resolve(None, images=10))
    assert found.query.num_identities == 3  # of four images each: 12 are the first that suffice
    assert sorted(set(found.gallery.pids)) == sorted(found.query.pids)
    assert len(found.gallery) == 9
    again = sample_test_set(splits(), ExportSettings.resolve(None, images=10))
    assert again.query.pids.tolist() == found.query.pids.tolist()
    seeds = {
        tuple(sample_test_set(splits(), ExportSettings.make(images=10, seed=seed)).query.pids) for seed in range(5)
    }
    assert len(seeds) > 1


@pytest.mark.parametrize("settings", [{"full": True, "images": 10}, {"images": 42}])
def test_all_images_are_taken_if_asked_or_if_there_are_no_more(settings):
    found = sample_test_set(splits(), ExportSettings.make(**settings))
    assert (len(found.query), len(found.gallery)) == (10, 32)


def test_the_gap_is_the_largest_over_images():
    before = np.array([[3, 4], [0, 2], [0, 0]], dtype=np.float32)
    after = np.array([[3, 4], [0.5, 2], [0, 0]], dtype=np.float32)
    gap = FeatureGap.between(before, after)
    assert gap.min_cosine == pytest.approx(2 / np.sqrt(4.25))
    assert gap.max_absolute == 0.5
    assert gap.max_relative == 0.25  # 0.5 of a vector of length 2


def test_a_feature_of_zeros_that_is_no_longer_one_is_far_off():
    gap = FeatureGap.between(np.zeros((1, 2), np.float32), np.full((1, 2), 1e-9, np.float32))
    assert (gap.min_cosine, gap.max_relative) == (0, np.inf)
    assert gap.describe()["max_relative"] is None  # JSON has no infinity


def retrieval(matrix: np.ndarray) -> Retrieval:
    """The first row searches the others; the second is its match."""
    pids = np.array([1, 1, *range(2, len(matrix))])
    camids = np.array([0, *[1] * (len(matrix) - 1)])
    paths = np.array([f"{row}" for row in range(len(matrix))], dtype=object)
    parts = [slice(0, 1), slice(1, None)]
    query, gallery = (Features(matrix[part], pids[part], camids[part], paths[part]) for part in parts)
    return Retrieval(query, gallery, PROTOCOLS["market"])


def compared(after: np.ndarray, thresholds: dict[str, float], **settings):
    before = np.array([[0, 0.1], [1, 0], [0, 2]], dtype=np.float32)  # distances of about 1 and 1.9
    chosen = ExportSettings.make(**settings)
    found = compare(retrieval(before), retrieval(after), thresholds, chosen, batch_gaps={}, weights_changed=[])
    return found, find_faults(found, chosen)


def test_ranks_and_decisions_that_changed_are_counted():
    # The match moves from distance 1.005 to 3.001, behind the other image at 1.9.
    after = np.array([[0, 0.1], [3, 0], [0, 2]], dtype=np.float32)
    thresholds = {"low": 0.5, "middle": 1.5, "high": 2.5, "all": 9.0}
    found, faults = compared(after, thresholds)
    assert (found.nearest_changed, found.queries) == (1, 1)
    assert found.decisions == {"low": (0, 2), "middle": (1, 2), "high": (1, 2), "all": (0, 2)}
    assert found.scores == {"mAP": {"before": 1.0, "after": 0.5}, "CMC-1": {"before": 1.0, "after": 0.0}}
    assert found.map_loss == 50
    assert faults == [
        "features differ by up to 2 of their length (limit 0.001)",
        "mAP falls by 50.00 points from 100.00 (limit 0.1)",
    ]


def test_each_limit_is_a_setting_and_half_precision_has_wider_ones():
    after = np.array([[0, 0.1], [1, 0.01], [0, 2]], dtype=np.float32)  # a cosine of 0.99995, 0.01 of the length
    assert compared(after, {})[1] == ["features differ by up to 0.01 of their length (limit 0.001)"]
    assert compared(after, {}, half=True)[1] == []
    assert compared(after, {}, max_difference=0.02)[1] == []
    faults = compared(after, {}, max_difference=0.02, min_cosine=0.99999)[1]
    assert faults == ["the smallest cosine with the run's features is 0.9999500 (limit 0.99999)"]
    worse = np.array([[0, 0.1], [3, 0], [0, 2]], dtype=np.float32)
    assert compared(worse, {}, max_difference=2.0, max_map_loss=50.0)[1] == []


def test_features_that_depend_on_the_batch_and_foreign_weights_are_faults():
    matrix = np.array([[0, 1], [1, 0]], dtype=np.float32)
    settings = ExportSettings.make()
    gaps = {7: FeatureGap(1.0, 0.1, 0.1), 64: FeatureGap(1.0, 0.0, 0.0)}
    found = compare(retrieval(matrix), retrieval(matrix), {}, settings, batch_gaps=gaps, weights_changed=["w"])
    assert find_faults(found, settings) == [
        "in batches of 7, features change by 0.1 of their length",
        "1 of its tensors are not those of the run, such as w",
    ]


def test_a_sample_is_of_identities_with_a_match_by_another_camera():
    query = Records.make([f"q{pid}" for pid in range(40)], list(range(40)), [0] * 40, "s")
    # Identities 0 to 9 have no gallery image, 10 to 19 one by the query's camera, the others one by another.
    gallery = Records.make([f"g{pid}" for pid in range(10, 40)], list(range(10, 40)), [0] * 10 + [1] * 20, "s")
    test_set = Splits("s", Records.make([], [], [], "s"), query, gallery, "market")
    for seed in range(5):
        found = sample_test_set(test_set, ExportSettings.make(images=8, seed=seed))
        assert sorted(found.query.pids) == sorted(found.gallery.pids)
        assert found.query.pids.min() >= 20
