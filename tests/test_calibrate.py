"""`ptlreid calibrate`, from a run and from files of features, and the thresholds that it saves."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from conftest import tiny_network, write_image
from damage import damage_examples, damaged, within_seconds
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

import ptlreid
from ptlreid.calibrations import FeatureOrigin, find_calibration, find_threshold, read_calibrations, save_calibration
from ptlreid.errors import DataError, OptionError
from ptlreid.features import Extractor
from ptlreid.models import weights
from ptlreid.network_types import NetworkSpec
from ptlreid.progress import Silent
from ptlreid.runs import RunFolder
from ptlreid.settings import CalibrateSettings, EvaluateSettings
from ptlreid.settings.report import ReportSettings
from ptlreid.workflows.report_thresholds import describe_thresholds

KEYS = {
    *("protocol", "metric", "cameras", "pairs", "operating_points", "open_set", "open_set_split", "curves"),
    *("bootstrap", "seed"),
}


@pytest.fixture
def calibrated(run, market_folder):
    """The document of `calibrate` on that run, with settings that its few pairs allow."""

    def calibrate_with(**settings):
        rates = {"false_accept_rates": [0.5, 0.001], "open_set_rates": [0.6, 0.01]}
        return ptlreid.calibrate_run(run, root=str(market_folder.parent), **{"bootstrap": 20} | rates | settings)

    return calibrate_with


def origin_of(run: RunFolder, metric="euclidean", **settings) -> FeatureOrigin:
    return FeatureOrigin.of(Extractor.from_run(run, EvaluateSettings.resolve(None, **settings)), metric)


def made(seed: int, size: int, *, identities: int = 12, width: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    pids = rng.integers(0, identities, size)
    centres = np.random.default_rng(9).normal(size=(identities, width))
    features = (centres[pids] + 0.5 * rng.normal(size=(size, width))).astype(np.float32)
    return {"features": features, "pids": pids, "camids": rng.integers(1, 3, size)}


@pytest.fixture
def files(tmp_path):
    """Features of another program: q.npz and g.npz in the folder where commands run."""
    sides = made(0, 100), made(1, 150)
    for name, side in zip("qg", sides, strict=True):
        np.savez(tmp_path / f"{name}.npz", **side)
    return sides


FILES = ("calibrate", "--query", "q.npz", "--gallery", "g.npz", "--bootstrap", "50")


def pairs_of(query, gallery):
    """Distances of the pairs that the Market-1501 protocol leaves, and which of them are of one identity."""
    distances = np.linalg.norm(query["features"][:, None].astype(float) - gallery["features"], axis=2)
    same = query["pids"][:, None] == gallery["pids"]
    seen = ~(same & (query["camids"][:, None] == gallery["camids"]))
    return distances[seen], same[seen]


def test_operating_points_of_files_are_those_of_scikit_learn(ptlreid, files):
    code, out, err = ptlreid(*FILES, "--json", "--false-accept-rates", "0.1,0.01,0.00001")
    assert code == 0, err
    found = json.loads(out)
    assert set(found) == KEYS | {"files"}
    distances, same = pairs_of(*files)
    assert found["pairs"] == {"same": same.sum(), "different": (~same).sum()}
    false, true, _ = roc_curve(same, -distances, drop_intermediate=False)
    equal, *at_rates, rare = found["operating_points"]
    assert equal["name"] == "eer"
    assert abs(equal["far"] - (1 - equal["tar"])) == pytest.approx(np.abs(false - (1 - true)).min())
    for point, rate in zip(at_rates, (0.1, 0.01), strict=True):
        at = np.flatnonzero(false <= rate)[-1]
        assert (point["name"], point["far"], point["tar"]) == (f"far={rate}", false[at], true[at])
        below = distances < point["threshold"]
        assert (below[~same].mean(), below[same].mean()) == (point["far"], point["tar"])
        assert point["far_interval"][0] <= point["far"] <= point["far_interval"][1]
        assert point["tar_interval"][0] < point["tar"] < point["tar_interval"][1]
    count = f"{(~same).sum():,}"
    nothing = dict.fromkeys(("threshold", "far", "far_interval", "tar", "tar_interval"))
    assert rare == {"name": "far=1e-05", **nothing, "note": f"not measurable with {count} pairs"}
    assert [point["name"] for point in at_rates] == ["far=0.1", "far=0.01"]


def test_points_of_the_curves_are_points_of_the_roc(ptlreid, files):
    found = json.loads(ptlreid(*FILES, "--json")[1])["curves"]
    distances, same = pairs_of(*files)
    false, true, _ = roc_curve(same, -distances, drop_intermediate=False)
    on_curve = {(round(x, 12), round(y, 12)) for x, y in zip(false, true, strict=True)}
    assert len(found["roc"]) > 20
    near = [min(abs(x - a) + abs(y - b) for a, b in on_curve) for x, y in found["roc"]]
    assert max(near) < 1e-3  # bins away from the operating points are not divided
    assert found["roc"] == sorted(found["roc"])
    assert found["open_set"] == sorted(found["open_set"])


def test_the_memory_budget_and_a_second_time_change_nothing(ptlreid, files):
    first = json.loads(ptlreid(*FILES, "--json")[1])
    assert json.loads(ptlreid(*FILES, "--json", "--memory-budget", "1KB")[1]) == first
    assert json.loads(ptlreid(*FILES, "--json", "--seed", 1)[1]) != first


def test_camera_pairs_are_calibrated_on_their_own_pairs(ptlreid, files):
    query, gallery = files
    code, out, err = ptlreid(*FILES, "--json", "--per-camera", "--false-accept-rates", "0.1")
    assert code == 0, err
    cells = json.loads(out)["camera_pairs"]
    assert [(cell["query"], cell["gallery"]) for cell in cells] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    for cell in cells:
        if cell["query"] == cell["gallery"]:  # the protocol leaves no same-identity pair
            assert (cell["pairs"], cell["operating_points"]) == (None, [])
            continue
        sides = [(query, cell["query"]), (gallery, cell["gallery"])]
        one, other = ({key: value[side["camids"] == cam] for key, value in side.items()} for side, cam in sides)
        distances, same = pairs_of(one, other)
        assert cell["pairs"] == {"same": same.sum(), "different": (~same).sum()}
        false, true, _ = roc_curve(same, -distances, drop_intermediate=False)
        point = cell["operating_points"][1]
        at = np.flatnonzero(false <= 0.1)[-1]
        assert (point["far"], point["tar"]) == (false[at], true[at])


def test_the_table_states_points_counts_cameras_and_what_is_not_measurable(ptlreid, files):
    code, out, err = ptlreid(*FILES, "--false-accept-rates", "0.1,0.00001", "--per-camera")
    assert code == 0, err
    assert "far=0.1" in out
    assert "far=1e-05: not measurable with " in out
    assert "cameras 1, 2 (queries) and 1, 2 (gallery) of these files: measure again for others." in out
    assert "Queries from camera 1, gallery images from camera 2" in out
    assert "Queries from camera 1, gallery images from camera 1" not in out


def test_a_run_keeps_its_thresholds_under_what_they_depend_on(calibrated, run):
    found = calibrated()
    assert set(found) == KEYS | {
        *("run", "thresholds", "data", "test_images", "weights_digest", "readout", "camera_statistics")
    }
    saved = json.loads(run.thresholds.read_text())["calibrations"]
    assert saved == [{key: value for key, value in found.items() if key not in ("run", "thresholds")}]
    calibrated(metric="cosine")
    calibrated(flip=True)
    assert [(one["metric"], one["readout"]["flip"]) for one in read_calibrations(run)] == [
        ("euclidean", False),
        ("cosine", False),
        ("euclidean", True),
    ]
    again = calibrated(seed=3)
    assert len(read_calibrations(run)) == 3
    assert find_calibration(run, origin_of(run))["seed"] == again["seed"] == 3


def test_a_threshold_is_found_by_name(calibrated, run, tmp_path):
    points = calibrated()["operating_points"]
    by_name = {point["name"]: point["threshold"] for point in points}
    origin = origin_of(run)
    assert find_threshold(run, "eer", origin) == by_name["eer"]
    for name in ("far=0.5", "far=5e-1", " FAR=.5 "):
        assert find_threshold(run, name, origin) == by_name["far=0.5"]
    assert ptlreid.find_threshold("tiny", "far=0.5", runs=tmp_path / "runs") == by_name["far=0.5"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("far=0.2", "threshold far=0.2: expected one of eer, far=0.5, far=0.001, open-set=0.6, open-set=0.01. Calib"),
        ("far", "threshold far: expected one of eer"),
        ("0.3", "threshold 0.3: expected one of eer"),
        ("far=0.001", "threshold far=0.001: not measurable with .* pairs of market. Choose a higher rate"),
    ],
)
def test_a_threshold_that_is_not_there_is_an_error(calibrated, run, name, message):
    calibrated()
    with pytest.raises(OptionError, match=message):
        find_threshold(run, name, origin_of(run))


def test_thresholds_of_other_features_are_refused(calibrated, run):
    with pytest.raises(OptionError, match=r"thresholds.json: no such file, expected the thresholds of this run"):
        find_threshold(run, "eer", origin_of(run))
    calibrated()
    origin = origin_of(run)
    for changed, message in (
        (origin_of(run, metric="cosine"), r"\(metric: euclidean -> cosine\): expected the same"),
        (origin_of(run, flip=True, normalize=True), r"\(flip: False -> True; normalize: False -> True\)"),
        (replace(origin, camera_statistics="0f"), r"\(other statistics of cameras\)"),
    ):
        with pytest.raises(OptionError, match=message):
            find_threshold(run, "eer", changed)
    network = tiny_network(classes=4)
    network.head.classifier[0].weight.data += 1
    weights.save(network, NetworkSpec("tiny", True, "slot", 4, 64, 32), run.weights())
    with pytest.raises(OptionError, match=r"of other features \(other weights\): expected the same. Calibrate again"):
        find_threshold(run, "eer", origin_of(run))


def test_an_edited_file_is_refused_and_replaced(calibrated, run):
    calibrated()
    run.thresholds.write_text(run.thresholds.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(
        DataError, match=r"changed since it was written: .* Remove it and run `ptlreid calibrate` again"
    ):
        find_threshold(run, "eer", origin_of(run))
    calibrated()
    assert find_threshold(run, "eer", origin_of(run)) > 0


@damage_examples()
@given(data=st.data())
def test_a_damaged_file_gives_the_same_threshold_or_an_error(calibrated, run, data):
    if not run.thresholds.exists():
        calibrated()
    content, origin = run.thresholds.read_bytes(), origin_of(run)
    expected = find_threshold(run, "eer", origin)
    try:
        run.thresholds.write_bytes(data.draw(damaged(content)))
        with within_seconds(), suppress(DataError):
            assert find_threshold(run, "eer", origin) == expected
    finally:
        run.thresholds.write_bytes(content)


def test_a_dry_run_measures_nothing(ptlreid, run, market_folder):
    code, out, _ = ptlreid("calibrate", "--run", "tiny", "--root", market_folder.parent, "--dry-run", "--json")
    assert code == 0
    assert json.loads(out)["settings"]["false_accept_rates"] == [0.01, 0.001, 0.0001]
    assert not run.thresholds.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Nothing to calibrate: expected --run RUN, --model FILE, or --query"),
        (("--query", "q.npz"), "Nothing to calibrate"),
        (("--query", "q.npz", "--gallery", "g.npz", "--flip"), "--flip: for a --run only"),
        (("--query", "one.npz", "--gallery", "one.npz"), "under protocol 'market' give 0 same-identity and"),
        (
            ("--query", "q.npz", "--gallery", "g.npz", "--false-accept-rates", "1"),
            "expected a list of numbers in (0, 1)",
        ),
        (("--query", "q.npz", "--gallery", "g.npz", "--config", "re.toml"), "rerank = True: expected none in a cal"),
    ],
)
def test_a_mistake_is_named(ptlreid, files, tmp_path, arguments, message):
    one_camera = files[0] | {"camids": np.ones(100, dtype=int)}
    np.savez(tmp_path / "one.npz", **one_camera)
    (tmp_path / "re.toml").write_text("rerank = true\n")
    code, out, err = ptlreid("calibrate", *arguments)
    assert (code, out) == (1, "")
    assert message in err
    assert err.splitlines()[-1].startswith("error: ")


def test_too_few_identities_for_searches_are_a_note(ptlreid, tmp_path):
    np.savez(tmp_path / "q.npz", features=np.zeros((1, 2), np.float32), pids=[1], camids=[1])
    np.savez(tmp_path / "g.npz", features=np.eye(2, dtype=np.float32), pids=[1, 2], camids=[2, 2])
    code, out, err = ptlreid(*FILES, "--json")
    assert code == 0
    assert "no open-set rates: 1 identities have a query with a true match" in err
    found = json.loads(out)
    assert (found["open_set"], found["open_set_split"]) == ([], None)


@pytest.fixture
def other_site(tmp_path):
    """`other` below `sites`: another dataset in Market-1501's layout."""
    folder = tmp_path / "sites" / "market"
    for pid in range(11, 15):
        for camid in (1, 2):
            write_image(folder / "bounding_box_train" / f"{pid:04d}_c{camid}s1_000001_00.jpg", 7 * pid + camid)
            write_image(folder / "query" / f"{pid + 9:04d}_c{camid}s1_000001_00.jpg", 30 * pid + camid)
            write_image(folder / "bounding_box_test" / f"{pid + 9:04d}_c{camid}s1_000002_00.jpg", 31 * pid + camid)
    return folder.parent


def test_thresholds_are_applied_to_another_dataset(ptlreid, calibrated, run, other_site):
    found = calibrated(per_camera=True)
    arguments = ("evaluate", "--run", "tiny", "--root", other_site, "--thresholds", "tiny", "--bootstrap", 50)
    code, out, err = ptlreid(*arguments, "--json")
    assert code == 0, err
    applied = json.loads(out)["thresholds"]
    assert applied["data"] == "market"
    distances, same = pairs_of(*(features_of(run, part) for part in ("query", "gallery")))
    names = [point["name"] for point in found["operating_points"] if point["threshold"] is not None]
    assert [point["name"] for point in applied["operating_points"]] == names == ["eer", "far=0.5"]
    for point, there in zip(applied["operating_points"], found["operating_points"], strict=False):
        below = distances < there["threshold"]
        assert point["calibrated"] == {"far": there["far"], "tar": there["tar"]}
        assert (point["far"], point["tar"]) == (below[~same].mean(), below[same].mean())
        assert point["tar_interval"][0] <= point["tar"] <= point["tar_interval"][1]
    assert [point["name"] for point in applied["open_set"]] == ["open-set=0.6"]
    code, out, _ = ptlreid(*arguments)
    assert "Pairs of market (here) at the thresholds calibrated on market (there)" in out
    assert "Searches in market (here)" in out


def features_of(run: RunFolder, part: str) -> dict[str, np.ndarray]:
    """The cached features of the dataset in a second folder, whose name has a digest of that folder."""
    found = ptlreid.read_features(next(run.features.glob(f"market.{part}.last.*.h5")))
    return {"features": found.matrix, "pids": found.pids, "camids": found.camids}


def test_thresholds_that_do_not_fit_are_refused_before_any_work(ptlreid, calibrated, run, files, market_folder):
    calibrated()
    run.features.rename(run.path / "moved")
    arguments = ("evaluate", "--run", "tiny", "--root", market_folder.parent, "--thresholds", "tiny")
    for options, message in (
        (("--metric", "cosine"), "of other features (metric: euclidean -> cosine)"),
        (("--rerank",), "with rerank: expected plain distances, as thresholds are of these. Leave out one of them."),
    ):
        code, out, err = ptlreid(*arguments, *options)
        assert (code, out) == (1, "")
        assert message in err
    assert not run.features.exists()
    code, _, err = ptlreid("evaluate", *FILES[1:5], "--thresholds", "tiny")
    assert (code, "--thresholds: for a --run only" in err) == (1, True)


def test_a_report_shows_the_thresholds_of_the_weights_as_they_are(ptlreid, calibrated, run):
    roc = ("report", "tiny", "--figure", "roc", "--out", "roc.svg")
    code, _, err = ptlreid(*roc)
    assert (code, "no thresholds of weights.safetensors as it is now" in err) == (1, True)
    calibrated()
    settings = ReportSettings.resolve(None)
    (section,), notes = describe_thresholds(run, settings, Silent())
    assert (section.title, notes) == ("Thresholds", [])
    assert ptlreid(*roc)[0] == 0
    code, _, err = ptlreid(*roc, "--metric", "cosine")
    assert (code, "--figure roc shows the thresholds in thresholds.json, expected no metric" in err) == (1, True)
    weights.save(tiny_network("none", classes=4), NetworkSpec("tiny", True, "none", 4, 64, 32), run.weights())
    sections, (note,) = describe_thresholds(run, settings, Silent())
    assert sections == []
    assert note.startswith("No section on thresholds. ")


def test_plain_distances_only():
    for settings in ({"rerank": True}, {"expand": 3, "metric": "cosine"}):
        with pytest.raises(OptionError, match="expected none in a calibration"):
            CalibrateSettings.resolve(None, **settings)


def test_calibrations_at_once_are_all_kept(calibrated, run):
    found = calibrated()
    calibration = {key: value for key, value in found.items() if key not in ("run", "thresholds")}
    run.thresholds.unlink()
    start = threading.Barrier(4)

    def save(number: int) -> None:
        start.wait()
        save_calibration(run, {**calibration, "weights_digest": f"{number:032x}"}, Silent())

    for _ in range(5):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(save, range(4)))
        assert {int(one["weights_digest"], 16) for one in read_calibrations(run)} == set(range(4))
        run.thresholds.unlink()
