"""One process at a time."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ptlreid.datasets._alone import alone
from ptlreid.errors import PtlreidError
from ptlreid.progress import Silent

HOLD = """
import sys, time
from pathlib import Path
from ptlreid.datasets._alone import alone
from ptlreid.progress import Silent
with alone(Path(sys.argv[1]), Silent()):
    print("here", flush=True)
    time.sleep(60)
"""


class Notes(Silent):
    """Tells of the first note."""

    def __init__(self) -> None:
        self.told = threading.Event()
        self.text = ""

    def note(self, text: str) -> None:
        self.text = text
        self.told.set()


def test_of_many_one_is_inside_at_a_time(tmp_path):
    inside, most, times = 0, 0, 0

    def go() -> None:
        nonlocal inside, most, times
        for _ in range(20):
            with alone(tmp_path / "data", Silent()):
                inside += 1
                most, times = max(most, inside), times + 1
                time.sleep(0.0005)  # lets the others try
                inside -= 1

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, times) == (1, 80)
    assert list(tmp_path.iterdir()) == []


def test_whoever_waits_is_told_and_a_killed_process_holds_nothing(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "data")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"here\n"
    notes, inside = Notes(), threading.Event()

    def wait() -> None:
        with alone(tmp_path / "data", notes):
            inside.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert notes.told.wait(30)
    assert "Another `ptlreid prepare` is at work" in notes.text
    assert not inside.is_set()
    process.send_signal(signal.SIGKILL)
    assert inside.wait(30)
    thread.join()
    process.stdout.close()
    process.wait()


def test_other_folders_are_not_waited_for(tmp_path):
    with alone(tmp_path / "one", Silent()), alone(tmp_path / "two", Silent()):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".one.lock", ".two.lock"]


def test_an_error_inside_lets_the_next_one_in(tmp_path):
    with pytest.raises(ValueError, match="inside"), alone(tmp_path / "data", Silent()):
        raise ValueError("inside")
    with alone(tmp_path / "data", Silent()):
        pass


def test_a_place_that_cannot_be_locked_is_one_clear_message(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(PtlreidError, match=r"\.data\.lock: cannot be locked"),
        alone(Path(tmp_path / "file" / "data"), Silent()),
    ):
        pass
