"""One process at a time."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ptlreid import locks
from ptlreid.errors import CheckpointError, PtlreidError
from ptlreid.locks import lock_run, try_lock, wait_for_lock
from ptlreid.progress import Silent

HOLD = """
import sys, time
from pathlib import Path
from ptlreid.locks import lock_run, wait_for_lock
from ptlreid.progress import Silent
path = Path(sys.argv[2])
with lock_run(path) if sys.argv[1] == "run" else wait_for_lock(path, Silent()):
    print("here", flush=True)
    time.sleep(60)
"""


class Notes(Silent):
    """Keeps the last note."""

    def __init__(self) -> None:
        self.noted = threading.Event()
        self.text = ""

    def note(self, text: str) -> None:
        self.text = text
        self.noted.set()


@pytest.fixture
def hold():
    """Starts a process that holds a lock for a minute, unless it is killed."""
    processes = []

    def start(kind, path):
        process = subprocess.Popen([sys.executable, "-c", HOLD, kind, str(path)], stdout=subprocess.PIPE)
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_of_many_one_is_inside_at_a_time(tmp_path):
    inside, most, times = 0, 0, 0

    def go() -> None:
        nonlocal inside, most, times
        for _ in range(20):
            with wait_for_lock(tmp_path / "data", Silent()):
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


@pytest.mark.parametrize("command", ["ptlreid prepare", "ptlreid pack"])
def test_waiting_is_noted_and_a_killed_process_holds_nothing(tmp_path, hold, command):
    process = hold("data", tmp_path / "data")
    notes, inside = Notes(), threading.Event()

    def wait() -> None:
        with wait_for_lock(tmp_path / "data", notes, command=command):
            inside.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert notes.noted.wait(30)
    assert notes.text == f"waiting for another `{command}` to finish ({tmp_path / '.data.lock'})"
    assert not inside.is_set()
    process.send_signal(signal.SIGKILL)
    assert inside.wait(30)
    thread.join()


def test_other_folders_are_not_waited_for(tmp_path):
    with wait_for_lock(tmp_path / "one", Silent()), wait_for_lock(tmp_path / "two", Silent()):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".one.lock", ".two.lock"]


def test_an_error_inside_lets_the_next_one_in(tmp_path):
    with pytest.raises(ValueError, match="inside"), wait_for_lock(tmp_path / "data", Silent()):
        raise ValueError("inside")
    with wait_for_lock(tmp_path / "data", Silent()):
        pass


@pytest.mark.parametrize("kind", ["data", "run"])
def test_a_place_that_cannot_be_locked_is_one_clear_message(tmp_path, kind):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "data"
    context = lock_run(path / ".lock") if kind == "run" else wait_for_lock(path, Silent())
    with pytest.raises(PtlreidError, match=r"lock: cannot be locked \(.*\)\. Check that you can write"), context:
        pass


def test_a_run_that_another_process_trains_is_refused_until_that_one_is_killed(tmp_path, hold):
    path = tmp_path / "run" / ".lock"
    process = hold("run", path)
    message = r"run: another process is training this run: .* another --name"
    with pytest.raises(CheckpointError, match=message), lock_run(path):
        pass
    assert path.exists()
    process.kill()
    process.wait()
    with lock_run(path):
        assert path.exists()
    assert not path.exists()


def test_a_run_folder_goes_with_its_lock_only_when_it_is_empty(tmp_path):
    empty, used = tmp_path / "empty", tmp_path / "used"
    with lock_run(empty / ".lock"), lock_run(used / ".lock"):
        (used / "config.toml").write_text("")
    assert [path.name for path in tmp_path.rglob("*")] == ["used", "config.toml"]


def test_a_child_does_not_inherit_the_lock_of_a_run(tmp_path):
    """Loader processes outlive a training process that is killed: the run must be free all the same."""
    path = tmp_path / "run" / ".lock"
    script = f"""
import os, time
from pathlib import Path
from ptlreid.locks import lock_run
with lock_run(Path({str(path)!r})):
    child = os.fork()
    if not child:
        time.sleep(60)
    print(child, flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        process.kill()
        process.wait()
        with lock_run(path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


def test_without_locks_in_the_file_system_a_run_is_trained_and_a_dataset_is_not_prepared(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "lockf", refuse)
    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with lock_run(tmp_path / "run" / ".lock"):
        pass
    with (tmp_path / "rows").open("w") as stream:
        assert try_lock(stream) is False
    message = r"\.data\.lock: cannot be locked \(No locks available\)"
    with pytest.raises(PtlreidError, match=message), wait_for_lock(tmp_path / "data", Silent()):
        pass


def test_only_the_first_of_two_locks_an_open_file_and_closing_it_frees_it(tmp_path):
    path = tmp_path / "rows"
    with path.open("w") as first, path.open("a") as second:
        assert try_lock(first) is True
        assert try_lock(second) is False
    with path.open("a") as third:
        assert try_lock(third) is True


def test_a_lock_file_that_was_removed_while_waiting_is_opened_again(tmp_path, monkeypatch):
    """The owner removes its file before it unlocks it: whoever waited for that file must not be content with it."""
    path, real, opened = tmp_path / ".data.lock", locks.fcntl.flock, []

    def lock_after_removal(stream, how):
        opened.append(stream)
        if len(opened) == 1:
            path.unlink()
        real(stream, how)

    monkeypatch.setattr(locks.fcntl, "flock", lock_after_removal)
    with wait_for_lock(tmp_path / "data", Silent()):
        assert len(opened) == 2
        assert opened[0].closed
        assert path.exists()


@pytest.mark.parametrize("kind", ["data", "run"])
def test_a_link_in_place_of_a_lock_is_refused_and_its_target_left_alone(tmp_path, kind):
    target = tmp_path / "diary"
    target.write_text("dear diary")
    lock = tmp_path / ".data.lock"
    lock.symlink_to(target)
    context = lock_run(lock) if kind == "run" else wait_for_lock(tmp_path / "data", Silent())
    with pytest.raises(PtlreidError, match=r"\.data\.lock: is no regular file, as expected\. Remove it"), context:
        pass
    assert (target.read_text(), lock.is_symlink()) == ("dear diary", True)
