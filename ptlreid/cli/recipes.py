"""`ptlreid recipes`."""

from __future__ import annotations

from typing import Annotated

import typer

from ptlreid.cli import console
from ptlreid.cli.options import Json
from ptlreid.settings import read_toml
from ptlreid.settings import recipes as files


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Show the file of this recipe.")] = None,
    json: Json = False,
) -> None:
    """List the recipes that --recipe takes, or show one.

    A recipe's file can be copied, edited and passed to --config.
    """
    names = [name] if name else files.names()
    if json:
        console.show_json(
            [{"name": one, "about": files.about(one), "settings": read_toml(files.find(one))} for one in names]
        )
    elif name:
        for line in files.find(name).read_text(encoding="utf-8").rstrip().split("\n"):
            console.say(line)
    else:
        console.show_rows("Recipes", ("name", "source"), [[one, files.about(one)] for one in names])
