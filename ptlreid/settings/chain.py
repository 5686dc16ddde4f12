"""Settings of a transfer chain: those of fine-tuning, for all its stages, and a table for each."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Self

import tomli_w
from pydantic import Field

from ptlreid.errors import OptionError
from ptlreid.settings import recipes
from ptlreid.settings.base import read_toml
from ptlreid.settings.distill import LAMBDA, DistillSettings, Lambda
from ptlreid.settings.finetune import FinetuneSettings

_OF_THE_CHAIN = frozenset({"init", "backbone", "seed"}) | FinetuneSettings.MACHINE


class ChainSettings(FinetuneSettings):
    """Fine-tuning one network on datasets in a row."""

    std: bool = Field(False, description="Distil what the last stage learnt into a plain backbone.")
    lambda_: Lambda = LAMBDA
    stage: list[dict[str, Any]] = Field(
        [], description="A table for each stage: its `data`, a `recipe`, and any setting in which it differs."
    )

    @classmethod
    def resolve(
        cls, file: Path | None = None, *, recipe: str | None = None, chain: list[str] | None = None, **given: Any
    ) -> Self:
        """The settings as for other commands, with a stage for each dataset in `chain` where no file has stages."""
        if chain and file and "stage" in read_toml(file):
            raise OptionError(f"{file} has the chain's stages. Leave the datasets out of the command.")
        if chain:
            given["stage"] = [{"data": name} for name in chain]
        config = super().resolve(file, recipe=recipe, **given)
        config._check()
        return config

    @property
    def chain(self) -> list[str]:
        """The datasets, in order."""
        return [str(table["data"]) for table in self.stage]

    @property
    def method(self) -> str:
        """That of fine-tuning, with `-std0.8` where its result is distilled."""
        return f"{super().method}-std{self.lambda_:g}" if self.std else super().method

    @property
    def default_name(self) -> str:
        """The name of the chain's folder when none is given: never a clock, and never that of a run."""
        data = "-".join(Path(name).name.replace(":", "-") for name in self.chain)
        return f"chain-{data}-{self.backbone}-{self.method}-s{self.seed}"

    def differences(self, other: Self, same: Collection[str] = ()) -> list[str]:
        """As for other settings; λ is one of them only where something is distilled."""
        return super().differences(other, same if self.std or other.std else [*same, "lambda"])

    def stages(self, **changed: Any) -> list[FinetuneSettings]:
        """The settings of each stage, in order: the chain's, then the stage's recipe, then its table, then `changed`.

        `init` is the chain's in each of them, as only the first starts there.
        """
        return [FinetuneSettings.resolve(None, **self._of(number, **changed)) for number in range(len(self.stage))]

    def last_distilled(self) -> DistillSettings:
        """The settings of the distillation that ends the chain: those of its last stage, for a plain student."""
        return DistillSettings.resolve(None, **self._of(len(self.stage) - 1, ptl=False), lambda_=self.lambda_)

    def to_toml(self) -> str:
        """What was chosen, as TOML: the settings of each stage are in its run folder, whole."""
        return tomli_w.dumps(self.model_dump(exclude_unset=True, by_alias=True))

    def _of(self, number: int, **changed: Any) -> dict[str, Any]:
        """What was chosen for one stage; settings that were left alone keep their own defaults."""
        given = {name: getattr(self, name) for name in self.model_fields_set & set(FinetuneSettings.model_fields)}
        table = dict(self.stage[number])
        recipe = table.pop("recipe", None)
        given |= (read_toml(recipes.find(recipe)) if recipe else {}) | table | changed
        if given.get("ptl") is False:
            given.pop("memory", None)  # a plain backbone is the same run, whatever cells beside it would carry
        return given

    def _check(self) -> None:
        """Raise `OptionError` for a chain without stages, and for a stage that cannot be."""
        if "data" in self.model_fields_set:
            raise OptionError("A chain has several datasets: name them in order, or in [[stage]] tables.")
        if not self.stage:
            raise OptionError("Which datasets? Name them in order, such as `ptlreid transfer-chain duke market`.")
        if self.std and not self.ptl:
            raise OptionError("--std teaches a plain backbone what PTL learnt. Leave out --no-ptl, or --std.")
        if "lambda_" in self.model_fields_set and "std" not in self.model_fields_set:
            raise OptionError("--lambda weighs what --std distils. Add --std, or leave out --lambda.")
        for number, table in enumerate(self.stage, start=1):
            if not isinstance(table.get("data"), str):
                raise OptionError(f'Stage {number} names no dataset. Give it a line such as data = "market".')
            if fixed := sorted(_OF_THE_CHAIN & set(table)):
                raise OptionError(
                    f"Stage {number} has {fixed[0]}, which is the same for the whole chain: set it above."
                )
            try:
                FinetuneSettings.resolve(None, **self._of(number - 1))
            except OptionError as error:
                raise OptionError(f"Stage {number}: {error}") from None
