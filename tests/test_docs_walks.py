"""Pages that are run unchanged, with the networks that they name, on a few images."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pages
import pytest
import torch
from blocks import PAGES
from conftest import write_image

from ptlreid import datasets, losses, models
from ptlreid.models import backbones
from ptlreid.network_types import Output


@pytest.mark.slow
def test_from_a_folder_of_crops_to_a_report(ptlreid, monkeypatch):
    pages.limit_settings(monkeypatch, {"epochs": 2})  # of twenty: each ends in a checkpoint of 200 MB
    pages.write_crops(Path("my_crops"), identities=12, height=128)
    outputs = pages.run_page(PAGES["docs/own-cameras.md"], ptlreid)
    # By hand: 12 identities, 6 of them for training: 6 x 2 cameras x 2 images. Of the others, one query per camera.
    (table,) = (out for command, out in outputs.items() if command.startswith("ptlreid prepare folder"))
    assert [line.split()[1::2] for line in table.splitlines() if line.startswith("│")] == [
        ["train", "24", "6", "2"],
        ["query", "12", "6", "2"],
        ["gallery", "12", "6", "2"],
    ]
    scores = json.loads(Path("runs/lobby-ptl/metrics.json").read_text())
    assert scores["queries"] == {"total": 12, "valid": 12}
    assert 0 < scores["mAP"] <= 1
    page = Path("runs/lobby-ptl/report.html").read_text(encoding="utf-8")
    assert "lobby-ptl" in page and "lobby-baseline" in page
    assert page.count("data:image/jpeg;base64,") >= 12  # at least each query, once


@pytest.fixture
def parts_here(tmp_path, monkeypatch):
    """Files saved below this folder's `ptlreid` are parts of the program, as those in a checkout are."""
    known = set(sys.modules)
    for package, folder in ((datasets, "datasets"), (losses, "losses"), (backbones, "models/backbones")):
        path = tmp_path / "ptlreid" / folder
        path.mkdir(parents=True)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(path)])
    importlib.invalidate_caches()
    yield
    for name in ("ptlreid.datasets.hallway", "ptlreid.losses.focal", "ptlreid.models.backbones.efficientnet_b0"):
        if name not in known:
            sys.modules.pop(name, None)


def run_with_parts(*arguments: object) -> tuple[int, str, str]:
    """Runs a command with the parts in this folder, in a new interpreter: options are made when it starts."""
    script = (
        "from ptlreid import datasets, losses\n"
        "losses.__path__.append('ptlreid/losses')\n"
        "datasets.__path__.append('ptlreid/datasets')\n"
        "from ptlreid.models import backbones\n"
        "backbones.__path__.append('ptlreid/models/backbones')\n"
        "from ptlreid.cli import main\n"
        "main()\n"
    )
    # -P: the `ptlreid` below this folder is not the package.
    command = [sys.executable, "-P", "-c", script, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.returncode, result.stdout, result.stderr


@pytest.mark.slow
def test_a_dataset_a_backbone_and_a_loss_are_one_file_each(ptlreid, parts_here):
    write_hallway(Path("data/hallway"))
    pages.run_page(PAGES["docs/extending.md"], run_with_parts)
    assert "hallway" in datasets.names()
    assert "efficientnet-b0" in models.names()
    lines = [json.loads(line) for line in Path("runs/focal/history.jsonl").read_text().splitlines()]
    assert list(lines[0]["terms"]) == ["focal"]
    # Two classes that score alike: p = 1/2, and (1 - p)^2 · ln 2 = 0.1733.
    focal = losses.find("focal", {"margin": 0.3, "focus": 2.0})(
        Output(torch.zeros(1, 2), {"pid": torch.zeros(1, 2)}), torch.tensor([1])
    )
    assert focal["focal"].item() == pytest.approx(0.25 * 0.693147)


def write_hallway(folder: Path) -> None:
    """8 identities seen by 2 cameras: 4 for training with two images each, else a query and a gallery image."""
    for pid in range(1, 9):
        for camid in (1, 2):
            for part, shot in (("train", 1), ("train", 2)) if pid < 5 else (("query", 1), ("gallery", 2)):
                name = f"person{pid:03d}_camera{camid}_{shot:04d}.jpg"
                write_image(folder / part / name, 100 * pid + 10 * camid + shot, height=128, width=64)


@pytest.mark.slow
def test_two_processes_on_the_cpu(ptlreid, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    outputs = pages.run_page(PAGES["docs/distributed.md"], ptlreid)
    (result,) = (out for command, out in outputs.items() if "torchrun" in command)
    assert result.count("mAP") == 1  # only the main process prints it
    assert Path("runs/two/weights.safetensors").is_file()
