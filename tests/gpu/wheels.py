"""Packages that ptlreid needs and this Python lacks, installed from a folder of wheels without a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def missing() -> list[str]:
    """The distributions that setup.cfg requires and that are not installed."""
    names = [re.split(r"[<>=]", line)[0] for line in setup()["options"]["install_requires"].split()]
    installed = {normalise(one.metadata["Name"]) for one in metadata.distributions() if one.metadata["Name"]}
    return [name for name in names if normalise(name) not in installed]


def setup() -> ConfigParser:
    """The project's setup.cfg."""
    found = ConfigParser()
    found.read(ROOT / "setup.cfg", encoding="utf-8")
    return found


def write_metadata(target: Path) -> None:
    """Name and version of the checkout as if it was installed in `target`: the program asks for its version."""
    name, version = (setup()["metadata"][key] for key in ("name", "version"))
    folder = target / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (folder / "METADATA").write_text(text, encoding="utf-8")


def normalise(name: str) -> str:
    """The name as packaging tools compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def install(names: list[str], wheels: Path, target: Path) -> dict[str, str]:
    """Install each of `names` from the folder `wheels` into `target`; returns why, for those that could not be."""
    failed = {}
    for name in names:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--find-links", str(wheels)]
        command += ["--disable-pip-version-check", "--target", str(target), name]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            failed[name] = result.stderr.strip()[-400:]
    return failed


def use(folders: list[Path]) -> None:
    """Search modules in these folders first, here and in every process that is started from here."""
    paths = list(map(str, folders))
    sys.path[:0] = paths
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])])
