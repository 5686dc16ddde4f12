"""The type, choices and limits of a setting, read from its pydantic field, for options and messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from ptlreid import plugins


@dataclass(frozen=True)
class Option:
    """Metadata of a setting for the command line, in its annotation: `Annotated[int, Option(...)]`.

    `common`: shown by --help; the other settings by --help-all. `machine`: about where or how work is done; runs that
    differ in it alone are the same run. `env`: its environment variable. `default`: the text that help shows where the
    default is None. `parts`: the package whose plugins, by file name, are the valid values; values that begin with one
    of `prefixes` are valid, too, as far as settings know; with `sums`, so are several, joined by `+`. `metavar`: the
    placeholder of the value in help. `panel`: the heading in help, if not "More settings".
    """

    common: bool = False
    machine: bool = False
    env: str | None = None
    default: str | None = None
    parts: str | None = None
    prefixes: tuple[str, ...] = ()
    sums: bool = False
    metavar: str | None = None
    panel: str | None = None


# The largest values of settings that are of one kind in every command.
MAX_SEED = 2**32 - 1  # as NumPy's
MAX_EPOCHS = 1_000_000
MAX_BATCH = 65_536
MAX_PIXELS = 2048  # of an image's height or width

COMMON = Option(common=True)
MACHINE = Option(machine=True)


def find_option(field: FieldInfo) -> Option:
    """The `Option` in the annotation of a field; the default `Option` where there is none."""
    return next((item for item in field.metadata if isinstance(item, Option)), Option())


@dataclass(frozen=True)
class Kind:
    """The values that a setting accepts: of this `type`, or with `many` a list of them.

    `choices`: the valid values, if they are a closed set. `low`, `high`: the limits of a number, inclusive unless
    `above` or `below` are set.
    """

    type: type
    many: bool = False
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    above: bool = False
    below: bool = False

    @property
    def limits(self) -> str:
        """The range of a number: `≥ 1`, `> 0`, `[0, 1)`; empty where there is none."""
        if self.low is None and self.high is None:
            return ""
        if self.low is None:
            return f"{'<' if self.below else '≤'} {_number(self.high)}"
        if self.high is None:
            return f"{'>' if self.above else '≥'} {_number(self.low)}"
        return f"{'(' if self.above else '['}{_number(self.low)}, {_number(self.high)}{')' if self.below else ']'}"

    @property
    def expected(self) -> str:
        """The valid values in words, for messages, such as `'euclidean' or 'cosine'` or `an integer ≥ 1`."""
        if self.choices:
            return join_choices(self.choices)
        singular, plural = {
            bool: ("true or false", "true and false"),
            int: ("an integer", "integers"),
            float: ("a number", "numbers"),
        }.get(self.type, ("text", "texts"))
        limits = f" {self.limits}" if self.limits[:1] in "<>≤≥" else f" in {self.limits}"
        return (f"a list of {plural}" if self.many else singular) + (limits if self.limits else "")


def _number(value: float | None) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def join_choices(choices: Sequence[str]) -> str:
    """`'a'`, `'a' or 'b'`, `'a', 'b' or 'c'`."""
    *first, last = map(repr, choices)
    return f"{', '.join(first)} or {last}" if first else last


def find_kind(field: FieldInfo) -> Kind | None:
    """The `Kind` of a field; None for a structured value, such as a table."""
    annotation, limits = field.annotation, list(field.metadata)
    many = False
    while (origin := get_origin(annotation)) is not None and origin is not Literal:
        inner = [item for item in get_args(annotation) if item is not NoneType]
        if origin is Annotated:
            limits += [part for item in inner[1:] for part in getattr(item, "metadata", [item])]
        elif origin in (list, tuple):
            many = True
        elif origin not in (Union, UnionType):
            return None
        annotation = inner[0]
    option = find_option(field)
    if origin is Literal:
        return Kind(str, many, tuple(map(str, get_args(annotation))))
    if option.parts:
        return Kind(str, many, tuple(plugins.names(import_module(option.parts))))
    if annotation not in (bool, int, float, str):
        return None
    return Kind(annotation, many, **_limits(limits))  # type: ignore[arg-type]  # one of the four types above


def _limits(metadata: Sequence[Any]) -> dict[str, Any]:
    """The limits in the metadata of a field, where pydantic has objects with `ge`, `gt`, `le` or `lt`."""
    bounds: dict[str, Any] = {}
    for item in metadata:
        for name, limit, strict in (("ge", "low", "above"), ("le", "high", "below")):
            for attribute in (name, name.replace("e", "t")):
                if hasattr(item, attribute):
                    bounds |= {limit: getattr(item, attribute), strict: attribute != name}
    return bounds
