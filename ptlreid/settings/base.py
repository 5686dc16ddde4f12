"""The base class of all settings: validated, frozen, read from recipes and TOML files, written to TOML."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from ptlreid import plugins
from ptlreid.errors import OptionError
from ptlreid.file_kinds import identify, printable
from ptlreid.names import NOT_UTF8
from ptlreid.progress import Progress
from ptlreid.settings import recipes
from ptlreid.settings.fields import Option, find_kind, find_option

# Settings that were renamed since version 0.1, by their old name.
RENAMED = {
    "images_per_person": "images_per_identity",
    "draws": "single_shot_samples",
    "places": "ranklist_size",
    "false_rates": "false_accept_rates",
}
_MAX_INTEGER = 2**63 - 1
_MAX_NAME_BYTES = 255  # of a part of a path, in every file system
_MAX_TOML_BYTES = 1 << 20


class Settings(BaseModel):
    """A validated, frozen set of options. An unknown key, a wrong type or a value out of range is an `OptionError`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, str_max_length=4096)

    # Settings of where and how the work is done: runs that differ in these alone are the same run. Set from the fields.
    MACHINE: ClassVar[frozenset[str]] = frozenset()
    # Inherited settings that are not options of the command, and defaults that its help shows instead of the fields'.
    NO_OPTION: ClassVar[frozenset[str]] = frozenset()
    SHOWN_DEFAULTS: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        cls.MACHINE = frozenset(name for name, field in cls.model_fields.items() if find_option(field).machine)

    @field_validator("*")
    @classmethod
    def _check_value(cls, value: Any) -> Any:
        """The value, without the sign of -0.0; refuses numbers and texts that no program can use."""
        if isinstance(value, float):
            return value + 0.0
        if isinstance(value, int) and abs(value) > _MAX_INTEGER:
            raise PydanticCustomError("huge", "a smaller integer")
        if isinstance(value, str) and not (
            re.sub(NOT_UTF8, "", value).isprintable()
            and all(len(part.encode(errors="replace")) <= _MAX_NAME_BYTES for part in value.split("/"))
        ):
            raise PydanticCustomError("text", "printable text, and names of files of at most 255 bytes")
        return value

    @classmethod
    def resolve(
        cls,
        file: Path | None = None,
        *,
        recipe: str | None = None,
        origins: Mapping[str, str] | None = None,
        progress: Progress | None = None,
        **given: Any,
    ) -> Self:
        """The settings: defaults, a named `recipe`, the TOML `file`, and the `given` values (None: not given).

        Each overrides those before it. Without a named recipe, it is `own_recipe`, on which `progress` gets a note.
        `origins`: what messages call a given value, by key, instead of `key = value`, such as `--metric cos`.
        """
        above = [(f"{file}: ", read_toml(file))] if file else []
        above.append(("", {cls.key(name): value for name, value in given.items() if value is not None}))
        chosen = {key: value for _, layer in above for key, value in layer.items()}
        name = recipe or cls.own_recipe(chosen)
        below = [(f"recipe {name}: ", read_toml(recipes.find(name)))] if name else []
        values: dict[str, Any] = {}
        sources: dict[str, str] = {}
        for place, layer in below + above:
            values = cls.overlay(values, layer)
            sources |= {key: f"{place}{_assignment(key, value)}" for key, value in layer.items()}
        sources |= {cls.key(name): text for name, text in (origins or {}).items()}
        if progress and not recipe and values.keys() - chosen.keys():
            progress.note(f"recipe {name}, that of the backbone; --recipe chooses another")
        return cls._check(values, sources)

    @classmethod
    def make(cls, **values: Any) -> Self:
        """The settings with these values (None: not given), and the defaults of all others: no recipe."""
        layer = {cls.key(name): value for name, value in values.items() if value is not None}
        return cls._check(layer, {key: _assignment(key, value) for key, value in layer.items()})

    @classmethod
    def own_recipe(cls, values: Mapping[str, Any]) -> str | None:
        """The recipe that applies where none is named, given the other `values`; None for no recipe."""
        return None

    @classmethod
    def load(cls, file: Path) -> Self:
        """The settings that `to_toml` wrote into `file`, in this version or an earlier one."""
        values = cls.translate(read_toml(file))
        return cls._check(
            values, {key: f"{file}: {_assignment(key, value)}" for key, value in values.items()}, parts=False
        )

    @classmethod
    def overlay(cls, below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
        """The settings `below`, overridden by those `above`."""
        return {**below, **above}

    @classmethod
    def translate(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The settings written by an earlier version, under their current names."""
        return {RENAMED.get(key, key): value for key, value in values.items()}

    @classmethod
    def key(cls, name: str) -> str:
        """The TOML key of the field called `name`: the same name, unless it is a Python keyword."""
        field = cls.model_fields.get(name)
        return (field and field.alias) or name

    def to_toml(self) -> str:
        """The settings as TOML; keys whose value is None are left out, as TOML has no null."""
        return tomli_w.dumps(self.model_dump(exclude_none=True, by_alias=True))

    def differences(self, other: Self, same: Collection[str] = ()) -> list[str]:
        """`key: here -> there`, for each setting on which the result depends and the two differ.

        `same`: settings to ignore, as their two values are known to mean the same, such as two names of one run.
        """
        ours, theirs = self.model_dump(by_alias=True), other.model_dump(by_alias=True)
        return [
            f"{key}: {ours[key]!r} -> {theirs[key]!r}"
            for key in ours
            if key not in self.MACHINE and key not in same and ours[key] != theirs[key]
        ]

    @classmethod
    def _check(cls, values: Mapping[str, Any], origins: Mapping[str, str], *, parts: bool = True) -> Self:
        """The validated settings. `origins`: the source of each value, for messages. `parts`: check plugin names."""
        try:
            settings = cls(**values)
        except ValidationError as error:
            raise OptionError(_explain(error, cls, origins)) from None
        for name, field in cls.model_fields.items() if parts else ():
            value, option = getattr(settings, name), find_option(field)
            choices = kind.choices if option.parts and (kind := find_kind(field)) else ()
            for part in (value.split("+") if option.sums else [value]) if choices else []:
                if part not in choices and not part.startswith(option.prefixes):
                    raise OptionError(f"{origins[name]}: no such {name}. {plugins.suggest_name(part, choices)}")
            if isinstance(value, str) and re.search(NOT_UTF8, value):  # it could not be written to TOML
                raise OptionError(_ask_for_utf8(origins[cls.key(name)]))
        return settings


def _name_device(value: Any) -> Any:
    return f"cuda:{value}" if (isinstance(value, str) and value.isdecimal()) or type(value) is int else value


Device = Annotated[
    str,
    BeforeValidator(_name_device),
    Option(common=True, machine=True),
    Field(description="auto, cpu, mps, cuda or a GPU's number."),
]


class RootSettings(Settings):
    """The settings that all commands reading datasets share."""

    root: Annotated[str, Option(common=True, machine=True, env="PTLREID_DATA", metavar="DIR")] = Field(
        "data", description="Folder of the datasets."
    )


class DataSettings(RootSettings):
    """The settings that all commands reading images share."""

    device: Device = "auto"
    workers: Annotated[int | None, Option(machine=True, default="CPU: 0, GPU: up to 8")] = Field(
        None, ge=0, le=1000, description="Processes that load images."
    )


def read_toml(file: Path) -> dict[str, Any]:
    """The keys of a TOML file; `OptionError` when there is none or it is not TOML."""
    try:
        if file.is_file() and file.stat().st_size <= _MAX_TOML_BYTES:
            return tomllib.loads(file.read_text(encoding="utf-8"))
        kind = identify(file)
        raise OptionError(f"{file}: {kind}, expected a TOML file of at most 1 MB. Give another file.")
    except OSError as error:
        raise OptionError(f"{file}: cannot be read ({error.strerror}). Give an existing TOML file.") from None
    except (RecursionError, ValueError) as error:  # of TOML, of UTF-8, of an integer with thousands of digits
        kind = identify(file)
        reason = str(error) if kind.startswith(("text", "JSON")) else kind
        reason = "nested too deeply" if isinstance(error, RecursionError) else reason
        raise OptionError(f"{file}: not TOML ({printable(reason)}). Correct it and try again.") from None


def _explain(error: ValidationError, model: type[Settings], origins: Mapping[str, str]) -> str:
    """A message on pydantic's first error: what is wrong, and what was expected."""
    fault = error.errors()[0]
    key = str(fault["loc"][0])
    fields = {model.key(name): field for name, field in model.model_fields.items()}
    named = origins.get(key, _assignment(key, fault["input"]))
    if fault["type"] == "extra_forbidden":
        place = named.removesuffix(_assignment(key, fault["input"]))
        if RENAMED.get(key) in fields:
            return f"{place}{key} was renamed in version 0.2: use {RENAMED[key]} instead."
        return f"{place}{plugins.unknown_name('setting', printable(key, 60), fields)}"
    if fault["type"] == "string_unicode":
        return _ask_for_utf8(named)
    kind = find_kind(fields[key])
    if kind is None or fault["type"] == "string_pattern_mismatch":
        return f"{named}: {fault['msg'].lower()}. {fields[key].description or ''}".rstrip()
    return f"{named}: expected {fault['msg'] if fault['type'] in ('text', 'huge') else kind.expected}."


def _ask_for_utf8(named: str) -> str:
    return f"{named}: expected text in UTF-8. Rename that file or folder."


def _assignment(key: str, value: Any) -> str:
    """`key = value` as a message shows it."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deeply; an integer with thousands of digits
        text = f"a very long {type(value).__name__}"
    return f"{printable(key, 60)} = {printable(text)}"
