"""JSON files: read as they were written, or one message that names file, field, what was expected and what to do."""

from __future__ import annotations

import hashlib
import json
import os
import re

import numpy as np
import pytest
from damage import damage_examples, damaged, within_seconds
from hypothesis import given

from ptlreid.errors import DataError
from ptlreid.json_files import has_digest, parse_json, read_json, write_json
from ptlreid.retrieval.types import Scores
from ptlreid.schemas import Chain, Manifest, Metrics, Origin, Rules, Summary
from ptlreid.thresholds_schema import Thresholds

METRICS = {
    "run": "a run",
    "data": "market",
    "epochs": 2,
    "weights": "last",
    "weights_digest": "0f" * 16,
    "test_images": "1e" * 16,
    "protocol": "market",
    "mAP": 0.5,
    "mINP": 0.25,
    "cmc": {"1": 0.75, "5": 1.0, "10": 1.0, "20": 1.0},
    "queries": {"total": 8, "valid": 6},
    "gallery": {"total": 16, "junk": 0},
}
DATA = {"name": "é", "images": 16, "identities": 4, "labels": "0f", "digest": "1e", "depends": {"init": "2d"}}
CHAIN = {
    "chain": ["a", "b"],
    "stages": [{"run": "a-0", "data": "a", "method": "ptl"}],
    "start": "a-start",
    "data": ["a", "b"],
    "rows": ["start", "a"],
    "scores": [[{"mAP": 0.25, "cmc": {"1": 0.5}}, None], [{"mAP": 0.5, "cmc": {"1": 0.5}}, None]],
    "forward_transfer": {"a": None, "b": -0.125},
    "forgetting": {"a": None, "b": None},
}
ORIGIN = {"data": "lobby", "source": "/crops", "digest": "0f", "seed": 0, "test_share": 0.5}
RULES = {"protocol": "any-camera", "seed": 0, "test_share": 0.5}
THRESHOLDS = {
    "calibrations": [
        {
            "weights_digest": "0f" * 16,
            "readout": {"flip": True, "normalize": False, "amp": "off", "channels_last": False},
            "camera_statistics": "",
            "metric": "cosine",
            "data": "lobby",
            "test_images": "1e" * 16,
            "protocol": "market",
            "cameras": {"query": [1], "gallery": [1, 2]},
            "pairs": {"same": 8, "different": 32},
            "operating_points": [
                {"name": "eer", "threshold": 0.25, "far": 0.125, "tar": 0.875}
                | {"far_interval": [0.0, 0.25], "tar_interval": [0.75, 1.0]},
            ],
            "open_set": [
                {"name": "open-set=0.01", "threshold": None, "far": None, "dir": None}
                | {"far_interval": None, "dir_interval": None, "note": "too few"},
            ],
            "open_set_split": None,
            "curves": {"roc": [[0.0, 0.5], [1.0, 1.0]], "open_set": []},
            "camera_pairs": [{"query": 1, "gallery": 1, "pairs": None, "operating_points": []}],
            "bootstrap": 10,
            "seed": 0,
        }
    ]
}
FILES = [(Metrics, METRICS), (Manifest, DATA), (Chain, CHAIN), (Origin, ORIGIN), (Rules, RULES)]
FILES += [(Thresholds, THRESHOLDS)]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "a.json"


@pytest.mark.parametrize(("schema", "content"), FILES)
def test_what_is_written_is_read(file, schema, content):
    write_json(file, content)
    assert read_json(file, schema, "Remove it.") == content
    assert has_digest(file)


@pytest.mark.parametrize(("schema", "content"), FILES)
def test_files_of_version_0_1_without_a_digest_are_read(file, schema, content):
    file.write_text(json.dumps(content, indent=2))
    assert read_json(file, schema, "Remove it.") == content
    assert not has_digest(file)


def test_the_digest_is_that_of_the_shortest_json_with_sorted_keys(file):
    write_json(file, {"b": 0.5, "a": "é"})
    expected = hashlib.blake2b(b'{"a":"\\u00e9","b":0.5}', digest_size=16).hexdigest()
    assert json.loads(file.read_text(encoding="utf-8")) == {"b": 0.5, "a": "é", "content": expected}


def test_an_edited_score_is_noticed(file):
    write_json(file, METRICS)
    file.write_text(file.read_text().replace('"mAP": 0.5', '"mAP": 0.9'))
    with pytest.raises(
        DataError, match=r"a\.json: changed since it was written: .* with the digest '.{32}'\. Remove it\."
    ):
        read_json(file, Metrics, "Remove it.")


def test_other_spaces_and_another_order_of_keys_are_no_edit(file):
    write_json(file, METRICS)
    content = json.loads(file.read_text())
    file.write_text(json.dumps(dict(reversed(content.items()))))
    assert read_json(file, Metrics, "Remove it.") == METRICS


@pytest.mark.parametrize(("schema", "content"), FILES)
def test_a_damaged_file_is_right_or_one_message(tmp_path_factory, schema, content):
    file = tmp_path_factory.mktemp("damaged") / "a.json"
    write_json(file, content)
    whole = file.read_bytes()

    @damage_examples(0.5)
    @given(damaged(whole))
    def read(part):
        file.write_bytes(part)
        try:
            with within_seconds():
                found = read_json(file, schema, "Remove it.")
        except DataError as error:
            assert re.fullmatch(r"\S+a\.json: [^\n]+\. Remove it\.", str(error))
            assert len(str(error)) < len(str(file)) + 400
        else:
            assert b'"content"' not in part or found == content

    read()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mAP": "0.5"}, "mAP = '0.5': expected a valid number"),
        ({"mAP": True}, "mAP = True: expected a valid number"),
        ({"mAP": float("nan")}, "mAP = nan: expected a finite number"),
        ({"mAP": 10**4000}, "mAP = 1000"),
        ({"epochs": 2**63}, "epochs = 9223372036854775808: expected less than"),
        ({"epochs": 1.5}, "epochs = 1.5: expected a valid integer"),
        ({"cmc": {"5": 1.0}}, "cmc.1 is missing"),
        ({"cmc": {"1": None}}, "cmc.1 = None: expected a valid number"),
        ({"queries": [8, 6]}, r"queries = \[8, 6\]: expected a JSON object"),
        ({"mAp": 0.5}, r"mAp is no key of this file"),
        ({"weights": "\x1b[2J\n"}, r"weights = '\\x1b\[2J\\n': expected 'last'"),
    ],
)
def test_a_wrong_field_is_named_with_its_value_and_what_was_expected(file, change, message):
    file.write_text(json.dumps(METRICS | change))
    with pytest.raises(DataError, match=rf"a\.json: {message}.*\. Remove it\.$"):
        read_json(file, Metrics, "Remove it.")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"5", "found 5, expected a JSON object"),
        (b"\xff\xfe{\x00}\x00", "a file of an unknown kind"),
        (b"<!DOCTYPE html>", "an HTML page"),
        (b'{"epochs": 2', "Expecting"),
        (b"[" * 10**6, "recursion"),
        (b'{"epochs": ' + b"9" * 10**5 + b"}", "limit"),
        (b'{"epochs": 2} {}', "Extra data"),
    ],
)
def test_what_is_no_json_is_described(file, content, message):
    file.write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.json: .*{message}.*\. Remove it\.$"):
        read_json(file, Metrics, "Remove it.")


def test_a_folder_a_pipe_and_nothing_are_described(file):
    with pytest.raises(DataError, match=r"a\.json: cannot be read \(No such file or directory\)\. Remove it\."):
        read_json(file, Metrics, "Remove it.")
    file.mkdir()
    with pytest.raises(DataError, match=r"a\.json: a folder, expected a file\. Remove it\."):
        read_json(file, Metrics, "Remove it.")
    file.rmdir()
    os.mkfifo(file)
    with within_seconds(), pytest.raises(DataError, match=r"a\.json: a pipe or device, expected a file\. Remove it\."):
        read_json(file, Metrics, "Remove it.")


def test_names_that_are_not_utf_8_are_kept(file):
    write_json(file, ORIGIN | {"source": "/crops\udcff"})
    assert read_json(file, Origin, "Remove it.") == ORIGIN | {"source": "/crops\udcff"}


def test_all_scores_of_an_evaluation_have_a_place_in_the_schema():
    one, none = np.ones(1), np.zeros(1, dtype=np.int64)
    summary = Scores("market", 1, 1, 0, none, one, one, np.ones((1, 5)), one, none, np.arange(2)).summary()
    assert parse_json(json.dumps(summary).encode(), Summary, "scores", "") == summary
