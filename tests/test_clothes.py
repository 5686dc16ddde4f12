"""Clothes as labels: LTCC and PRCC, the protocol `cloth-changing`, and all that is made from features."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import replace

import miniatures
import numpy as np
from conftest import tiny_network

from ptlreid import cache, datasets
from ptlreid.features import Extractor
from ptlreid.models import weights
from ptlreid.models.weights import WeightsFile
from ptlreid.network_types import NetworkSpec, Readout
from ptlreid.runs import RunFolder
from ptlreid.settings import FinetuneSettings
from ptlreid.views import EvalView

WRITERS = {"ltcc": miniatures.write_ltcc, "prcc": miniatures.write_prcc, "veri": miniatures.write_veri}


def load(name, root):
    WRITERS[name](root / name)
    return datasets.load(name, root)


def make_run(folder, splits):
    """A run of the tiny network with random weights, trained on `splits` as far as its folder says."""
    settings = FinetuneSettings.resolve(None, data=splits.name, backbone="tiny", init="none", height=64, width=32)
    folder.claim(settings, splits)
    weights.save(tiny_network(classes=3), NetworkSpec("tiny", True, "slot", 3, 64, 32), folder.weights())


def test_a_run_on_one_setting_of_prcc_is_evaluated_in_the_other(ptlreid, tmp_path):
    make_run(RunFolder(tmp_path / "runs" / "run"), load("prcc", tmp_path / "data"))
    code, out, err = ptlreid("evaluate", "--run", "run", "--data", "prcc:same", "--json")
    assert code == 0, err
    assert (json.loads(out)["data"], json.loads(out)["queries"]["valid"]) == ("prcc:same", 6)
    # Camera C has other clothes than the gallery, camera B the same: under cloth-changing, only its queries match.
    code, out, err = ptlreid("evaluate", "--run", "run", "--protocol", "cloth-changing", "--json")
    assert (code, json.loads(out)["queries"]) == (0, {"total": 6, "valid": 6}), err
    code, _, err = ptlreid("evaluate", "--run", "run", "--data", "prcc:same", "--protocol", "cloth-changing")
    assert (code, "Only images of the query's identity by other cameras and in other clothes count" in err) == (1, True)


def test_names_of_ltcc_give_person_clothes_and_camera(tmp_path):
    splits = load("ltcc", tmp_path)
    assert [len(part) for part in splits.parts] == [24, 10, 10]
    for part in splits.parts:
        expected = [[int(number) for number in path.name.replace("c", "").split("_")[:3]] for path in part.paths]
        assert np.column_stack([part.pids, part.clothes, part.camids]).tolist() == expected


def test_both_settings_of_ltcc_are_scored_from_the_same_features(ptlreid, tmp_path):
    """By hand: persons 3 and 4 have a match in the same clothes and one in others, by the other camera; person 5 one in
    the same.
    """
    splits = load("ltcc", tmp_path / "data")
    for name in ("run", "other"):
        make_run(RunFolder(tmp_path / "runs" / name), splits)
    code, out, err = ptlreid("evaluate", "--run", "run", "--json")
    assert (code, json.loads(out)["queries"]) == (0, {"total": 10, "valid": 10}), err
    changing = ("--protocol", "cloth-changing")
    code, out, err = ptlreid("evaluate", "--run", "run", *changing, "--csv", "q.csv", "--per-camera", "--json")
    assert (code, err.count("cached features, no image decoded")) == (0, 2), err
    assert (json.loads(out)["protocol"], json.loads(out)["queries"]) == ("cloth-changing", {"total": 10, "valid": 8})
    rows = list(csv.DictReader((tmp_path / "q.csv").read_text().splitlines()))
    assert [row["pid"] for row in rows if not row["AP"]] == ["5", "5"]
    for command in (("compare", "run", "other"), ("report", "run"), ("calibrate", "--run", "run", "--json")):
        code, out, err = ptlreid(*command, *changing)
        assert code == 0, err
        pages = [path.read_text() for path in (tmp_path / "runs" / "run").rglob("*.html")]
        assert "cloth-changing" in "".join([out, *pages])
    # Features that are cached, with their clothes, are feature files as well.
    files = [str(file) for part in ("query", "gallery") for file in (tmp_path / "runs/run").rglob(f"ltcc.{part}.*.h5")]
    code, again, err = ptlreid("evaluate", "--query", files[0], "--gallery", files[1], *changing, "--json")
    assert (code, json.loads(again)["queries"]) == (0, {"total": 10, "valid": 8}), err


def test_a_dataset_without_clothes_refuses_cloth_changing_before_images_are_read(ptlreid, tmp_path):
    splits = load("veri", tmp_path / "data")
    make_run(RunFolder(tmp_path / "runs" / "run"), splits)
    for path in (tmp_path / "data").rglob("*.jpg"):
        path.write_bytes(b"no image")
    for dry_run in ((), ("--dry-run",)):
        code, _, err = ptlreid("evaluate", "--run", "run", "--protocol", "cloth-changing", *dry_run)
        assert (code, "needs the clothes of every image, and query and gallery have none" in err) == (1, True), err


def test_clothes_are_part_of_what_cached_features_depend_on_where_there_are_any(tmp_path):
    """A cache of version 2 of a dataset without clothes stays valid: its digest is of identities and cameras."""
    records = load("ltcc", tmp_path).query
    network = WeightsFile(tmp_path / "w", NetworkSpec("tiny", True, "slot", 3, 64, 32), Readout(), "digest")
    extractor = Extractor(network, Readout(), EvalView(64, 32), "cpu", 4, 0)
    others = (records, replace(records, clothes=records.clothes + 1), replace(records, clothes=None))
    digests = [cache.fingerprint(extractor, one, "float32")["labels"] for one in others]
    plain = hashlib.blake2b(records.pids.tobytes() + records.camids.tobytes(), digest_size=16).hexdigest()
    assert len({*digests}) == 3
    assert digests[2] == plain
