"""`ptlreid compare`: runs side by side, with confidence intervals of their differences."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pytest
import torch
from conftest import write_image

from ptlreid import datasets, models
from ptlreid.evaluation import evaluate_run
from ptlreid.models import weights
from ptlreid.network_types import NetworkSpec
from ptlreid.progress import Silent
from ptlreid.runs import RunFolder
from ptlreid.settings import EvaluateSettings, FinetuneSettings


@pytest.fixture
def runs(tmp_path, market_folder):
    """Three runs of random weights: a, b and, with the weights of a, c."""
    splits = datasets.load("market", market_folder.parent)
    found = {}
    for name, seed in (("a", 0), ("b", 3), ("c", 0)):
        torch.manual_seed(seed)
        network = models.find("tiny").network(NetworkSpec("tiny", False, "slot", 4, 64, 32))
        run = found[name] = RunFolder(tmp_path / "runs" / name)
        settings = {"data": "market", "backbone": "tiny", "init": "none", "height": 64, "width": 32, "ptl": False}
        run.claim(FinetuneSettings.resolve(None, **settings), splits)
        weights.save(network, NetworkSpec("tiny", False, "slot", 4, 64, 32), run.weights())
    return found, splits


def test_differences_are_those_of_the_scores_and_an_equal_run_has_none(ptlreid, runs, market_folder):
    folders, splits = runs
    code, out, err = ptlreid("compare", "a", "b", "c", "--json", "--bootstrap", 300, "--root", market_folder.parent)
    assert code == 0, err
    found = json.loads(out)
    one, two = (evaluate_run(folders[name], splits, EvaluateSettings(), Silent()) for name in "ab")
    assert [run["mAP"] for run in found["runs"]] == [one.mean_ap, two.mean_ap, one.mean_ap]
    digests = [run["weights_digest"] for run in found["runs"]]
    assert digests[0] == digests[2] != digests[1]  # c has the weights of a
    assert digests[1] == hashlib.blake2b(folders["b"].weights().read_bytes(), digest_size=16).hexdigest()
    against_b, against_c = found["differences"]
    assert against_b["mAP"]["difference"] == pytest.approx(two.mean_ap - one.mean_ap)
    assert against_b["cmc"]["1"]["difference"] == pytest.approx(two.cmc[0] - one.cmc[0])
    low, high = against_b["mAP"]["interval"]
    assert low <= against_b["mAP"]["difference"] <= high
    assert (against_b["mAP"]["verdict"] == "significant") == (not low <= 0 <= high)
    nothing = {"difference": 0, "interval": [0, 0], "verdict": "not significant"}
    assert (against_c["mAP"], against_c["cmc"]["1"]) == (nothing, nothing)
    assert against_c["against"] == against_b["against"] == "runs/a"
    assert (found["data"], found["protocol"], found["settings"]["bootstrap"]) == ("market", "market", 300)


def test_the_interval_is_that_of_every_resample_of_three_identities(ptlreid, runs, market_folder):
    """Three identities with two queries each: 27 resamples, enumerated."""
    folders, splits = runs
    one, two = (evaluate_run(folders[name], splits, EvaluateSettings(), Silent()) for name in "ab")
    gaps = two.average_precision - one.average_precision
    by_identity = [gaps[splits.query.pids == pid].mean() for pid in (5, 6, 7)]
    resamples = np.array(np.meshgrid(*[range(3)] * 3)).reshape(3, -1).T
    means = np.array(by_identity)[resamples].mean(axis=1)
    found = ptlreid("compare", "a", "b", "--json", "--bootstrap", 20_000, "--root", market_folder.parent)
    interval = json.loads(found[1])["differences"][0]["mAP"]["interval"]
    assert interval == pytest.approx(np.quantile(np.repeat(means, 1000), (0.025, 0.975)).tolist())


def test_the_seed_determines_the_resamples(ptlreid, runs, market_folder):
    found = [
        json.loads(ptlreid("compare", "a", "b", "--json", *options, "--root", market_folder.parent)[1])["differences"]
        for options in (("--bootstrap", 7), ("--bootstrap", 7, "--seed", 0), ("--bootstrap", 7, "--seed", 1))
    ]
    assert found[0] == found[1] != found[2]


def test_the_verdict_is_printed(ptlreid, runs, market_folder):
    code, out, _ = ptlreid("compare", "a", "c", "--root", market_folder.parent)
    assert code == 0
    assert "c vs. a: mAP +0.0 (95% CI +0.0 to +0.0), not significant." in out
    assert "c vs. a: CMC-1 +0.0 (95% CI +0.0 to +0.0), not significant." in out


def test_what_cannot_be_compared_is_an_error(ptlreid, runs, market_folder):
    folders, _ = runs
    code, _, err = ptlreid("compare", "a", "--root", market_folder.parent)
    assert (code, "expected two or more" in err) == (1, True)
    text = folders["b"].config.read_text()
    folders["b"].config.write_text(text.replace('data = "market"', 'data = "duke"'))
    code, _, err = ptlreid("compare", "a", "b", "--root", market_folder.parent)
    assert (code, "different datasets: market, duke. Choose one with --data." in err) == (1, True)
    assert ptlreid("compare", "a", "b", "--data", "market", "--root", market_folder.parent)[0] == 0


def test_another_root_leaves_the_cached_features_of_the_first(ptlreid, runs, market_folder, tmp_path):
    second = shutil.copytree(market_folder, tmp_path / "other" / "market")
    for path in (second / "query").glob("*.jpg"):
        write_image(path, seed=12345)
    roots = (market_folder.parent, tmp_path / "other")
    for root in roots:
        assert ptlreid("compare", "a", "b", "--root", root)[0] == 0
    for root in roots:
        code, _, err = ptlreid("compare", "a", "b", "--root", root)
        assert (code, err.count("no image decoded"), "re-extracting" in err) == (0, 4, False), err


@pytest.fixture
def methods(tmp_path, market_folder):
    """Runs of random weights called plain-s1, ... and slot-s1, ...: seeds 2, 9 and 10 of both, and 1 of plain alone."""
    splits = datasets.load("market", market_folder.parent)
    found = {}
    for number, (name, seed) in enumerate([("plain", 1), *((one, n) for n in (10, 9, 2) for one in ("plain", "slot"))]):
        torch.manual_seed(number)
        run = found[name, seed] = RunFolder(tmp_path / "runs" / f"{name}-s{seed}")
        values = {"data": "market", "backbone": "tiny", "init": "none", "height": 64, "width": 32, "ptl": False}
        run.claim(FinetuneSettings.resolve(None, seed=seed, **values), splits)
        spec = NetworkSpec("tiny", False, "slot", 4, 64, 32)
        weights.save(models.find("tiny").network(spec), spec, run.weights())
    return found, splits


def test_methods_are_compared_over_the_seeds_that_both_have(ptlreid, methods, market_folder):
    runs, splits = methods
    options = ("compare", "--methods", "plain-s*", "slot-s*", "--root", market_folder.parent, "--bootstrap", 300)
    code, out, err = ptlreid(*options, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["seeds"], found["left_out"]) == ([2, 9, 10], ["plain-s1"])  # in the order of numbers
    assert "left out, as not every method has these seeds: plain-s1" in err
    scores = {
        name: [evaluate_run(runs[name, seed], splits, EvaluateSettings(), Silent()) for seed in (2, 9, 10)]
        for name in ("plain", "slot")
    }
    for one, name in zip(found["methods"], scores, strict=True):
        assert (one["method"], [run["run"] for run in one["runs"]]) == (
            f"{name}-s*",
            [f"runs/{name}-s{seed}" for seed in (2, 9, 10)],
        )
        mean_aps = [score.mean_ap for score in scores[name]]
        assert (one["mean"]["mAP"], one["sd"]["mAP"]) == pytest.approx((np.mean(mean_aps), np.std(mean_aps, ddof=1)))
    (gap,) = found["differences"]
    seed_gaps = [two.mean_ap - one.mean_ap for one, two in zip(*scores.values(), strict=True)]
    assert gap["mAP"]["difference"] == pytest.approx(np.mean(seed_gaps))
    assert gap["mAP"]["standard_errors"]["seeds"] == pytest.approx(np.std(seed_gaps, ddof=1) / np.sqrt(3))
    assert gap["mAP"]["interval"][0] < np.mean(seed_gaps) < gap["mAP"]["interval"][1]
    code, out, _ = ptlreid(*options)
    assert "market (market), mean ± s.d. of seeds 2, 9, 10" in out
    line = next(line for line in out.splitlines() if line.startswith("slot-s* vs. plain-s*: mAP "))
    errors = gap["mAP"]["standard_errors"]
    assert f"standard errors: seeds {100 * errors['seeds']:.2f}, identities {100 * errors['identities']:.2f})" in line


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["plain-s*"], "--methods: one method was given, expected two or more."),
        (["plain-s*", "slot"], "--methods slot: expected a name with one * for the seed, such as 'plain-s*'."),
        (
            ["plain-*", "slot-s*"],
            "--methods plain-*: expected runs of that name below runs, with a number in the place",
        ),
        (["plain-s1*", "slot-s*"], "--methods: all methods have 1 of their seeds, expected two or more"),
        (["plain-s*", "slot-s1*"], "--methods: all methods have 1 of their seeds, expected two or more"),
    ],
)
def test_methods_that_cannot_be_compared_are_an_error(ptlreid, methods, market_folder, patterns, message):
    code, out, err = ptlreid("compare", "--methods", *patterns, "--root", market_folder.parent)
    assert (code, out) == (1, "")
    assert message in err


def test_runs_are_paired_by_their_seeds_and_not_by_their_names(ptlreid, methods, market_folder):
    runs, _ = methods
    runs["plain", 2].path.rename(runs["plain", 2].path.with_name("plain-s009"))
    code, out, err = ptlreid(
        "compare", "--methods", "plain-s*", "slot-s*", "--root", market_folder.parent, "--bootstrap", 50, "--json"
    )
    assert (code, json.loads(out)["seeds"]) == (0, [2, 9, 10]), err


def test_one_common_seed_is_too_few(ptlreid, methods, market_folder):
    runs, _ = methods
    for seed in (9, 10):
        shutil.rmtree(runs["slot", seed].path)
    code, _, err = ptlreid("compare", "--methods", "plain-s*", "slot-s*", "--root", market_folder.parent)
    assert (code, "all methods have 1 of their seeds, expected two or more" in err) == (1, True)


def test_two_runs_of_a_method_with_the_same_seed_are_refused(ptlreid, methods, market_folder):
    runs, _ = methods
    shutil.copytree(runs["plain", 2].path, runs["plain", 2].path.with_name("plain-s3"))
    code, _, err = ptlreid("compare", "--methods", "plain-s*", "slot-s*", "--root", market_folder.parent)
    assert code == 1
    assert "--methods plain-s*: plain-s2 and plain-s3 were trained with the same seed, 2: expected one run per" in err
