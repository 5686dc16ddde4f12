"""Runs the blocks of a documentation page as a reader would: in order, in one folder, on small data.

Fenced blocks are handled by their first line:

    ```sh                          commands are run: `ptlreid` in this process, anything else by bash
    ```python                      executed, with the names that earlier blocks of the page defined
    ```text and others             ignored

Comments, one per line, which the reader does not see:

    <!-- file: mine.toml -->       the next block, in any language, is saved under that name
    <!-- not run: reason -->       the next block is not run, but its `ptlreid` commands are parsed
    <!-- first: ptlreid ... -->    a command that is run without being shown
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import graphs
import miniatures
import numpy as np
import pytest
from blocks import blocks, to_run
from conftest import write_image

from ptlreid import models
from ptlreid.cli import load_command
from ptlreid.datasets import market
from ptlreid.models import pretrained
from ptlreid.settings import AdaptSettings, DemoSettings, FinetuneSettings, Settings, SyntheticSettings

Run = Callable[..., tuple[int, str, str]]

# ptlreid is installed already; test_release.py tests the installation.
_INSTALL = re.compile(r"^python -m pip install \S+(?: && )?")
# Upper limits of settings on a page: everything runs, although nothing is learnt.
SMALL = {
    "epochs": 1,
    "batch_size": 4,
    "height": 64,
    "width": 32,
    "identities": 8,
    "cameras": 2,
    "images_per_identity": 2,
}


def run_page(page: Path, ptlreid: Run) -> dict[str, str]:
    """Run all blocks of a page in the current folder; returns the standard output of each command, by command."""
    outputs: dict[str, str] = {}
    names: dict[str, Any] = {"__name__": page.stem}
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.file:
            Path(block.file).parent.mkdir(parents=True, exist_ok=True)
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.reason:
            continue
        elif block.language == "python":
            exec(compile(block.text, f"{page}, line {block.line}", "exec"), names)
        elif block.language == "sh":
            for command in block.commands():
                code, out, err = _run(command, ptlreid)
                assert code == 0, f"{page.name}, line {block.line}: {command}\n{out}\n{err}"
                outputs[command] = out
    return outputs


def _run(command: str, ptlreid: Run) -> tuple[int, str, str]:
    words = shlex.split(_INSTALL.sub("", command), comments=True)
    if not words:
        return 0, "", ""
    if words[0] != "ptlreid" or {"|", "&&", ";"} & set(words):
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        shell = subprocess.run(
            ["bash", "-c", command],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env=os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"},
        )
        return shell.returncode, shell.stdout, shell.stderr
    if ">" not in words:
        return ptlreid(*words[1:])
    code, out, err = ptlreid(*words[1 : words.index(">")])
    Path(words[-1]).write_text(out, encoding="utf-8")
    return code, out, err


def parse(command: str) -> None:
    """Parse the options of a `ptlreid` command as the program does, without running it."""
    _, name, *rest = shlex.split(re.split(r" (?:[|>;]|&&) ", command)[0], comments=True)
    if not name.startswith("-"):
        load_command(name).make_context(name, rest)


def write_inputs(page: Path, ptlreid: Run) -> None:
    """Write the files that a page may use to the current folder.

    Public datasets, unless the page prepares them; crops, and frames without identities; features of another program,
    `q.npz` and `g.npz`, and a model of one, `osnet.onnx`.
    """
    text = "\n".join(block.text for block in to_run(page))
    market_zip = Path("Market-1501-v15.09.15.zip")
    miniatures.write_market(Path("Market-1501-v15.09.15"))
    subprocess.run(["python3", "-m", "zipfile", "-c", market_zip, "Market-1501-v15.09.15"], check=True)
    write_crops(Path("my_crops"))
    for number in range(8):
        write_image(Path("my_frames") / f"{number}_c{number % 2 + 1}.jpg", 5000 + number)
    for side, camid in (("q", 1), ("g", 2)):
        features = np.random.default_rng(camid).normal(size=(6, 16)).astype(np.float32)
        np.savez(f"{side}.npz", features=features, pids=np.arange(1, 7), camids=np.full(6, camid))
    if "osnet.onnx" in text:
        graphs.write_model(Path("osnet.onnx"))
    writers = {
        "market": miniatures.write_market,
        "duke": miniatures.write_duke,
        "msmt17": lambda folder: miniatures.write_msmt17(folder, "v1"),
    }
    for index, (name, write) in enumerate(writers.items(), start=1):
        if f"prepare {name} --source" not in text:
            write(Path("data") / name)
            for number, path in enumerate(sorted((Path("data") / name).rglob("*.jpg"))):
                write_image(path, 1000 * index + number)  # no two datasets share images
    if "prepare folder --source" not in text:
        code, _, err = ptlreid("prepare", "folder", "--source", "my_crops", "--name", "lobby")
        assert code == 0, err


def write_crops(folder: Path, *, identities: int = 8, height: int = 64) -> None:
    """`my_crops/anna/door/1.jpg`: a folder per identity, with a folder for each of two cameras, of two images each."""
    names = ("anna", "ben", "carla", "dario", "elif", "femi", "gita", "hugo", "ines", "jan", "kofi", "lena")
    for number, name in enumerate(names[:identities]):
        for camera, place in enumerate(("door", "yard")):
            for shot in (1, 2):
                seed = 100 * number + 10 * camera + shot
                write_image(folder / name / place / f"{shot}.jpg", seed, height=height, width=height // 2)


def limit_settings(monkeypatch: pytest.MonkeyPatch, limits: Mapping[str, int] = SMALL) -> None:
    """From here on, settings of training and of synthetic datasets are at most their limit."""

    def limit(make: Callable[..., Settings], cls: type[Settings], *arguments: Any, **options: Any) -> Settings:
        settings = make(cls, *arguments, **options)
        if not isinstance(settings, FinetuneSettings | DemoSettings | SyntheticSettings):
            return settings
        values = {name: value for name, value in settings.model_dump().items() if name in limits}
        return settings.model_copy(
            update={name: limits[name] if value is None else min(value, limits[name]) for name, value in values.items()}
        )

    for model, name in (
        (Settings, "resolve"),
        (AdaptSettings, "make"),
    ):  # stages of chains that adapt have own defaults
        make = getattr(model, name).__func__
        monkeypatch.setattr(model, name, classmethod(partial(limit, make)))


def use_tiny_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, every backbone is the tiny one, ImageNet weights are random, and Market-1501 is its miniature."""
    find = models.find

    def find_tiny(name: str) -> Any:
        find(name)  # an unknown name is still an error
        return find("tiny")

    monkeypatch.setattr(models, "find", find_tiny)
    monkeypatch.setattr(pretrained, "load_imagenet", lambda network, name: "random")
    monkeypatch.setattr(market, "INFO", replace(market.INFO, counts={"": miniatures.MARKET}))
