"""Recipes: named settings for a method, one TOML file each in `ptlreid/recipes`."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from ptlreid import plugins
from ptlreid.errors import OptionError

_FOLDER = Path(str(files("ptlreid"))) / "recipes"


def names() -> list[str]:
    """The recipes' names, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def find(name: str) -> Path:
    """The file of the recipe called `name`; `OptionError` with a near-miss hint when there is none.

    `strong`, which version 0.1 had, gets a message of its own.
    """
    if name == "strong":
        raise OptionError(
            "recipe strong: it has become bot, which trains the complete network of its source, with last stride 1, a "
            "neck and centres. Use --recipe bot."
        )
    if name not in names():
        raise plugins.unknown_name("recipe", name, names())
    return _FOLDER / f"{name}.toml"


def of_backbone(backbone: object) -> str | None:
    """The recipe of a backbone: the one of its name; None for a backbone that has none, and for any other value."""
    return backbone if isinstance(backbone, str) and backbone in names() else None


def about(name: str) -> str:
    """The source of the recipe, in a sentence: the first line of its file, a comment."""
    first, *_ = find(name).read_text(encoding="utf-8").splitlines()
    return first.removeprefix("# ")
