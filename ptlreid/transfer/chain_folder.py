"""The folder of a chain: its settings and its result. Its stages are run folders next to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ptlreid import files
from ptlreid.errors import OptionError
from ptlreid.names import name_folder
from ptlreid.runs import RunFolder
from ptlreid.settings import ChainSettings


@dataclass(frozen=True)
class ChainFolder:
    """Where a chain is saved."""

    path: Path

    @classmethod
    def named(cls, runs: Path, name: str | None, settings: ChainSettings) -> Self:
        """The folder below `runs` called `name`, or if it is None by the default name of the chain's settings.

        Raises `OptionError` for a name that is not that of one folder.
        """
        return cls(name_folder(runs, settings.default_name if name is None else name, "chain"))

    @property
    def config(self) -> Path:
        """The settings as given, TOML. Not `config.toml`, which marks a run folder."""
        return self.path / "chain.toml"

    @property
    def result(self) -> Path:
        """The stages and the scores of each on every dataset, JSON."""
        return self.path / "chain.json"

    def check(self, settings: ChainSettings) -> None:
        """Raise `OptionError` if the folder holds a run, or the result of a chain with other settings."""
        if RunFolder(self.path).config.is_file():
            raise OptionError(f"{self.path} holds a run: a chain needs its own folder. Give it another --name.")
        changed = ChainSettings.load(self.config).differences(settings) if self.result.is_file() else []
        if changed:
            raise OptionError(
                f"{self.path} holds another chain ({'; '.join(changed)}). Give this one another --name: stages in "
                "common are reused."
            )

    def claim(self, settings: ChainSettings) -> None:
        """Write the settings, after `check`."""
        self.check(settings)
        with files.atomic_write(self.config) as temporary:
            temporary.write_text(settings.to_toml(), encoding="utf-8")
