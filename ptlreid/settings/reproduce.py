"""The paper's tables, each row with the runs behind it, and the scales at which they run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Annotated, Any, Literal

from pydantic import Field

from ptlreid.errors import OptionError
from ptlreid.settings.base import DataSettings
from ptlreid.settings.chain import ChainSettings
from ptlreid.settings.fields import COMMON
from ptlreid.settings.prepare import SyntheticSettings

ALL = "all"


class ReproduceSettings(DataSettings):
    """The runs behind a table of the paper."""

    scale: Annotated[Literal["paper", "tiny"], COMMON] = Field(
        "paper", description="The paper's, or tiny networks on synthetic data."
    )
    seed: Annotated[int, COMMON] = Field(0, ge=0, description="Random seed.")


@dataclass(frozen=True)
class Row:
    """One row of a table. `mean_ap`, `cmc1`: as published, in percent.

    `cited`: the source of figures that are not the paper's own. `plan`: for all others, the settings of a chain whose
    last stage gives the figures.
    """

    name: str
    mean_ap: float
    cmc1: float
    cited: str | None
    plan: Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """One table of the paper."""

    number: int
    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Scale:
    """A setting in which the plans run. `label`: what to write on every result, "" for the paper's own.

    `data`: the substitute of each dataset. `settings`: what overrides the plan and its recipe; `recipe_settings`: what
    overrides one recipe alone. `sites`: how synthetic substitutes are rendered.
    """

    label: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    recipe_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sites: SyntheticSettings | None = None

    def chain(self, row: Row, settings: ReproduceSettings) -> ChainSettings:
        """The settings of the chain that makes `row`."""
        plan = dict(row.plan)
        chain = ["+".join(self.data.get(part, part) for part in name.split("+")) for name in plan.pop("chain")]
        recipe = plan.pop("recipe")
        where = {name: getattr(settings, name) for name in ("root", "device", "workers", "seed")}
        plan |= {**where, **self.settings, **self.recipe_settings.get(recipe, {})}
        return ChainSettings.resolve(None, recipe=recipe, chain=chain, **plan)


# All steps behind every row in minutes on two cores. MGN's rows keep their loss and batches, and train a ResNet-18: MGN
# itself has 67 million weights.
TINY = Scale(
    label="tiny: not the paper's setting",
    data={
        "market": "synthetic-a",
        "duke": "synthetic-b",
        "msmt17": "synthetic-c",
        "cuhk03:detected": "synthetic-a",
        "cuhk03:labeled": "synthetic-b",
    },
    settings={
        "backbone": "resnet18",
        "init": "none",
        "height": 128,
        "width": 64,
        "epochs": 3,
        "batch_size": 16,
        "optimizer": "adamw",
        "lr": 5e-4,
        "weight_decay": 0.01,
        "schedule": "cosine",
        "evaluate_every": 0,
    },
    recipe_settings={"large-batch": {"batch_size": 45}},
    sites=SyntheticSettings(identities=32, cameras=4, images_per_camera=3),
)
SCALES = {"paper": Scale(), "tiny": TINY}


def tables(which: str) -> list[Table]:
    """The table called `which`, 1 to 6, or `all`; `OptionError` for another name."""
    content = json.loads((files("ptlreid") / "paper" / "tables.json").read_text(encoding="utf-8"))
    found = [
        Table(table["table"], table["title"], tuple(_row(row) for row in table["rows"])) for table in content["tables"]
    ]
    chosen = [table for table in found if which in (str(table.number), ALL)]
    if not chosen:
        raise OptionError(f"The paper has no table {which}. Give a number from 1 to {len(found)}, or {ALL}.")
    return chosen


def _row(content: Mapping[str, Any]) -> Row:
    return Row(content["row"], content["mAP"], content["cmc1"], content.get("cited"), content.get("plan", {}))
