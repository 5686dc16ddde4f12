"""The paper's tables, each of its own rows with the runs that make it, and the scales at which they run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Literal

from pydantic import Field

from ptlreid.errors import OptionError
from ptlreid.settings.base import DataSettings
from ptlreid.settings.chain import ChainSettings
from ptlreid.settings.prepare import SyntheticSettings

ALL = "all"


class ReproduceSettings(DataSettings):
    """The runs behind a table of the paper."""

    scale: Literal["paper", "tiny"] = Field(
        "paper", description="The paper's setting, or small networks on drawn sites to see that it all works."
    )
    seed: int = Field(0, ge=0, description="Seed of every random choice.")


@dataclass(frozen=True)
class Row:
    """One row of a table. `mean_ap`, `cmc1`: as published, in percent. `cited`: whose figures, where not the paper's.

    `plan`: otherwise, the settings of a chain whose last stage makes them.
    """

    name: str
    mean_ap: float
    cmc1: float
    cited: str | None
    plan: Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """One table of the paper; `title`: what it is about."""

    number: int
    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Scale:
    """A setting in which the plans run. `label`: what to write on every result, "" for the paper's own.

    `data`: what stands in for a dataset. `settings`: what is set otherwise than in the plan and its recipe; those of
    one recipe are in `of_recipe`. `sites`: how the datasets that stand in are drawn.
    """

    label: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    of_recipe: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sites: SyntheticSettings | None = None

    def chain(self, row: Row, config: ReproduceSettings) -> ChainSettings:
        """The settings of the chain that makes `row`."""
        plan = dict(row.plan)
        chain = ["+".join(self.data.get(part, part) for part in name.split("+")) for name in plan.pop("chain")]
        recipe = plan.pop("recipe")
        where = {"root": config.root, "device": config.device, "workers": config.workers, "seed": config.seed}
        plan |= {**where, **self.settings, **self.of_recipe.get(recipe, {})}
        return ChainSettings.resolve(None, recipe=recipe, chain=chain, **plan)


# The machinery of every row in minutes on two cores. MGN's rows keep their loss and batches, and train a ResNet-18: MGN
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
    of_recipe={"large-batch": {"batch_size": 45}},
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
