"""`ptlreid pack`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptlreid.cli import console
from ptlreid.cli.options import Given, Json, from_settings
from ptlreid.settings import PackSettings, RootSettings

if TYPE_CHECKING:
    from ptlreid.datasets import DatasetRef


@from_settings(PackSettings, RootSettings)
def pack(
    given: Given,
    data: Annotated[str, typer.Argument(metavar="DATA", help="Dataset: its name or folder.")],
    *,
    json: Json = False,
) -> None:
    """Resize all images of a dataset once, into one file that loads faster.

    Training and evaluation at that size and interpolation read the pack, packed-HEIGHTxWIDTH.h5 or
    packed-HEIGHTxWIDTH-bicubic.h5 in the dataset's folder, instead of the image files. The same command again packs
    images that have changed since.
    """
    from ptlreid import datasets

    root = Path(given.resolve(RootSettings, config=False).root)
    dataset = datasets.find(data, root)
    folder = dataset.folder(root)
    packed = pack_images(dataset, folder, given.resolve(PackSettings))
    if json:
        console.show_json({"data": dataset.name, "folder": str(folder), **packed})
    else:
        show_pack(packed)


def pack_images(dataset: DatasetRef, folder: Path, settings: PackSettings) -> dict[str, Any]:
    """The pack's file and the number of images packed, for JSON."""
    from ptlreid.workflows.pack import pack

    made = pack(dataset, folder, settings, console.Reporter())
    return {"pack": str(made.file), "packed": made.new}


def show_pack(packed: dict[str, Any]) -> None:
    """Print one line on the result of `pack_images`."""
    console.say(f"{'Packed into' if packed['packed'] else 'Reused:'} {packed['pack']}")
