"""`ptlreid recipes`."""

from __future__ import annotations

from typing import Annotated

import typer

from ptlreid.cli import console, options
from ptlreid.settings import read_toml
from ptlreid.settings import recipes as named


def recipes(
    name: Annotated[str | None, typer.Argument(help="Show this recipe's file.", show_default=False)] = None,
    json: options.Json = False,
) -> None:
    """List the recipes that --recipe takes, or show one: settings to copy into a TOML file of your own."""
    names = [name] if name else named.names()
    if json:
        console.show_json(
            [{"name": one, "about": named.about(one), "settings": read_toml(named.find(one))} for one in names]
        )
    elif name:
        console.say(named.find(name).read_text(encoding="utf-8").rstrip())
    else:
        console.show_rows("Recipes", ("name", "what it follows"), [[one, named.about(one)] for one in names])
