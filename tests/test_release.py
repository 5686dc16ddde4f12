"""What a user installs: the sdist and the wheel that is built from it, away from the checkout."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ptlreid"

# Where the name that is imported is not the one that is asked for; jinja2's safe text is a package of its own.
INSTALLED_AS = {
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "tomli_w": "tomli-w",
    "typing_extensions": "typing-extensions",
    "markupsafe": "jinja2",
    "faiss": "faiss-cpu",
    "pydantic_core": "pydantic",
}


def setup() -> ConfigParser:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def run(*command: object, **environment: str) -> str:
    """What the command prints, in a folder that holds nothing."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "COLUMNS")}
    result = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, cwd=os.sep, env=kept | environment
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout + result.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The folder of the sdist and of the wheel that is built from it."""
    pytest.importorskip("build", reason="needs the package build, which the extra `test` installs")
    folder = tmp_path_factory.mktemp("release")
    source = folder / "source"
    shutil.copytree(PACKAGE, source / "ptlreid", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", source)
    return folder / "dist"


@pytest.fixture(scope="module")
def environment(built, tmp_path_factory) -> Path:
    """The programs of a new environment with the wheel; what it depends on is that of the tests."""
    folder = tmp_path_factory.mktemp("installed") / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    (site,) = folder.glob("lib/python*/site-packages")
    # A folder that a .pth names is searched last, and its own .pth files, such as an editable install's, are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    (wheel,) = built.glob("*.whl")
    programs = folder / "bin"
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        programs / "python",
        "install",
        "--no-deps",
        "--no-index",
        "--ignore-installed",
        wheel,
    )
    return programs


def test_every_file_of_the_package_is_in_the_wheel(built):
    (wheel,) = built.glob("*.whl")
    there = set(zipfile.ZipFile(wheel).namelist())
    files = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    ours = {path.relative_to(ROOT).as_posix() for path in files}
    assert ours - there == set()
    assert "ptlreid/py.typed" in there
    assert {name for name in there if ".dist-info/" not in name} - ours == set()


def test_the_installed_program_runs_without_the_checkout(environment):
    where = run(environment / "python", "-c", "import ptlreid; print(ptlreid.__file__)")
    assert Path(where.strip()).is_relative_to(environment.parent)
    version = setup()["metadata"]["version"]
    assert run(environment / "ptlreid", "--version") == f"ptlreid {version}\n"
    assert "finetune" in run(environment / "python", "-m", "ptlreid", "--help")


def test_what_the_program_reads_from_its_package_is_installed(environment):
    assert "synthetic-b" in run(environment / "ptlreid", "prepare", "--list")
    assert "resnet18" in run(environment / "ptlreid", "recipes", "small")
    split = "from ptlreid.datasets import cuhk03; print(len(cuhk03.read_new_split()))"
    # Zhong et al. 2017: 7,368 + 1,400 + 5,328 labeled images, 7,365 + 1,400 + 5,332 detected ones.
    assert run(environment / "python", "-c", split) == "28193\n"
    tables = "from ptlreid.settings import reproduce; print(len(reproduce.tables('all')))"
    assert run(environment / "python", "-c", tables) == "6\n"
    page = "import jinja2; jinja2.Environment(loader=jinja2.PackageLoader('ptlreid.reports')).get_template('page.html')"
    run(environment / "python", "-c", page)


def test_the_shell_completes_commands_and_options_without_torch(environment):
    asked = {"_PTLREID_COMPLETE": "complete_bash", "COMP_WORDS": "ptlreid fine", "COMP_CWORD": "1"}
    assert run(environment / "ptlreid", **asked).split() == ["finetune"]
    asked |= {"COMP_WORDS": "ptlreid finetune --back", "COMP_CWORD": "2"}
    began = time.monotonic()
    output = run(environment / "python", "-X", "importtime", environment / "ptlreid", **asked)
    assert "--backbone" in output
    assert not re.search(r"\| +(torch|numpy|scipy|matplotlib)$", output, re.MULTILINE)
    assert time.monotonic() - began < 20  # a shell that waits; a quarter of a second on an idle machine


def test_the_changelog_has_an_entry_for_this_version():
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    released = [heading for heading in headings if heading != "Unreleased"]
    assert headings
    assert not released or released[0] == setup()["metadata"]["version"]


def test_what_is_imported_is_what_is_declared():
    imported = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    outside = {INSTALLED_AS.get(name, name) for name in imported - sys.stdlib_module_names - {"ptlreid"}}
    declared = {re.split(r"[<>=]", line)[0] for line in lines(setup()["options"]["install_requires"])}
    extras = "\n".join(setup()["options.extras_require"][name] for name in ("parquet", "export", "openvino", "index"))
    optional = {re.split(r"[<>=]", line)[0] for line in lines(extras)}
    assert outside == declared | optional


def test_the_oldest_python_that_is_declared_is_the_oldest_that_is_allowed():
    found = re.findall(r"Python :: (3\.\d+)$", setup()["metadata"]["classifiers"], re.MULTILINE)
    assert setup()["options"]["python_requires"] == f">={found[0]}"
