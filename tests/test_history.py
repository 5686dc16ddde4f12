"""The history of a run."""

from __future__ import annotations

import os

import pytest

from ptlreid.engine import history
from ptlreid.engine.history import History
from ptlreid.errors import DataError, PtlreidError


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
    (tmp_path / "history.jsonl").write_text('{"kind": "note"}\n{"kind"\n{"ki')
    with pytest.raises(DataError, match=r"history\.jsonl, line 2: not a JSON object"):
        history.read(tmp_path / "history.jsonl")


@pytest.mark.parametrize("line", [b"5", b"\xff{}"])
def test_a_line_that_is_no_object_is_named_too(tmp_path, line):
    file = tmp_path / "history.jsonl"
    file.write_bytes(b'{"kind": "note"}\n' + line + b"\n")
    with pytest.raises(DataError, match=r"line 2: not a JSON object"):
        history.read(file)


def test_an_incomplete_last_line_is_ignored(tmp_path):
    (tmp_path / "history.jsonl").write_text('{"kind": "note"}\n{"kind"')
    assert history.read(tmp_path / "history.jsonl") == [{"kind": "note"}]


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ('{"kind": "step", "epoch": 0}', "step"),
        ('{"kind": "step"}', "epoch and step"),
        ('{"kind": "epoch", "epoch": "1"}', "epoch"),
    ],
)
def test_a_line_without_its_numbers_is_named(tmp_path, line, missing):
    (tmp_path / "history.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=rf"line 1: expected integer {missing}\. Remove the line"):
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
