"""Digests of image files: correct after any edit, and computed once."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import write_image

from ptlreid import contents
from ptlreid.errors import DataError
from ptlreid.progress import Silent


class Notes(Silent):
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(autouse=True)
def new_process(monkeypatch):
    """Makes this process forget all digests, now and at each call."""

    def forget() -> None:
        monkeypatch.setattr(contents, "_indexes", {})
        monkeypatch.setattr(contents, "_unindexed", contents._Index(""))

    forget()
    return forget


@pytest.fixture
def read(monkeypatch):
    """The names of the files that were read, in sorted order by `read()`, which also empties the list."""
    names: list[str] = []
    digest = contents._digest

    def watched(file: str, most_bytes: int):
        names.append(Path(file).name)
        return digest(file, most_bytes)

    monkeypatch.setattr(contents, "_digest", watched)

    def take() -> list[str]:
        found = sorted(names)
        names.clear()
        return found

    return take


@pytest.fixture
def settled(monkeypatch):
    """Files count as settled at once: tests do not wait for two seconds."""
    monkeypatch.setattr(contents, "MARGIN_NS", -(10**12))


def write_files(folder: Path, number: int = 5) -> list[Path]:
    paths = [folder / part / f"{row}.jpg" for part in ("query", "gallery") for row in range(number)]
    for row, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([row % 256]) * (row + 1))
    return paths


def slow_digest(paths) -> str:
    """As 0.1 made it: a digest of the digests of all bytes."""
    total = hashlib.blake2b(digest_size=16)
    for path in paths:
        total.update(hashlib.blake2b(Path(path).read_bytes(), digest_size=16).digest())
    return total.hexdigest()


def test_digests_follow_content_and_order_only(tmp_path):
    one, two, copy = (tmp_path / name for name in ("one", "two", "copy"))
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    copy.write_bytes(b"1")
    assert contents.digest_all([one, two]) == contents.digest_all([copy, two]) == slow_digest([one, two])
    assert contents.digest_all([one, two]) != contents.digest_all([two, one])
    assert contents.digest_all([]) == slow_digest([])
    with pytest.raises(DataError, match="gone: cannot be read"):
        contents.digest_all([tmp_path / "gone"])


def test_a_file_is_read_once_by_a_process_and_not_at_all_by_the_next(tmp_path, read, settled, new_process):
    paths = write_files(tmp_path)
    contents.use_index(tmp_path)
    expected = slow_digest(paths)
    assert contents.digest_all(paths) == expected
    assert len(read()) == len(paths)
    assert contents.digest_all(paths) == contents.digest_all(iter(paths)) == expected
    assert contents.digest_each(paths[:3]).shape == (3, 16)
    new_process()
    contents.use_index(tmp_path)
    assert contents.digest_all(paths) == expected
    assert read() == []


def test_without_a_dataset_folder_nothing_is_written(tmp_path, read, settled):
    paths = write_files(tmp_path)
    assert contents.digest_all(paths) == contents.digest_all(paths) == slow_digest(paths)
    assert len(read()) == len(paths)
    assert not list(tmp_path.rglob(contents.INDEX))


def test_each_dataset_keeps_its_own_files_and_links_and_relative_paths_lead_there(
    tmp_path, read, settled, new_process, monkeypatch
):
    one, two = write_files(tmp_path / "one"), write_files(tmp_path / "two")
    outside = tmp_path / "elsewhere.jpg"
    outside.write_bytes(b"outside")
    (tmp_path / "two" / "link.jpg").symlink_to(outside)
    paths = [one[0], two[0], outside, tmp_path / "two" / "link.jpg"]
    for _ in range(2):
        contents.use_index(tmp_path / "one")
        contents.use_index(tmp_path / "two")
        assert contents.digest_all(paths) == slow_digest(paths)
        new_process()
    assert read() == ["0.jpg", "0.jpg", "elsewhere.jpg", "elsewhere.jpg", "link.jpg"]
    monkeypatch.chdir(tmp_path)
    contents.use_index(Path("one"))
    assert contents.digest_all([Path("one/query/0.jpg")]) == slow_digest([one[0]])
    assert read() == []
    monkeypatch.chdir(tmp_path / "two")
    (tmp_path / "two" / "one" / "query").mkdir(parents=True)
    Path("one/query/0.jpg").write_bytes(b"another file by the same relative path")
    assert contents.digest_all([Path("one/query/0.jpg")]) == slow_digest(["one/query/0.jpg"])


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def edit(path: Path) -> None:
    path.write_bytes(bytes([path.read_bytes()[0] ^ 255]) + path.read_bytes()[1:])


def edit_and_put_the_time_back(path: Path) -> None:
    before = path.stat()
    edit(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path: Path) -> None:
    before, other = path.stat(), path.with_name("other")
    other.write_bytes(b"\xff" * before.st_size)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("change", [grow, edit, edit_and_put_the_time_back, replace])
@pytest.mark.parametrize("same_process", [True, False])
def test_an_edit_is_seen(tmp_path, read, settled, new_process, change, same_process):
    paths = write_files(tmp_path)
    contents.use_index(tmp_path)
    before = contents.digest_all(paths)
    time.sleep(0.02)  # more than a tick of the file system's clock
    change(paths[3])
    if not same_process:
        new_process()
        contents.use_index(tmp_path)
    read()
    assert contents.digest_all(paths) == slow_digest(paths) != before
    assert read() == [paths[3].name]


def test_a_file_that_has_just_changed_is_read_again(tmp_path, read):
    paths = write_files(tmp_path)
    contents.use_index(tmp_path)
    for _ in range(2):
        contents.digest_all(paths)
        assert len(read()) == len(paths)
    assert not (tmp_path / contents.INDEX).exists()
    before = paths[0].stat()
    for value in range(50):  # within one tick of the clock, some of these have the times of the one before
        paths[0].write_bytes(bytes([value]))
        os.utime(paths[0], ns=(before.st_atime_ns, before.st_mtime_ns))
        assert contents.digest_all(paths) == slow_digest(paths)


def test_a_file_with_a_time_in_the_future_is_not_trusted(tmp_path, read, monkeypatch):
    paths = write_files(tmp_path)
    contents.use_index(tmp_path)
    monkeypatch.setattr(contents, "time_ns", lambda: paths[0].stat().st_ctime_ns - 10**12)
    contents.digest_all(paths)
    contents.digest_all(paths)
    assert len(read()) == 2 * len(paths)


def test_after_the_margin_it_is_indexed(tmp_path, read, monkeypatch):
    paths = write_files(tmp_path)
    contents.use_index(tmp_path)
    last = max(path.stat().st_ctime_ns for path in paths)
    monkeypatch.setattr(contents, "time_ns", lambda: last + contents.MARGIN_NS)
    contents.digest_all(paths)
    contents.digest_all(paths)
    assert len(read()) >= len(paths) + 1  # the last one, and those of the same tick
    monkeypatch.setattr(contents, "time_ns", lambda: last + contents.MARGIN_NS + 1)
    contents.digest_all(paths)
    read()
    contents.digest_all(paths)
    assert read() == []


def test_a_file_that_changes_while_it_is_read_is_not_indexed(tmp_path, settled, monkeypatch):
    paths = write_files(tmp_path)
    contents.use_index(tmp_path)
    digest = contents._digest

    def slow(file: str, most_bytes: int):
        found = digest(file, most_bytes)
        if file == str(paths[0]):
            grow(paths[0])
            return found[0], contents._state(paths[0].stat())
        return found

    monkeypatch.setattr(contents, "_digest", slow)
    contents.digest_all(paths)
    monkeypatch.setattr(contents, "_digest", digest)
    assert contents.digest_all(paths) == slow_digest(paths)


def corrupt_index(folder: Path, row: int) -> str:
    """Makes one digest of the index wrong, as if the file's bytes had changed unnoticed; returns the file's name."""
    entries = contents._read(folder / contents.INDEX)
    entries.digests[row] ^= 1
    contents._write(folder / contents.INDEX, entries)
    return entries.names[row]


def test_verify_reads_bytes_once_names_what_is_out_of_date_and_corrects_it(tmp_path, read, settled, new_process):
    paths = write_files(tmp_path)
    contents.use_index(tmp_path)
    expected = contents.digest_all(paths)
    wrong = corrupt_index(tmp_path, 2)
    new_process()
    contents.use_index(tmp_path)
    assert contents.digest_all(paths) != expected  # trusted
    read()
    notes = Notes()
    with contents.verify_all(notes):
        assert contents.digest_all(paths) == contents.digest_all(paths) == expected
    assert len(read()) == len(paths)
    (note,) = notes.notes
    assert note.startswith(f"{tmp_path / wrong}: its bytes changed although its size and times did not")
    new_process()
    contents.use_index(tmp_path)
    assert contents.digest_all(paths) == expected
    assert read() == []
    assert contents.digest_all(paths, verify=notes) == expected
    assert len(read()) == len(paths)
    assert len(notes.notes) == 1


def test_what_is_out_of_date_is_found_for_digests_that_another_made(tmp_path, settled, new_process):
    paths = write_files(tmp_path)
    contents.use_index(tmp_path)
    contents.digest_all(paths)
    wrong = corrupt_index(tmp_path, 7)
    new_process()
    contents.use_index(tmp_path)
    digests = [hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() for path in paths]
    assert contents.find_stale(paths, digests) == [(tmp_path / wrong, tmp_path / contents.INDEX)]
    grow(tmp_path / wrong)  # which the index knows by its size
    assert contents.find_stale(paths, digests) == []
    assert contents.find_stale([tmp_path / "gone.jpg"], [""]) == []


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "flipped", "short"])
def test_a_damaged_index_is_ignored_and_written_again(tmp_path, read, settled, new_process, damage):
    paths = write_files(tmp_path, 200)
    contents.use_index(tmp_path)
    expected = contents.digest_all(paths)
    file = tmp_path / contents.INDEX
    whole = file.read_bytes()
    if damage == "cut":
        file.write_bytes(whole[: len(whole) // 2])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "other":
        file.write_bytes(b"something else")
    elif damage == "flipped":
        file.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    else:
        entries = contents._read(file)
        contents._write(file, contents._Entries(entries.names[:-1], entries.states, entries.digests))
    read()
    for count in (len(paths), 0):
        new_process()
        contents.use_index(tmp_path)
        assert contents.digest_all(paths) == expected
        assert len(read()) == count


def test_a_folder_that_cannot_be_written_to_works_without(tmp_path, read, settled, monkeypatch):
    paths = write_files(tmp_path)
    contents.use_index(tmp_path)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    assert contents.digest_all(paths) == contents.digest_all(paths) == slow_digest(paths)
    assert len(read()) == len(paths)
    assert [path.name for path in tmp_path.iterdir()] == ["query", "gallery"] or not list(tmp_path.glob(".*"))


def test_what_another_process_indexed_meanwhile_is_kept(tmp_path, read, settled, new_process):
    paths = write_files(tmp_path)
    contents.use_index(tmp_path)
    mine = contents._indexes[str(tmp_path)]
    new_process()
    contents.use_index(tmp_path)
    contents.digest_all(paths[:5])
    contents._indexes[str(tmp_path)] = mine
    contents.digest_all(paths[5:])
    read()
    new_process()
    contents.use_index(tmp_path)
    assert contents.digest_all(paths) == slow_digest(paths)
    assert read() == []


AT_ONCE = """
import sys
from pathlib import Path
from ptlreid import contents
contents.MARGIN_NS = -(10**12)
folder = Path(sys.argv[1])
for _ in range(20):
    contents._indexes.clear()
    contents.use_index(folder)
    paths = sorted(folder.glob("*/*.jpg"))
    print(contents.digest_all(paths[int(sys.argv[2])::2]), file=sys.stderr)
    (folder / contents.INDEX).unlink(missing_ok=True)
print(contents.digest_all(paths))
"""


def test_two_processes_at_once_do_no_harm(tmp_path):
    paths = sorted(write_files(tmp_path, 50))
    command = [sys.executable, "-c", AT_ONCE, str(tmp_path)]
    with ThreadPoolExecutor(2) as pool:
        runs = list(
            pool.map(lambda one: subprocess.run([*command, one], capture_output=True, text=True, check=True), "01")
        )
    assert {run.stdout.strip() for run in runs} == {slow_digest(paths)}
    assert {line for run in runs for line in run.stderr.split()} == {slow_digest(paths[0::2]), slow_digest(paths[1::2])}


def test_names_of_any_bytes_are_kept(tmp_path, read, settled, new_process):
    paths = [tmp_path / os.fsdecode(name) for name in (b"caf\xe9.jpg", "é\n.jpg".encode(), b"a b.jpg")]
    try:
        for path in paths:
            path.write_bytes(b"1")
    except OSError:
        pytest.skip("a file system of Unicode names")
    for _ in range(2):
        contents.use_index(tmp_path)
        assert contents.digest_all(paths) == slow_digest(paths)
        new_process()
    assert len(read()) == 3


def test_threads_share_one_index(tmp_path, settled):
    paths = write_files(tmp_path, 100)
    contents.use_index(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda row: contents.digest_all(paths[row::8]), range(8)))
    assert found == [slow_digest(paths[row::8]) for row in range(8)]
    assert np.array_equal(contents.digest_each(paths), np.concatenate([contents.digest_each([one]) for one in paths]))


# Counts how often each test image is opened by one command, and prints that as JSON at the end.
COUNTED = """
import collections, json, os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
counts = collections.Counter()
def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes, Path)):
        path = os.path.abspath(arguments[0])
        if path.endswith(".jpg") and ("query" in path or "bounding_box_test" in path):
            counts[path] += 1
sys.addaudithook(watch)
import conftest
from ptlreid.cli import main
sys.argv = ["ptlreid", *{arguments!r}]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print("opened", json.dumps(counts))
"""


def count_opens(folder: Path, *arguments: object) -> dict[str, int]:
    code = COUNTED.format(tests=str(Path(__file__).parent), arguments=[str(one) for one in arguments])
    run = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    (line,) = [line for line in run.stdout.splitlines() if line.startswith("opened ")]
    return json.loads(line.removeprefix("opened "))


@pytest.mark.slow
def test_a_run_opens_a_test_image_three_times_and_a_warm_evaluation_never(tmp_path):
    market = tmp_path / "data" / "market"
    for pid in range(1, 9):
        for camid in (1, 2):
            parts = ("bounding_box_train",) if pid < 5 else ("query", "bounding_box_test")
            for shot, part in enumerate(parts):
                write_image(market / part / f"{pid:04d}_c{camid}s1_{shot:06d}_00.jpg", 10 * pid + 2 * camid + shot)
    last = max(path.stat().st_ctime for path in market.rglob("*.jpg"))
    time.sleep(max(0.0, last + contents.MARGIN_NS / 1e9 + 0.05 - time.time()))
    small = ("--backbone", "tiny", "--init", "none", "--height", 64, "--width", 32, "--epochs", 1, "--batch-size", 8)
    opened = count_opens(tmp_path, "finetune", "--data", "market", "--name", "run", *small, "--workers", 0)
    assert len(opened) == 16
    assert 1 <= max(opened.values()) <= 3
    assert count_opens(tmp_path, "evaluate", "--run", "run") == {}
