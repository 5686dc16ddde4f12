"""Plugin discovery by file name, so that a new dataset, backbone or loss is one new file.

In a plugin package every module is a part, named after its file with `-` for `_`; files that start with an underscore
are helpers. Listing the names imports no part, so that it is fast even where parts need torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from ptlreid.errors import OptionError


def names(package: ModuleType) -> list[str]:
    """The public names of the parts in `package`, sorted."""
    found = (module.name for module in iter_modules(package.__path__))
    return sorted(name.replace("_", "-") for name in found if not name.startswith("_"))


def find(package: ModuleType, name: str, kind: str) -> ModuleType:
    """The module in `package` whose public name is `name`, `_` and `-` being the same.

    Raises `OptionError` with the nearest name if there is none. `kind`: what the message calls such a part.
    """
    if name.replace("_", "-") not in names(package):
        raise unknown_name(kind, name, names(package))
    return import_module(f"{package.__name__}.{name.replace('-', '_')}")


def load_all(package: ModuleType) -> dict[str, ModuleType]:
    """Every part of `package` by its public name, imported."""
    return {name: find(package, name, "part") for name in names(package)}


def unknown_name(kind: str, name: str, known: Iterable[str]) -> OptionError:
    """The error for a name that is not among `known`, with a suggestion."""
    return OptionError(f"Unknown {kind} {name!r}. {suggest_name(name, known)}")


def suggest_name(name: str, known: Iterable[str]) -> str:
    """Help with a misspelt name: the nearest `known` one, and all of them."""
    choices = sorted(known)
    near = get_close_matches(name.lower(), choices, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"{hint}Known: {', '.join(choices)}."
