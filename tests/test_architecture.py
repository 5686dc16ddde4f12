"""The shape of the code: imports point down the ranks of docs/design.md, and start-up loads little."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

import ptlreid
import ptlreid.settings
from ptlreid.settings import Settings

PACKAGE = Path(ptlreid.__file__).parent

# The first part of a module's name below ptlreid, by rank: a module imports its own part and lower ranks only.
RANKS = [
    [
        *("__init__", "errors", "signals", "records", "plugins", "progress", "names", "cores"),
        *("files", "file_kinds", "hdf5_strings", "locks", "network_types", "tar_members", "tar_headers"),
    ],
    [
        *("settings", "distributed", "devices", "workers", "contents", "image_files", "json_files", "schemas"),
        *("thresholds_schema", "card_schema", "shards_schema", "index_schema"),
    ],
    ["datasets", "images", "image_check", "packs", "views", "samplers", "runs", "environment", "precision"],
    ["models", "losses", "retrieval"],
    ["features", "cache", "engine", "evaluation", "calibrations", "attention"],
    ["adapt", "export", "reports", "transfer"],
    ["workflows"],
    ["api", "api_search", "api_thresholds", "api_models", "cli"],
    ["__main__"],
]
RANK = {part: rank for rank, parts in enumerate(RANKS) for part in parts}
# Imports allowed within one rank: (importing part, imported part).
ALLOWED_WITHIN_RANK = {
    ("records", "errors"),
    ("plugins", "errors"),
    ("names", "errors"),
    ("files", "errors"),
    ("files", "locks"),
    ("locks", "errors"),
    ("locks", "progress"),
    ("tar_headers", "errors"),
    ("tar_headers", "file_kinds"),
    ("tar_members", "errors"),
    ("tar_members", "files"),
    ("tar_members", "tar_headers"),
    ("thresholds_schema", "schemas"),
    ("card_schema", "thresholds_schema"),
    ("shards_schema", "schemas"),
    ("index_schema", "schemas"),
    ("index_schema", "shards_schema"),
    ("card_schema", "schemas"),
    ("distributed", "devices"),
    ("images", "views"),
    ("images", "packs"),
    ("packs", "views"),
    ("cache", "features"),
    ("evaluation", "cache"),
    ("evaluation", "features"),
    ("calibrations", "features"),
    ("attention", "features"),
    ("engine", "evaluation"),
    ("engine", "features"),
    ("transfer", "adapt"),
    ("api", "api_models"),
    ("api_thresholds", "api"),
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
        # The package itself only re-exports names, each when it is first used.
        allowed = mine in ("__init__", other) or RANK[other] < RANK[mine] or (mine, other) in ALLOWED_WITHIN_RANK
        assert allowed, f"{mine} (rank {RANK[mine]}) imports {module} (rank {RANK[other]})"


def functions(path: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_stay_short(path):
    long = [node.name for node in functions(path) if node.end_lineno - node.lineno >= 50]
    assert long == []


def test_long_files_are_reviewed_and_listed():
    """A file over 300 lines is reviewed: if it is a single idea, it stays and is listed here."""
    reviewed = set()
    long = {str(path.relative_to(PACKAGE)) for path in FILES if len(path.read_text().splitlines()) > 300}
    assert long == reviewed


def settings_with_defaults() -> set[str]:
    """The name of every setting of every command."""
    models, found = [Settings], set()
    for info in iter_modules(ptlreid.settings.__path__):
        import_module(f"ptlreid.settings.{info.name}")
    while models:
        model = models.pop()
        models += model.__subclasses__()
        found |= set(model.model_fields)
    return found


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.relative_to(PACKAGE).parts[0] not in ("settings", "cli", "_synthetic")],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_defaults_are_defined_in_the_settings_only(path):
    """Below the settings, a parameter with the name of a setting has no default other than None."""
    names = settings_with_defaults()
    repeated = []
    for node in functions(path):
        positional = node.args.posonlyargs + node.args.args
        given = list(zip(positional[len(positional) - len(node.args.defaults) :], node.args.defaults, strict=True))
        given += [pair for pair in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if pair[1] is not None]
        repeated += [
            f"{node.name}: {argument.arg}"
            for argument, default in given
            if argument.arg in names and not (isinstance(default, ast.Constant) and default.value is None)
        ]
    assert repeated == []


def loaded_by(code: str) -> set[str]:
    """The modules that are loaded after running `code` in a new interpreter."""
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
def test_commands_that_do_not_compute_do_not_import_torch(code):
    assert not {"torch", "torchvision", "matplotlib", "scipy", "sklearn"} & loaded_by(code)


@pytest.mark.parametrize("word", ["--help", "--version", "evalute"])
def test_no_command_is_loaded_before_it_is_called(word):
    loaded = loaded_by(f"sys.argv += ['{word}']; from ptlreid.cli import main; main()")
    assert not {"numpy", "h5py", "PIL"} & loaded
    assert word == "evalute" or not {"pydantic", "rich"} & loaded  # to reject a word, Typer itself loads pydantic
    assert {name for name in loaded if name.startswith("ptlreid.")} == {"ptlreid.cli", "ptlreid.signals"}


def test_every_option_spells_out_its_flag():
    """Without it, one version of Typer that we met made `--NAME` of a parameter `name` with the placeholder NAME."""
    calls = [
        node
        for path in (PACKAGE / "cli").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "typer.Option"
    ]
    first = [ast.unparse(call.args[0]) if call.args else ast.unparse(call) for call in calls]
    assert len(first) > 20
    # `flags`: those of an option made from a setting
    assert [text for text in first if not text.startswith(("'--", "flags"))] == []
