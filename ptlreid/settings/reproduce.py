"""The paper's tables, with the runs behind each row, and the scales at which they can be run."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Annotated, Any, Literal

from pydantic import Field

from ptlreid import plugins
from ptlreid.errors import OptionError
from ptlreid.file_kinds import printable
from ptlreid.settings.base import DataSettings
from ptlreid.settings.chain import ChainSettings
from ptlreid.settings.fields import COMMON, MAX_SEED
from ptlreid.settings.finetune import FinetuneSettings
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
    overrides for single recipes. `sites`: how synthetic substitutes are rendered. `changes`: texts such as `amp=off`
    that override all of these, as in `--set`.
    """

    label: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    recipe_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sites: SyntheticSettings | None = None
    changes: Sequence[str] = ()

    @property
    def setting(self) -> str:
        """How results are labelled: `paper`, or in what they differ from the paper's setting."""
        changes = f"set: {', '.join(self.changes)}" if self.changes else ""
        return "; ".join(text for text in (self.label, changes) if text) or "paper"

    def chain(self, row: Row, settings: ReproduceSettings) -> ChainSettings:
        """The settings of the chain that reproduces `row`."""
        plan = dict(row.plan)
        chain = ["+".join(self.data.get(part, part) for part in name.split("+")) for name in plan.pop("chain")]
        recipe = plan.pop("recipe")
        shared = {name: getattr(settings, name) for name in ("root", "device", "workers", "seed")}
        changes, origins = parse_changes(self.changes)
        plan |= {**shared, **self.settings, **self.recipe_settings.get(recipe, {}), **changes}
        return ChainSettings.resolve(None, recipe=recipe, origins=origins, chain=chain, **plan)


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


def choose_rows(selected: Sequence[Table], names: Sequence[str]) -> list[Table]:
    """The tables with the rows called `names`, in any case; without names, all.

    A name stands for the row of that name in a table or, if there is none, for all rows that contain it. It may be
    several with commas between them. Raises `OptionError` for a name without rows.
    """
    chosen: set[tuple[int, str]] = set()
    for name in names:
        for part in [name] if _find_rows(selected, name) else name.split(","):
            found = _find_rows(selected, part)
            if not found:
                known = ", ".join(repr(row.name) for table in selected for row in table.rows)
                raise OptionError(f"--row {name}: expected the name of a row or a part of it. The rows are {known}.")
            chosen |= found
    kept = [
        replace(table, rows=tuple(row for row in table.rows if (table.number, row.name) in chosen))
        for table in selected
    ]
    return [table for table in kept if table.rows] if names else list(selected)


def _find_rows(selected: Sequence[Table], name: str) -> set[tuple[int, str]]:
    """Number of the table and name of each row that `name` stands for."""
    name = name.strip().casefold()
    found = set()
    for table in selected:
        parts = [row.name for row in table.rows if name and name in row.name.casefold()]
        exact = [row for row in parts if row.casefold() == name]
        found |= {(table.number, row) for row in exact or parts}
    return found


def parse_changes(texts: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings in texts such as `amp=off` or `decay_at=[20, 40]`, and what messages call each of them.

    A value is TOML, or text if it is not TOML. Raises `OptionError` for what is not a setting of the rows' runs.
    """
    changes: dict[str, Any] = {}
    origins: dict[str, str] = {}
    known = set(FinetuneSettings.model_fields) - set(ReproduceSettings.model_fields) - {"data"}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        key = key.replace("-", "_")
        shown = printable(text)
        if not equals:
            raise OptionError(f"--set {shown}: expected a setting and its value, such as --set amp=off.")
        if key in FinetuneSettings.model_fields and key not in known:
            raise OptionError(f"--set {shown}: {key} is set by the table or an option of its own. Leave it out.")
        if key not in known:
            raise OptionError(f"--set {shown}: {plugins.unknown_name('setting', printable(key, 60), known)}")
        if key in changes:
            raise OptionError(f"--set {shown}: {key} is given twice, expected once. Leave one out.")
        changes[key], origins[key] = _parse_value(value), f"--set {shown}"
    return changes, origins


def _parse_value(text: str) -> Any:
    try:
        (value,) = tomllib.loads(f"value = {text}").values()
    except (RecursionError, ValueError):  # not TOML, or a further line
        return text
    return value


def _row(content: Mapping[str, Any]) -> Row:
    return Row(content["row"], content["mAP"], content["cmc1"], content.get("cited"), content.get("plan", {}))
