"""The paper's tables, with the runs behind each row, and the scales at which they can be run."""

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
from ptlreid.settings.fields import COMMON, MAX_SEED
from ptlreid.settings.prepare import SyntheticSettings

ALL = "all"


class ReproduceSettings(DataSettings):
    """The runs behind a table of the paper."""

    scale: Annotated[Literal["paper", "tiny"], COMMON] = Field(
        "paper", description="As in the paper, or tiny networks on synthetic data."
    )
    seed: Annotated[int, COMMON] = Field(0, ge=0, le=MAX_SEED, description="Random seed.")


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
    """A scale at which the plans run. `label`: shown with every result, "" for the paper's own.

    `data`: the substitute for each dataset. `settings`: overrides of the plan and its recipe; `recipe_settings`:
    overrides for single recipes. `sites`: how synthetic substitutes are rendered.
    """

    label: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    recipe_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sites: SyntheticSettings | None = None

    def chain(self, row: Row, settings: ReproduceSettings) -> ChainSettings:
        """The settings of the chain that reproduces `row`."""
        plan = dict(row.plan)
        chain = ["+".join(self.data.get(part, part) for part in name.split("+")) for name in plan.pop("chain")]
        recipe = plan.pop("recipe")
        shared = {name: getattr(settings, name) for name in ("root", "device", "workers", "seed")}
        plan |= {**shared, **self.settings, **self.recipe_settings.get(recipe, {})}
        return ChainSettings.resolve(None, recipe=recipe, chain=chain, **plan)


# Runs every step of every row, in minutes on two CPU cores. MGN's rows keep their loss and batches but train a
# ResNet-18: MGN itself has 67 million parameters.
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
    all_tables = [
        Table(table["table"], table["title"], tuple(_row(row) for row in table["rows"])) for table in content["tables"]
    ]
    chosen = [table for table in all_tables if which in (str(table.number), ALL)]
    if not chosen:
        raise OptionError(f"The paper has no table {which}. Give a number from 1 to {len(all_tables)}, or {ALL}.")
    return chosen


def _row(content: Mapping[str, Any]) -> Row:
    return Row(content["row"], content["mAP"], content["cmc1"], content.get("cited"), content.get("plan", {}))
