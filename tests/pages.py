"""Pages of the documentation as a reader follows them: the blocks in order, in one folder, on small data.

What is done with a fenced block, by its first line:

    ```sh                          its commands are run; `ptlreid` in this process, anything else by bash
    ```python                      executed, with the names that blocks before it on the page have made
    ```text and others             not touched

Comments that the reader does not see, a line each:

    <!-- file: mine.toml -->       the next block, in whatever language, is saved under that name
    <!-- not run: reason -->       the next block is left out; its `ptlreid` commands are parsed all the same
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
from pathlib import Path
from typing import Any

import miniatures
import numpy as np
import pytest
from blocks import blocks, to_run
from conftest import write_image

from ptlreid import models
from ptlreid.cli import load_command
from ptlreid.datasets import market
from ptlreid.models import pretrained
from ptlreid.settings import DemoSettings, FinetuneSettings, Settings, SyntheticSettings

Run = Callable[..., tuple[int, str, str]]

# It is installed already; test_release.py installs it anew.
_INSTALL = re.compile(r"^python -m pip install \S+(?: && )?")
# The largest that training, drawing and images may be on a page: nothing is learnt, everything runs.
SMALL = {
    "epochs": 1,
    "batch_size": 4,
    "height": 64,
    "width": 32,
    "identities": 8,
    "cameras": 2,
    "images_per_identity": 2,
}


def follow(page: Path, ptlreid: Run) -> dict[str, str]:
    """Do what the page says in the current folder; returns what each command printed on standard output, by command."""
    printed: dict[str, str] = {}
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
                printed[command] = out
    return printed


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
    """Read the options of a `ptlreid` command as the program does, and run nothing."""
    _, name, *rest = shlex.split(re.split(r" (?:[|>;]|&&) ", command)[0], comments=True)
    if not name.startswith("-"):
        load_command(name).make_context(name, rest)


def furnish(page: Path, ptlreid: Run) -> None:
    """Put into the current folder what a page may speak of.

    Public datasets, where the page does not make them; crops; features of another program, `q.npz` and `g.npz`.
    """
    text = "\n".join(block.text for block in to_run(page))
    market_zip = Path("Market-1501-v15.09.15.zip")
    miniatures.write_market(Path("Market-1501-v15.09.15"))
    subprocess.run(["python3", "-m", "zipfile", "-c", market_zip, "Market-1501-v15.09.15"], check=True)
    write_crops(Path("my_crops"))
    for side, camid in (("q", 1), ("g", 2)):
        features = np.random.default_rng(camid).normal(size=(6, 16)).astype(np.float32)
        np.savez(f"{side}.npz", features=features, pids=np.arange(1, 7), camids=np.full(6, camid))
    made = {
        "market": miniatures.write_market,
        "duke": miniatures.write_duke,
        "msmt17": lambda folder: miniatures.write_msmt17(folder, "v1"),
    }
    for place, (name, write) in enumerate(made.items(), start=1):
        if f"prepare {name} --source" not in text:
            write(Path("data") / name)
            for number, path in enumerate(sorted((Path("data") / name).rglob("*.jpg"))):
                write_image(path, 1000 * place + number)  # no two datasets of the same images
    if "prepare folder --source" not in text:
        code, _, err = ptlreid("prepare", "folder", "--source", "my_crops", "--name", "lobby")
        assert code == 0, err


def write_crops(folder: Path, *, people: int = 8, height: int = 64) -> None:
    """`my_crops/anna/door/1.jpg`: a folder for each person, in it one for each of two cameras, with two images."""
    names = ("anna", "ben", "carla", "dario", "elif", "femi", "gita", "hugo", "ines", "jan", "kofi", "lena")
    for number, name in enumerate(names[:people]):
        for camera, place in enumerate(("door", "yard")):
            for shot in (1, 2):
                seed = 100 * number + 10 * camera + shot
                write_image(folder / name / place / f"{shot}.jpg", seed, height=height, width=height // 2)


def made_small(monkeypatch: pytest.MonkeyPatch, largest: Mapping[str, int] = SMALL) -> None:
    """From here on no setting of training or drawing is more than the `largest` of its name."""
    resolve = Settings.resolve.__func__  # type: ignore[attr-defined]

    def small(cls: type[Settings], *arguments: Any, **given: Any) -> Settings:
        config = resolve(cls, *arguments, **given)
        if not isinstance(config, FinetuneSettings | DemoSettings | SyntheticSettings):
            return config
        values = {name: value for name, value in config.model_dump().items() if name in largest}
        return config.model_copy(
            update={
                name: largest[name] if value is None else min(value, largest[name]) for name, value in values.items()
            }
        )

    monkeypatch.setattr(Settings, "resolve", classmethod(small))


def made_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on every backbone is the tiny one, ImageNet's weights are drawn, and Market-1501 is its miniature."""
    find = models.find

    def tiny(name: str) -> Any:
        find(name)  # a name that is not known is as wrong as ever
        return find("tiny")

    monkeypatch.setattr(models, "find", tiny)
    monkeypatch.setattr(pretrained, "load_imagenet", lambda network, name: "drawn")
    monkeypatch.setattr(market, "INFO", replace(market.INFO, counts={"": miniatures.MARKET}))
