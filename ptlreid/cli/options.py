"""Options that several commands share: same name, same meaning. Defaults and help come from the config models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from ptlreid.settings import DataSettings, EvaluateSettings, FinetuneSettings, Settings

S = TypeVar("S", bound=Settings)


def option(model: type[Settings], field: str, *flags: str, hidden: bool = False) -> Any:
    """The Typer option for one field of a config model: its help, and its default as text.

    The parameter itself defaults to None, which means not given: only then do a config file and the model's own
    default have their say. A `hidden` option works, and is left out of --help.
    """
    about = model.model_fields[field]
    default = about.default
    shown = str(default).lower() if isinstance(default, bool) else str(default)
    return typer.Option(
        *flags, help=about.description, show_default=shown if default is not None else False, hidden=hidden
    )


def settings(model: type[S], arguments: Mapping[str, Any]) -> S:
    """The settings of a command: its own arguments (`locals()` at its first line), its --config, its --recipe."""
    given = {name: value for name, value in arguments.items() if name in model.model_fields}
    return model.resolve(arguments.get("config"), recipe=arguments.get("recipe"), **given)


Root = Annotated[
    str | None,
    typer.Option(envvar="PTLREID_DATA", help=DataSettings.model_fields["root"].description, show_default="data"),
]
Runs = Annotated[Path, typer.Option(envvar="PTLREID_RUNS", help="Folder that holds the runs.")]
Device = Annotated[str | None, option(DataSettings, "device")]
Workers = Annotated[int | None, option(DataSettings, "workers")]
Name = Annotated[
    str | None, typer.Option(help="Name of the run folder.", show_default="from data, backbone, method, seed")
]
Recipe = Annotated[
    str | None, typer.Option(help="Named settings, which --config and options override: see `ptlreid recipes`.")
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file of settings; options override it.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would run, and run nothing.")]
Backbone = Annotated[str | None, option(FinetuneSettings, "backbone")]
Init = Annotated[str | None, option(FinetuneSettings, "init")]
Epochs = Annotated[int | None, option(FinetuneSettings, "epochs")]
BatchSize = Annotated[int | None, option(FinetuneSettings, "batch_size")]
Height = Annotated[int | None, option(FinetuneSettings, "height")]
Width = Annotated[int | None, option(FinetuneSettings, "width")]
Seed = Annotated[int | None, option(FinetuneSettings, "seed")]
Data = Annotated[str | None, option(FinetuneSettings, "data")]
TestData = Annotated[str | None, option(EvaluateSettings, "data")]
