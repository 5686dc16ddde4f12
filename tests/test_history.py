"""The history of a run."""

from __future__ import annotations

import math
import os

import pytest

from ptlreid.engine import history
from ptlreid.engine.history import History
from ptlreid.errors import DataError, PtlreidError

EPOCH = '{"kind": "epoch", "epoch": 1}'


def test_lines_after_the_last_checkpoint_are_cut(tmp_path):
    path = tmp_path / "history.jsonl"
    with History(path) as first:
        first.add("step", epoch=0, step=0, loss=1.5)
        kept = first.flush()
        first.add("step", epoch=0, step=1, loss=0.5)
    with History(path, keep=kept) as second:
        second.add("step", epoch=0, step=1, loss=0.25)
    step = {"kind": "step", "epoch": 0}
    assert history.read(path) == [{**step, "step": 0, "loss": 1.5}, {**step, "step": 1, "loss": 0.25}]


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "history.jsonl").write_text(f'{EPOCH}\n{{"kind"\n{{"ki')
    with pytest.raises(
        DataError,
        match=r"history\.jsonl, line 2: not readable as JSON: Expecting .* column 8 .*Remove the line",
    ):
        history.read(tmp_path / "history.jsonl")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"5", "found 5, expected a JSON object"),
        (b"\xff{}", "not readable as JSON"),
        (b'{"kind": "note"}', "kind = 'note': expected 'step', 'epoch' or 'clusters'"),
        (b'{"epoch": 1}', "kind is missing"),
        (b"[" * 10_000, "not readable as JSON: maximum recursion"),
    ],
)
def test_a_line_that_is_no_step_and_no_epoch_is_named_too(tmp_path, line, message):
    file = tmp_path / "history.jsonl"
    file.write_bytes(EPOCH.encode() + b"\n" + line + b"\n")
    with pytest.raises(DataError, match=f"line 2: {message}"):
        history.read(file)


def test_an_incomplete_last_line_is_ignored(tmp_path):
    (tmp_path / "history.jsonl").write_text(f'{EPOCH}\n{{"kind"')
    assert history.read(tmp_path / "history.jsonl") == [{"kind": "epoch", "epoch": 1}]


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ('{"kind": "step", "epoch": 0}', "step is missing"),
        ('{"kind": "step"}', "epoch is missing"),
        ('{"kind": "epoch", "epoch": "1"}', "epoch = '1': expected a valid integer"),
        ('{"kind": "epoch", "epoch": -1}', "epoch = -1: expected greater than or equal to 0"),
        ('{"kind": "step", "epoch": 0, "step": 0, "loss": NaN}', "loss = nan: expected a finite number"),
        ('{"kind": "step", "epoch": 0, "step": 0, "lose": 1}', "lose is no key of this file"),
        ('{"kind": "epoch", "epoch": 1, "cmc": {"1": 2.0}}', "cmc.1 = 2.0: expected less than or equal to 1"),
    ],
)
def test_a_line_with_wrong_keys_or_numbers_is_named(tmp_path, line, missing):
    (tmp_path / "history.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=rf"line 1: {missing}.*\. Remove the line"):
        history.read(tmp_path / "history.jsonl")


def test_a_link_in_place_of_the_history_is_refused_and_its_target_untouched(tmp_path):
    target = tmp_path / "diary.txt"
    target.write_text("Dear diary")
    (tmp_path / "history.jsonl").symlink_to(target)
    with pytest.raises(PtlreidError, match=r"history\.jsonl: is a link, a folder or a pipe, expected"):
        History(tmp_path / "history.jsonl")
    assert target.read_text() == "Dear diary"


def test_a_pipe_in_place_of_the_history_is_refused_and_waited_for_by_nobody(tmp_path):
    os.mkfifo(tmp_path / "history.jsonl")
    with pytest.raises(PtlreidError, match=r"history\.jsonl: is a link, a folder or a pipe, expected"):
        History(tmp_path / "history.jsonl")


def test_the_size_after_a_cut_is_that_of_the_kept_lines(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text("12345")
    with History(path, keep=3) as cut:
        assert cut.flush() == 3
    assert path.read_text() == "123"


def test_keys_of_version_0_1_and_cells_that_overflowed_are_read(tmp_path):
    lines = [
        '{"kind": "step", "epoch": 0, "step": 0, "loss": 1.5, "lr": 0.01, "images": 32, "memory": 9}',
        '{"kind": "epoch", "epoch": 1, "cells": {"0": {"state_norm": Infinity}}}',
    ]
    (tmp_path / "history.jsonl").write_text("\n".join(lines) + "\n")
    step, epoch = history.read(tmp_path / "history.jsonl")
    assert step["memory"] == 9
    assert epoch["cells"] == {"0": {"state_norm": math.inf}}


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="no /dev/full on this system")
def test_a_full_disk_is_one_message_with_the_name_of_the_file(tmp_path):
    path = tmp_path / "history.jsonl"
    with (
        pytest.raises(
            PtlreidError, match=r"history\.jsonl: cannot be written \(No space left on device\): expected room"
        ),
        History(path) as entries,
    ):
        os.dup2(os.open("/dev/full", os.O_WRONLY), entries._file.fileno())
        entries.add("step", epoch=0)
        entries.flush()
