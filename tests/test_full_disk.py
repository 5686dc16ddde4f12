"""A disk that is full, or a limit to the size of files: one message, the earlier file, and nothing else.

Each writer runs in a process of its own, as a library that cannot write may end it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ptlreid.engine import checkpoint
from ptlreid.errors import PtlreidError
from ptlreid.models import weights
from ptlreid.network_types import NetworkSpec, Readout

MEGABYTE = 1 << 20

WRITERS = """
import os, resource, sys
from pathlib import Path
import numpy as np
from ptlreid.errors import PtlreidError

writer, folder, limit = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])

def features():
    from ptlreid.retrieval import feature_files
    from ptlreid.retrieval.types import Features
    matrix, numbers = np.ones((3000, 256), np.float32), np.ones(3000, np.int64)
    paths = np.array([f"/data/{row}.jpg" for row in range(3000)], dtype=object)
    feature_files.write(folder / "new", Features(matrix, numbers, numbers, paths), {"a": "b"}, dtype="float32")

def more_than_was_reserved():
    import h5py
    from ptlreid.files import atomic_output
    with atomic_output(folder / "new", 100) as output, h5py.File(output, "w") as content:
        chunked = content.create_dataset("chunked", (3000, 256), np.float32, chunks=(64, 256))
        for start in range(0, 3000, 64):
            chunked[start : start + 64] = np.ones((min(64, 3000 - start), 256), np.float32)
        content["texts"] = [f"text {row}" for row in range(3000)]
        content.attrs["last"] = "written"

def tail():
    from ptlreid.retrieval.feature_exports import export
    from ptlreid.retrieval.types import Features
    matrix, numbers = np.ones((199, 128), np.float32), np.ones(199, np.int64)
    export(folder / "new.npy", Features(matrix, numbers, numbers, numbers.astype(object)), {}, dtype="float32")

def graph():
    import faiss
    from ptlreid.files import atomic_write
    from ptlreid.retrieval.index_file import _write_graph
    index = faiss.IndexFlatL2(128)
    index.add(np.ones((200, 128), np.float32))
    with atomic_write(folder / "new") as temporary:
        _write_graph(index, temporary)

def json():
    from ptlreid.json_files import write_json
    write_json(folder / "new", {"numbers": list(range(500_000))})

def copy():
    from ptlreid.datasets.reader import link_or_copy
    source = folder.parent / "source"
    source.write_bytes(bytes(3_000_000))
    os.link = lambda *_: os.stat(folder / "none")  # as on another disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    link_or_copy(source, folder / "new")

if writer != "copy":
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    globals()[writer]()
except PtlreidError as error:
    print(error)
else:
    print("written")
"""


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A disk of two megabytes; skipped where it cannot be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "ptlreid-test", str(folder)]
    if sys.platform != "linux" or os.geteuid():
        pytest.skip("mounting a small disk needs Linux and root")
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def write(writer: str, folder: Path, limit: int = -1) -> str:
    """What the process prints; files of at most `limit` bytes."""
    arguments = [sys.executable, "-c", WRITERS, writer, str(folder), str(limit)]
    process = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=60)
    assert process.returncode == 0, (process.returncode, process.stderr)
    return process.stdout.strip()


ALL = ["features", "more_than_was_reserved", "json", "copy"]


@pytest.mark.parametrize("writer", ALL)
def test_a_full_disk_is_one_message_and_leaves_only_what_was_there(disk, writer):
    (disk / "new").write_text("old") if writer != "copy" else None
    before = {path.name: path.read_bytes() for path in disk.iterdir()}
    message = write(writer, disk)
    assert message.startswith(f"{disk / 'new'}: cannot be written (No space left on device): expected room")
    assert f"bytes are free in {disk}. Make room there, then run the command again." in message
    assert {path.name: path.read_bytes() for path in disk.iterdir()} == before


@pytest.mark.parametrize("writer", ALL)
def test_a_limit_to_the_size_of_files_is_one_message(tmp_path, writer):
    folder = tmp_path / "folder"
    folder.mkdir()
    message = write(writer, folder, limit=MEGABYTE)
    assert message.startswith(f"{folder / 'new'}: cannot be written (File too large): expected that a file may be")
    assert "Raise the limit (`ulimit -f`)" in message
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("writer", ALL)
def test_where_there_is_room_the_file_is_written(tmp_path, writer):
    folder = tmp_path / "folder"
    folder.mkdir()
    assert write(writer, folder) == "written"
    assert [path.name for path in folder.iterdir()] == ["new"]


def test_features_need_their_rows_and_their_index(disk):
    """3,000 rows of 1,024 bytes; 64 bytes and the path, of 10 to 14 characters, for each."""
    lengths = sum(len(f"/data/{row}.jpg") for row in range(3000))
    message = write("features", disk)
    assert f"expected room for {1024 * 3000 + 64 * 3000 + lengths:,} bytes, but 2,097,152 bytes are free" in message


def test_a_full_disk_under_weights_and_checkpoints_is_the_same_message(disk):
    """In this process, where torch is loaded: neither library ends it."""
    training = SimpleNamespace(
        network=torch.nn.Linear(1000, 1000),
        optimizer=torch.nn.Linear(1, 1),
        schedule=torch.nn.Linear(1, 1),
        scaler=torch.nn.Linear(1, 1),
        readout=Readout(),
        extra={},
        average=None,
        **dict.fromkeys(checkpoint._PLAIN, 0),
    )
    training.network.readout = Readout()
    for write_file in (
        lambda file: weights.save(training.network, NetworkSpec("tiny", True, "slot", 4, 64, 32), file),
        lambda file: checkpoint.save(training, file),
    ):
        with pytest.raises(PtlreidError, match=r"new: cannot be written \(No space left on device\): expected room"):
            write_file(disk / "new")
        assert list(disk.iterdir()) == []


@pytest.mark.parametrize(("writer", "limit"), [("tail", 100_000), ("graph", 102_400)])
def test_the_last_bytes_that_a_library_would_leave_unwritten_are_missed(tmp_path, writer, limit):
    """C's own buffers are emptied when a file is closed, where NumPy and faiss pass over an error."""
    folder = tmp_path / "folder"
    folder.mkdir()
    message = write(writer, folder, limit=limit)  # of the file, less than 4,096 bytes are beyond it
    assert ": cannot be written (" in message
    assert list(folder.iterdir()) == []
