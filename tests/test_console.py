"""What the command line prints: in any encoding and width, and where nobody reads it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from rich.console import Console

from ptlreid.cli import console


def run(*words: str, **how) -> subprocess.CompletedProcess[str]:
    """A command in a new process; `env` in `how` adds to the environment."""
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | how
    how["env"] = {**os.environ, **how.get("env", {})}
    return subprocess.run([sys.executable, "-m", "ptlreid", *words], check=False, **how)


def in_terminal(columns: int, *words: str, **env: str) -> str:
    """What a command prints on a terminal of this many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(ours, "rb", buffering=0) as reader:
        plain = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        command = [sys.executable, "-m", "ptlreid", *words]
        process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=plain | {"TERM": "xterm"} | env)
        os.close(theirs)
        text = b""
        while True:
            try:
                block = reader.read(4096)
            except OSError:  # how Linux reports the end
                block = b""
            if not block:
                break
            text += block
        assert process.wait() == 0
    return text.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
@pytest.mark.parametrize(
    "words", [("recipes", "mgn"), ("distill", "--help"), ("evaluate", "--run", "ж→")], ids=" ".join
)
def test_what_an_encoding_lacks_is_replaced(tmp_path, encoding, words):
    result = run(*words, env={"PYTHONIOENCODING": encoding}, cwd=tmp_path, text=False)
    assert result.returncode == (1 if words[0] == "evaluate" else 0)
    assert b"Traceback" not in result.stderr
    assert len(result.stdout + result.stderr) > 80


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_json_keeps_every_character_in_any_encoding(monkeypatch, capsys, encoding):
    value = {"path": "Zoë/→/\udcff/\x1b"}
    monkeypatch.setattr(type(sys.stdout), "encoding", encoding, raising=False)
    console.show_json(value)
    assert json.loads(capsys.readouterr().out) == value


def test_a_json_document_is_readable_where_the_encoding_allows_it(capsys):
    console.show_json({"path": "Zoë"})
    assert capsys.readouterr().out == '{\n  "path": "Zoë"\n}\n'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", r"a\nb"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b2J", r"\x9b2J"),
        ("\udcff", r"\udcff"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("a\\b [red] :smile: é", "a\\b [red] :smile: é"),
    ],
    ids=ascii,
)
def test_control_characters_are_escaped_once_and_all_else_is_as_it_is(capsys, text, shown):
    console.say(text)
    console.show_error(text)
    console.Reporter().note(text)
    console.show_rows("", ("name",), [[text]])
    out, err = capsys.readouterr()
    assert out.startswith(f"{shown}\n")
    assert f"│ {shown}" in out
    in_error = text if text == "a\nb" else shown  # an error may be a list of faults
    assert err == f"error: {in_error}\n{shown}\n"


@pytest.mark.parametrize(
    "columns", ["0", "1", "40", "²", "-5", "1e9", "9" * 5000, ""], ids=lambda text: ascii(text[:5])
)
def test_any_value_of_columns_prints_everything(ptlreid, monkeypatch, columns):
    monkeypatch.setattr(console, "err", Console(stderr=True))  # reads COLUMNS now, as a new process does
    for words, expected in (
        (("evaluate", "--run", "none"), "give the folder of your runs with --runs."),
        (("datasets",), "msmt17"),
        (("finetune", "--help"), "--backbone"),
    ):
        monkeypatch.setenv("COLUMNS", columns)
        _, out, err = ptlreid(*words)
        assert expected in out + err


def test_a_message_is_printed_where_columns_is_zero(tmp_path):
    assert "--runs." in run("evaluate", "--run", "none", env={"COLUMNS": "0"}, cwd=tmp_path).stderr


@pytest.mark.parametrize("columns", [1, 20, 40, 80])
def test_a_terminal_of_any_width_gets_every_number_in_full(monkeypatch, capsys, columns):
    scores = {"mAP": 0.123, "cmc": {"1": 0.456, "5": 0.567, "10": 1.0}, "mINP": 0.078}
    monkeypatch.setattr(console, "_NO_LIMIT", 1000)
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda _: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(columns))
    console.show_scores("market", {"market-densenet161-ptl-mean-s0": scores, "b": scores})
    out = re.sub("\x1b[^m]*m", "", capsys.readouterr().out)
    assert "…" not in out
    assert all(out.count(number) == 2 for number in ("12.3", "45.6", "56.7", "100.0", "7.8"))
    assert max(map(len, out.splitlines())) <= max(columns, 30)  # the name itself has 30 characters


def test_a_wide_terminal_gets_a_table_and_a_narrow_one_a_line_for_each_cell():
    wide, narrow = in_terminal(100, "recipes"), in_terminal(15, "recipes")
    assert "┃" in wide
    assert "│" not in narrow
    assert "\npaper\n  source: " in narrow


def test_a_terminal_that_reports_no_size_gets_the_usual_one():
    assert "┃" in in_terminal(0, "recipes")
    assert "┃" in in_terminal(0, "recipes", COLUMNS="0")


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
@pytest.mark.parametrize(
    "words", [("datasets",), ("datasets", "--json"), ("--help",), ("report", "--help")], ids=" ".join
)
def test_a_full_disk_below_standard_output_is_one_message(words):
    with FULL.open("w") as full:
        result = run(*words, stdout=full)
    assert result.returncode == 1
    assert result.stderr.startswith("error: standard output: cannot be written (No space left on device).")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [("datasets",), ("datasets", "--json"), ("--help",)], ids=" ".join)
def test_a_closed_reader_of_standard_output_ends_the_command_quietly(words):
    reader, writer = os.pipe()
    os.close(reader)
    result = run(*words, stdout=writer)
    os.close(writer)
    assert (result.returncode, result.stderr) == (1, "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(closed):
    command = f"'{sys.executable}' -m ptlreid datasets {closed}"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("gone", ["reader", "terminal"])
def test_a_reader_of_standard_error_that_goes_away_ends_no_training(market_folder, tmp_path, gone):
    ours, theirs = os.pipe() if gone == "reader" else pty.openpty()
    os.close(ours)
    options = "finetune --backbone mobilenet-v3-small --no-ptl --init none --height 64 --width 32 --batch-size 8"
    places = ("--root", str(market_folder.parent), "--runs", str(tmp_path), "--device", "cpu", "--no-report")
    result = run(*options.split(), "--epochs", "1", "--name", "run", *places, stderr=theirs)
    os.close(theirs)
    assert result.returncode == 0
    assert "Run folder:" in result.stdout
