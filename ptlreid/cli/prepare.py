"""`ptlreid prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptlreid.cli import console, options
from ptlreid.config import DataSettings, SyntheticConfig
from ptlreid.errors import OptionError


def prepare(
    data: Annotated[str | None, typer.Argument(metavar="DATA", help="Data set, by name.", show_default=False)] = None,
    identities: Annotated[int | None, options.option(SyntheticConfig, "identities")] = None,
    cameras: Annotated[int | None, options.option(SyntheticConfig, "cameras")] = None,
    images_per_camera: Annotated[int | None, options.option(SyntheticConfig, "images_per_camera")] = None,
    height: Annotated[int | None, options.option(SyntheticConfig, "height")] = None,
    width: Annotated[int | None, options.option(SyntheticConfig, "width")] = None,
    seed: Annotated[int | None, options.option(SyntheticConfig, "seed")] = None,
    config: options.ConfigFile = None,
    root: options.Root = None,
    list_names: Annotated[bool, typer.Option("--list", help="List the data sets that are known.")] = False,
    json: options.Json = False,
) -> None:
    """Make a data set ready under the root: today the synthetic sites, drawn from a seed."""
    from ptlreid import datasets

    if list_names:
        _show_names()
        return
    if data is None:
        raise OptionError("Which data set? Give its name, such as synthetic-b, or --list to see all names.")
    found = datasets.find(data)
    if not hasattr(found.module, "prepare"):
        raise OptionError(
            f"{found.about.title} cannot be made here: get it from {found.about.source} and put its folder at "
            f"{found.folders(Path(root or DataSettings().root))[0]}."
        )
    settings = options.settings(SyntheticConfig, locals())
    folder = found.folders(Path(root or DataSettings().root))[0]
    drawn = found.module.prepare(folder, found.variant, settings, console.Reporter())
    splits = found.module.read(folder, found.variant)
    parts = {"train": splits.train, "query": splits.query, "gallery": splits.gallery}
    if json:
        counts = {name: {"images": len(part), "identities": part.num_identities} for name, part in parts.items()}
        console.show_json({"data": splits.name, "folder": str(folder), "drawn": drawn, **counts})
        return
    rows = [[name, str(len(part)), str(part.num_identities)] for name, part in parts.items()]
    console.show_rows(splits.name, ("", "images", "identities"), rows)
    console.say(f"{'Drawn into' if drawn else 'Reused:'} {folder}")


def _show_names() -> None:
    from ptlreid import datasets

    rows = [[name, datasets.find(name).about.title, datasets.find(name).about.source] for name in datasets.names()]
    console.show_rows("Data sets", ("name", "title", "where it comes from"), rows)
