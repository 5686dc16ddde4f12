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
from ptlreid.names import UNLABELLED
from ptlreid.progress import Progress
from ptlreid.settings import recipes
from ptlreid.settings.adapt import AdaptSettings
from ptlreid.settings.base import RENAMED, read_toml
from ptlreid.settings.distill import LAMBDA, DistillSettings, Lambda
from ptlreid.settings.fields import COMMON
from ptlreid.settings.finetune import FinetuneSettings

_WHOLE_CHAIN = frozenset({"init", "backbone", "seed"}) | FinetuneSettings.MACHINE
# What an adaptation takes from the settings of the chain, and what it takes from the stage before.
_OF_ADAPTATION = frozenset({"seed", "amp", "channels_last"}) | FinetuneSettings.MACHINE
_STAGE_BEFORE = frozenset({"run", "ptl", "memory"})


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
        if settings.std and _adapts(settings.stage[-1]) and "lambda_" not in settings.model_fields_set:
            return settings.model_copy(update={"lambda_": 1.0})  # without identities, from the teacher's features alone
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
        data = "-".join(Path(name).absolute().name for name in self.chain)
        return f"chain-{data}-{self.backbone}-{self.method}-s{self.seed}".replace(":", "-")

    def differences(self, other: Self, same: Collection[str] = ()) -> list[str]:
        """As for other settings; λ counts only if the last stage is distilled."""
        return super().differences(other, same if self.std or other.std else [*same, "lambda"])

    def stages(self, **changed: Any) -> list[FinetuneSettings]:
        """The settings of each stage, in order: the chain's, then the stage's recipe, then its table, then `changed`.

        `init` is the chain's in all of them, although only the first stage starts from it. An adaptation has the
        defaults of `adapt`, then its table; of the chain's settings, those of training with labels do not count.
        """
        stages: list[FinetuneSettings] = []
        for number in range(len(self.stage)):
            stages.append(self._make_stage(number, stages[-1] if stages else None, **changed))
        return stages

    def last_distilled(self) -> DistillSettings:
        """The settings of the final distillation: those of the last stage, for a plain student.

        After an adaptation, those of the chain, as the student is trained as labelled stages are.
        """
        values = self._stage_values(len(self.stage) - 1, ptl=False)
        return DistillSettings.make(**values, lambda_=self.lambda_)

    def to_toml(self) -> str:
        """The settings that were given, as TOML: the run folder of a stage has all of its settings."""
        return tomli_w.dumps(self.model_dump(exclude_unset=True, by_alias=True))

    def _stage_values(self, number: int, **changed: Any) -> dict[str, Any]:
        """The settings that were given for one stage; all others keep the defaults of their models."""
        given = {name: getattr(self, name) for name in self.model_fields_set & set(FinetuneSettings.model_fields)}
        table = {"data": self.chain[number]} if _adapts(self.stage[number]) else dict(self.stage[number])
        recipe = table.pop("recipe", None)
        for layer in (read_toml(recipes.find(recipe)) if recipe else {}, table, changed):
            given = FinetuneSettings.overlay(given, layer)
        if given.get("ptl") is False:
            given.pop("memory", None)  # a network without cells has no latent state
        return given

    def _make_stage(self, number: int, before: FinetuneSettings | None, **changed: Any) -> FinetuneSettings:
        """The settings of one stage, which follows the stage `before`.

        An adaptation is of the run of that stage, or if it is the first one of the run that `init` names. The rest of
        the network's description is that of the run, once it is known.
        """
        table = self.stage[number]
        if not _adapts(table):
            return FinetuneSettings.make(**self._stage_values(number, **changed))
        values = {name: getattr(self, name) for name in self.model_fields_set & _OF_ADAPTATION}
        if before:
            values |= {"backbone": self.backbone, "ptl": before.ptl, "memory": before.memory}
        else:
            values["run"] = self.init
        if table.get("method") == "cameras":
            values["epochs"] = 0
        return AdaptSettings.make(**{**values, **table})

    def _check_stages(self) -> None:
        """Raise `OptionError` for a chain without stages, and for a stage that cannot be trained."""
        if "data" in self.model_fields_set:
            raise OptionError("A chain has several datasets: give them in order, or in [[stage]] tables.")
        if not self.stage:
            raise OptionError("No datasets given. Give them in order, such as `ptlreid transfer-chain duke market`.")
        if "lambda_" in self.model_fields_set and "std" not in self.model_fields_set:
            raise OptionError("--lambda has no effect without --std. Add --std, or leave out --lambda.")
        for number, table in enumerate(self.stage, start=1):
            self._check_stage(number, table)
        adapted = _adapts(self.stage[-1])
        if self.std and not self.ptl and not adapted:
            raise OptionError("--std distils a PTL network into a plain one. Leave out --no-ptl, or --std.")
        if self.std and adapted and "lambda_" in self.model_fields_set and self.lambda_ != 1:
            raise OptionError(
                f"--lambda {self.lambda_:g}: expected 1, as the last stage has no identities: its student learns from "
                "features alone. Leave --lambda out, or --std."
            )

    def _check_stage(self, number: int, table: Mapping[str, Any]) -> None:
        if not isinstance(table.get("data"), str):
            raise OptionError(f'Stage {number} names no dataset. Give it a line such as data = "market".')
        if not isinstance(table.get("recipe", ""), str):
            raise OptionError(f"Stage {number}: recipe = {table['recipe']!r}: expected the name of a recipe, as text.")
        adapts = _adapts(table)
        kind: type[FinetuneSettings] = AdaptSettings if adapts else FinetuneSettings
        known = {kind.key(name) for name in kind.model_fields} | (set() if adapts else {"recipe"})
        if unknown := sorted(set(table) - known - set(RENAMED)):
            name = printable(unknown[0], 60)
            raise OptionError(f"Stage {number}: {plugins.unknown_name('setting', name, known)}")
        if fixed := sorted(_WHOLE_CHAIN & set(table)):
            raise OptionError(
                f"Stage {number} sets {fixed[0]}, which must be the same for all stages. Set it above the tables."
            )
        if adapts and (fixed := sorted(_STAGE_BEFORE & set(table))):
            raise OptionError(
                f"Stage {number} sets {fixed[0]}: expected nothing, as it adapts the network of the stage before. "
                "Leave it out."
            )
        if adapts and number == 1 and self.init in ("imagenet", "none"):
            raise OptionError(
                f"Stage 1, {table['data']}, has no identities: expected a trained run that it can adapt. Begin with a "
                "labelled dataset, or name a run with --init."
            )
        try:
            self._make_stage(number - 1, None)
        except OptionError as error:
            raise OptionError(f"Stage {number}: {error}") from None


def _adapts(table: Mapping[str, Any]) -> bool:
    """Whether a stage is an adaptation: the name of its dataset says that it is taken without identities."""
    return str(table["data"]).endswith(UNLABELLED)
