"""Public docstrings exist, and describe names that exist."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ptlreid

PACKAGE = Path(ptlreid.__file__).parent
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if "cli" not in path.relative_to(PACKAGE).parts]

Definition = ast.FunctionDef | ast.ClassDef

# "`name`: what it is" at the start of a sentence, as docstrings speak of parameters, fields and terms of a result.
_DESCRIBED = re.compile(r"(?:^|(?<=[.;] ))(`\w+`(?:, `\w+`)*):", re.MULTILINE)
_ERROR = re.compile(r"`?\b([A-Z]\w*(?:Error|Stopped|Interrupt))\b")


def public(node: ast.Module | ast.ClassDef) -> Iterator[Definition]:
    """Public functions and classes, with the methods of these."""
    for one in node.body:
        if isinstance(one, ast.FunctionDef | ast.ClassDef) and not one.name.startswith("_"):
            yield one
            if isinstance(one, ast.ClassDef):
                yield from public(one)


def documented(tree: ast.Module) -> list[tuple[Definition, str]]:
    return [(node, ast.get_docstring(node) or "") for node in public(tree)]


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def plain(node: Definition, tree: ast.Module) -> bool:
    """Whether a name says all: a property of one line, and a method that the base of its class describes."""
    owners = [one for one in ast.walk(tree) if isinstance(one, ast.ClassDef) and node in one.body]
    return isinstance(node, ast.FunctionDef) and any(one.bases or len(node.body) == 1 for one in owners)


def names_in(node: Definition, tree: ast.Module) -> set[str]:
    """What a docstring may describe: parameters of a function, all that a class has, values that the module names."""
    kinds = ast.arg if isinstance(node, ast.FunctionDef) else ast.AST
    found = [one for one in ast.walk(node) if isinstance(one, kinds)]
    values = {one.value for one in ast.walk(tree) if isinstance(one, ast.Constant) and isinstance(one.value, str)}
    return values | {
        str(getattr(one, key)) for one in found for key in ("arg", "id", "attr", "name") if hasattr(one, key)
    }


def errors() -> set[str]:
    tree = parsed(PACKAGE / "errors.py")
    own = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    return own | {"FaultError", "SafetensorError"} | {name for name in vars(builtins) if name[0].isupper()}


each_file = pytest.mark.parametrize(
    "tree", [pytest.param(parsed(path), id=str(path.relative_to(PACKAGE))) for path in FILES]
)


@each_file
def test_everything_public_has_a_docstring(tree):
    assert ast.get_docstring(tree), "the module has none"
    assert [node.name for node, text in documented(tree) if not text and not plain(node, tree)] == []


@each_file
def test_names_that_a_docstring_describes_exist(tree):
    described = [
        (node, name)
        for node, text in documented(tree)
        for names in _DESCRIBED.findall(text)
        for name in re.findall(r"\w+", names)
    ]
    assert [f"{node.name}: {name}" for node, name in described if name not in names_in(node, tree)] == []


@each_file
def test_errors_that_a_docstring_names_exist(tree):
    named = [(node, name) for node, text in documented(tree) for name in _ERROR.findall(text)]
    assert [f"{node.name}: {name}" for node, name in named if name not in errors()] == []
