"""What many tests share: image folders in Market-1501's layout, a tiny network, and commands run in this process."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from ptlreid import datasets, models, signals
from ptlreid.cli import main
from ptlreid.models import backbones, weights
from ptlreid.models.network import Network
from ptlreid.network_types import Memory, NetworkSpec
from ptlreid.runs import RunFolder
from ptlreid.settings import FinetuneSettings

# The last bit of a sum depends on the number of threads: one, here and in every process that a test starts.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"

# `pytest --hypothesis-profile long` tries fifty times as many examples where a test leaves their number open. None
# fails for taking long: other work on the machine would decide.
settings.register_profile("long", max_examples=5000, deadline=None)
settings.register_profile("usual", deadline=None)
settings.load_profile("usual")

# Makes `tiny` a backbone like any other, in every command.
backbones.__path__.append(str(Path(__file__).parent / "parts"))


def tiny_network(memory: Memory | None = "slot", classes: int = 5) -> Network:
    """The tiny backbone with cells of this memory, or without cells; the same weights in every call."""
    torch.manual_seed(0)
    spec = NetworkSpec("tiny", memory is not None, memory or "slot", classes, 64, 32)
    return models.find("tiny").network(spec)


def write_image(path: Path, seed: int, *, height: int = 64, width: int = 32) -> None:
    """A JPEG of coarse colour blocks: `seed` decides its content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, size=(8, 4, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST).save(path, quality=95)


@pytest.fixture(scope="session")
def market_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`<root>/market`: 4 + 3 identities seen by 2 cameras, 2 images each, with a junk image and a distractor."""
    folder = tmp_path_factory.mktemp("data") / "market"
    for pid in range(1, 5):
        for camid, shot in ((1, 1), (1, 2), (2, 1), (2, 2)):
            name = f"{pid:04d}_c{camid}s1_{shot:06d}_00.jpg"
            write_image(folder / "bounding_box_train" / name, 10 * pid + shot)
    for pid in range(5, 8):
        for camid in (1, 2):
            write_image(folder / "query" / f"{pid:04d}_c{camid}s1_000001_00.jpg", 10 * pid)
            write_image(folder / "bounding_box_test" / f"{pid:04d}_c{camid}s1_000002_00.jpg", 10 * pid + camid)
    write_image(folder / "bounding_box_test" / "-1_c1s1_000003_00.jpg", 1)
    write_image(folder / "bounding_box_test" / "0000_c2s1_000004_00.jpg", 2)
    return folder


@pytest.fixture
def run(tmp_path: Path, market_folder: Path) -> RunFolder:
    """`--run tiny`, of the tiny backbone with cells and random weights, trained on that dataset."""
    folder = RunFolder(tmp_path / "runs" / "tiny")
    settings = {"data": "market", "backbone": "tiny", "init": "none", "height": 64, "width": 32}
    folder.claim(FinetuneSettings.resolve(None, **settings), datasets.load("market", market_folder.parent))
    weights.save(tiny_network(classes=4), NetworkSpec("tiny", True, "slot", 4, 64, 32), folder.weights())
    return folder


@pytest.fixture
def ptlreid(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in an empty folder; returns (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("PTLREID_DATA", "PTLREID_RUNS"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ptlreid", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def heeded() -> Iterator[None]:
    """No signal that stops is ignored, here and in new processes, as it is in the background or under nohup."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in signals.STOPPING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
