"""The shape of the code: imports point down the ranks of docs/design.md, and the start is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ptlreid

PACKAGE = Path(ptlreid.__file__).parent

# The first part of a module's name below ptlreid, by rank: a module imports its own part and lower ranks only.
RANKS = [
    ["__init__", "errors", "records", "plugins", "progress", "files", "network_types"],
    ["settings", "distributed", "devices"],
    ["datasets", "images", "packs", "views", "samplers", "runs"],
    ["models", "losses", "retrieval"],
    ["features", "cache", "engine"],
    ["reports"],
    ["workflows"],
    ["cli"],
    ["__main__"],
]
RANK = {part: rank for rank, parts in enumerate(RANKS) for part in parts}
# Within one rank, this part may use that one.
BESIDE = {
    ("records", "errors"),
    ("plugins", "errors"),
    ("files", "errors"),
    ("images", "views"),
    ("images", "packs"),
    ("packs", "views"),
}


def part(module: str) -> str:
    names = module.split(".")
    return names[1] if len(names) > 1 else "__init__"


def imports(path: Path) -> list[str]:
    """Every ptlreid module that a file imports, at its top or inside a function."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "ptlreid":
            found += [f"ptlreid.{name.name}" for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append(node.module or "")
    return [name for name in found if name.split(".")[0] == "ptlreid"]


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    mine = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in imports(path):
        other = part(module)
        allowed = other == mine or RANK[other] < RANK[mine] or (mine, other) in BESIDE
        assert allowed, f"{mine} (rank {RANK[mine]}) imports {module} (rank {RANK[other]})"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_short(path):
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 300
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{node.name} is too long"


def loaded_by(code: str) -> set[str]:
    """The modules that are loaded after `code` ran in a new interpreter."""
    script = f"import sys\nsys.argv = ['ptlreid']\ntry:\n    {code}\nexcept SystemExit:\n    pass\nprint(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "sys.argv += ['--help']; from ptlreid.cli import main; main()",
        "sys.argv += ['finetune', '--help']; from ptlreid.cli import main; main()",
        "sys.argv += ['datasets']; from ptlreid.cli import main; main()",
        "sys.argv += ['finetune', '--backbone', 'resnet5']; from ptlreid.cli import main; main()",
        "from ptlreid.workflows import demo, evaluate, finetune",
    ],
)
def test_what_does_not_compute_does_not_import_torch(code):
    assert not {"torch", "torchvision", "matplotlib", "scipy", "sklearn"} & loaded_by(code)


@pytest.mark.parametrize("word", ["--help", "--version", "evalute"])
def test_no_command_is_loaded_before_it_is_called(word):
    loaded = loaded_by(f"sys.argv += ['{word}']; from ptlreid.cli import main; main()")
    assert not {"numpy", "h5py", "PIL"} & loaded
    assert word == "evalute" or not {"pydantic", "rich"} & loaded  # to reject a word, Typer itself loads pydantic
    assert [name for name in loaded if name.startswith("ptlreid.")] == ["ptlreid.cli"]
