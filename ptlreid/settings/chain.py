"""Settings of a transfer chain: those of fine-tuning, for all stages, and a table for each stage."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import tomli_w
from pydantic import Field

from ptlreid import plugins
from ptlreid.errors import OptionError
from ptlreid.file_kinds import printable
from ptlreid.progress import Progress
from ptlreid.settings import recipes
from ptlreid.settings.base import RENAMED, read_toml
from ptlreid.settings.distill import LAMBDA, DistillSettings, Lambda
from ptlreid.settings.fields import COMMON
from ptlreid.settings.finetune import FinetuneSettings

_WHOLE_CHAIN = frozenset({"init", "backbone", "seed"}) | FinetuneSettings.MACHINE


class ChainSettings(FinetuneSettings):
    """Fine-tuning one network on several datasets, one after another."""

    NO_OPTION: ClassVar[frozenset[str]] = frozenset({"data"})  # the datasets are arguments

    std: Annotated[bool, COMMON] = Field(False, description="Distil the last stage into a plain backbone.")
    lambda_: Lambda = LAMBDA
    stage: list[dict[str, Any]] = Field(
        [],
        max_length=1000,
        description="A table for each stage: its data, a recipe, and any setting in which it differs.",
    )

    @classmethod
    def resolve(
        cls,
        file: Path | None = None,
        *,
        recipe: str | None = None,
        origins: Mapping[str, str] | None = None,
        progress: Progress | None = None,
        chain: list[str] | None = None,
        **given: Any,
    ) -> Self:
        """The settings as for other commands, with a stage for each dataset in `chain` unless a file defines stages."""
        if chain and file and "stage" in read_toml(file):
            raise OptionError(f"{file} has [[stage]] tables already. Leave the datasets out of the command.")
        if chain:
            given["stage"] = [{"data": name} for name in chain]
        settings = super().resolve(file, recipe=recipe, origins=origins, progress=progress, **given)
        settings._check_stages()
        return settings

    @classmethod
    def translate(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """As for other settings, also in the tables of the stages."""
        values = super().translate(values)
        stages = values.get("stage", [])
        if not (isinstance(stages, list) and all(isinstance(table, dict) for table in stages)):
            return values  # refused when it is validated
        return {**values, "stage": [super(ChainSettings, cls).translate(table) for table in stages]}

    @property
    def chain(self) -> list[str]:
        """The datasets, in order."""
        return [str(table["data"]) for table in self.stage]

    @property
    def method(self) -> str:
        """The method of fine-tuning, with a suffix such as `-std0.8` if the last stage is distilled."""
        return f"{super().method}-std{self.lambda_:g}" if self.std else super().method

    @property
    def default_name(self) -> str:
        """The default name of the chain's folder: without a timestamp, and never the name of a run."""
        data = "-".join(Path(name).absolute().name.replace(":", "-") for name in self.chain)
        return f"chain-{data}-{self.backbone}-{self.method}-s{self.seed}"

    def differences(self, other: Self, same: Collection[str] = ()) -> list[str]:
        """As for other settings; λ counts only if the last stage is distilled."""
        return super().differences(other, same if self.std or other.std else [*same, "lambda"])

    def stages(self, **changed: Any) -> list[FinetuneSettings]:
        """The settings of each stage, in order: the chain's, then the stage's recipe, then its table, then `changed`.

        `init` is the chain's in all of them, although only the first stage starts from it.
        """
        count = len(self.stage)
        return [FinetuneSettings.make(**self._stage_values(number, **changed)) for number in range(count)]

    def last_distilled(self) -> DistillSettings:
        """The settings of the final distillation: those of the last stage, for a plain student."""
        values = self._stage_values(len(self.stage) - 1, ptl=False)
        return DistillSettings.make(**values, lambda_=self.lambda_)

    def to_toml(self) -> str:
        """The settings that were given, as TOML: the run folder of a stage has all of its settings."""
        return tomli_w.dumps(self.model_dump(exclude_unset=True, by_alias=True))

    def _stage_values(self, number: int, **changed: Any) -> dict[str, Any]:
        """The settings that were given for one stage; all others keep the defaults of their models."""
        given = {name: getattr(self, name) for name in self.model_fields_set & set(FinetuneSettings.model_fields)}
        table = dict(self.stage[number])
        recipe = table.pop("recipe", None)
        for layer in (read_toml(recipes.find(recipe)) if recipe else {}, table, changed):
            given = FinetuneSettings.overlay(given, layer)
        if given.get("ptl") is False:
            given.pop("memory", None)  # a network without cells has no latent state
        return given

    def _check_stages(self) -> None:
        """Raise `OptionError` for a chain without stages, and for a stage that cannot be trained."""
        if "data" in self.model_fields_set:
            raise OptionError("A chain has several datasets: give them in order, or in [[stage]] tables.")
        if not self.stage:
            raise OptionError("No datasets given. Give them in order, such as `ptlreid transfer-chain duke market`.")
        if self.std and not self.ptl:
            raise OptionError("--std distils a PTL network into a plain one. Leave out --no-ptl, or --std.")
        if "lambda_" in self.model_fields_set and "std" not in self.model_fields_set:
            raise OptionError("--lambda has no effect without --std. Add --std, or leave out --lambda.")
        for number, table in enumerate(self.stage, start=1):
            if not isinstance(table.get("data"), str):
                raise OptionError(f'Stage {number} names no dataset. Give it a line such as data = "market".')
            if not isinstance(table.get("recipe", ""), str):
                raise OptionError(
                    f"Stage {number}: recipe = {table['recipe']!r}: expected the name of a recipe, as text."
                )
            known = {FinetuneSettings.key(name) for name in FinetuneSettings.model_fields} | {"recipe"}
            if unknown := sorted(set(table) - known - set(RENAMED)):
                name = printable(unknown[0], 60)
                raise OptionError(f"Stage {number}: {plugins.unknown_name('setting', name, known)}")
            if fixed := sorted(_WHOLE_CHAIN & set(table)):
                raise OptionError(
                    f"Stage {number} sets {fixed[0]}, which must be the same for all stages. Set it above the tables."
                )
            try:
                FinetuneSettings.make(**self._stage_values(number - 1))
            except OptionError as error:
                raise OptionError(f"Stage {number}: {error}") from None
