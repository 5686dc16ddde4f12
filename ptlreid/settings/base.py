"""The base of all settings: checked, frozen, to and from TOML, with a recipe beneath."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ptlreid import plugins
from ptlreid.errors import OptionError
from ptlreid.settings import recipes


class Settings(BaseModel):
    """A checked, frozen set of options. An unknown key, a wrong type or a value out of range is an `OptionError`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    # Where the work is done: these may differ between two runs that are the same run.
    MACHINE: ClassVar[frozenset[str]] = frozenset({"root", "device", "workers"})

    @classmethod
    def resolve(cls, file: Path | None = None, *, recipe: str | None = None, **given: Any) -> Self:
        """The settings: defaults, a named `recipe`, the TOML `file`, and what was `given` (None: not given).

        Each overrides those before it.
        """
        values = read_toml(recipes.find(recipe)) if recipe else {}
        values |= read_toml(file) if file else {}
        values.update({cls.key(name): value for name, value in given.items() if value is not None})
        try:
            return cls(**values)
        except ValidationError as error:
            raise OptionError(_explain(error, cls, file)) from None

    @classmethod
    def key(cls, name: str) -> str:
        """The TOML key of the field called `name`: the same word, but where Python keeps that word for itself."""
        about = cls.model_fields.get(name)
        return (about and about.alias) or name

    def to_toml(self) -> str:
        """The settings as TOML; a key whose value is None is left out, as TOML has no such value."""
        return tomli_w.dumps(self.model_dump(exclude_none=True, by_alias=True))

    def differences(self, other: Self, same: Collection[str] = ()) -> list[str]:
        """`key: here -> there`, for each setting on which the result depends and the two differ.

        `same`: settings that name what is known to be the same under both names.
        """
        mine, yours = self.model_dump(by_alias=True), other.model_dump(by_alias=True)
        return [
            f"{key}: {mine[key]!r} -> {yours[key]!r}"
            for key in mine
            if key not in self.MACHINE and key not in same and mine[key] != yours[key]
        ]


class DataSettings(Settings):
    """What every command that reads images shares."""

    root: str = Field("data", description="Folder that holds the datasets.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 or mps.")
    workers: int | None = Field(
        None, ge=0, description="Processes that load images; by default none on a CPU, up to 8 beside a GPU."
    )


def read_toml(file: Path) -> dict[str, Any]:
    """The keys of a TOML file; `OptionError` when there is none or it is not TOML."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"{file}: cannot be read ({error.strerror}). Give an existing TOML file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptionError(f"{file}: not TOML ({error}). Correct that line and try again.") from None


def _explain(error: ValidationError, settings: type[Settings], file: Path | None) -> str:
    """The first fault that pydantic found, in the words of this project."""
    fault = error.errors()[0]
    key = str(fault["loc"][0])
    where = f"{file}: " if file else ""
    fields = {settings.key(name): about for name, about in settings.model_fields.items()}
    if fault["type"] == "extra_forbidden":
        return where + str(plugins.unknown_name("setting", key, fields))
    about = fields[key].description or ""
    return f"{where}{key} = {fault['input']!r} is not possible: {fault['msg'].lower()}. {about}"
