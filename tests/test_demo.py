"""The demo, on a small scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ranking import evaluate
from test_finetune import StoppedAt

from ptlreid import datasets
from ptlreid.datasets import synthetic
from ptlreid.progress import Silent
from ptlreid.records import Records
from ptlreid.retrieval.protocols import PROTOCOLS
from ptlreid.retrieval.types import Features
from ptlreid.settings import DemoSettings, SyntheticSettings
from ptlreid.workflows.demo import run_demo


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")


@pytest.mark.slow
def test_the_second_time_everything_is_reused(place):
    settings = DemoSettings.resolve(None, root=str(place / "data"), epochs=1, identities=8, device="cpu")
    first = run_demo(settings, place / "runs", StoppedAt(-1))
    found = first.search["queries"]
    assert list(first.scores) == ["as it is", "adapted without labels", "fine-tuned"]
    # All four test people are searched, by one image each, among the images of other cameras.
    names = [[Path(one["paths"][0]).name, *(Path(hit["path"]).name for hit in one["hits"])] for one in found]
    assert len({query[:4] for query, *_ in names}) == len(names) == 4
    assert not [hit for query, *hits in names for hit in hits if hit[4:7] == query[4:7]]
    nearest = [
        one["hits"][0]["accepted"] and hit[:4] == query[:4] for one, (query, hit, *_) in zip(found, names, strict=True)
    ]
    assert first.num_right == sum(nearest)
    points = {one["name"]: one for part in ("open_set", "operating_points") for one in first.calibration[part]}
    assert first.search["threshold"] == points[first.search["settings"]["threshold"]]["threshold"]
    assert first.page.is_file()
    assert (first.page.parent / "report.html").is_file()
    progress = StoppedAt(1)  # raises if an update is made
    again = run_demo(settings, place / "runs", progress)
    assert again.scores == first.scores
    assert again.search == first.search
    assert sum("reused" in note for note in progress.notes) == 5  # two sites, three runs


def test_an_existing_site_with_other_settings_is_used_as_it_is(tmp_path):
    drawn = SyntheticSettings.resolve(None, identities=4, cameras=2, images_per_camera=2, height=64, width=32)
    for site in ("a", "b"):
        synthetic.prepare(tmp_path / "data" / f"synthetic-{site}", site, drawn)
    settings = DemoSettings.resolve(None, root=str(tmp_path / "data"), epochs=1, device="cpu")
    with pytest.raises(Exception, match="8 training images do not fill one batch of 32"):
        run_demo(settings, tmp_path / "runs", StoppedAt(-1))


@pytest.fixture(scope="module")
def small_site(tmp_path_factory):
    """A synthetic site with the defaults of `ptlreid prepare synthetic`, but a quarter of the identities."""
    root = tmp_path_factory.mktemp("site")
    synthetic.prepare(root / "synthetic-a", "a", SyntheticSettings.resolve(None, identities=32))
    return root


def colours(records: Records, rows: slice, columns: slice) -> Features:
    """8×8×8 colour histograms of a part of each image, square-rooted: Euclidean distance is then Hellinger's."""
    histograms = []
    for path in records.paths:
        with Image.open(path) as image:
            pixels = np.asarray(image)[rows, columns].reshape(-1, 3) // 32
        counts = np.bincount(pixels @ np.array([64, 8, 1]), minlength=512)
        histograms.append(np.sqrt(counts / counts.sum()))
    paths = np.array([str(path) for path in records.paths], dtype=object)
    return Features(np.array(histograms, dtype=np.float32), records.pids, records.camids, paths)


@pytest.mark.parametrize("part", [(slice(None), slice(None)), (slice(24, 112), slice(16, 48))], ids=["image", "body"])
def test_raw_colours_do_not_distinguish_identities(small_site, part):
    splits = datasets.load("synthetic-a", small_site)
    query, gallery = (colours(records, *part) for records in (splits.query, splits.gallery))
    assert evaluate(query, gallery, PROTOCOLS["market"]).mean_ap < 0.4  # 16 identities; 128 are harder


@pytest.mark.slow
def test_a_network_is_better_on_the_new_site_once_it_is_adapted_and_best_once_fine_tuned(tmp_path):
    settings = DemoSettings.resolve(None, root=str(tmp_path / "data"), epochs=4, identities=32, device="cpu")
    scores = run_demo(settings, tmp_path / "runs", Silent()).scores
    as_it_is, adapted, tuned = (scores[name]["mAP"] for name in scores)
    assert as_it_is < adapted < tuned
