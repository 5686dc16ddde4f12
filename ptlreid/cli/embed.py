"""`ptlreid embed`."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from ptlreid.cli import console
from ptlreid.cli.options import Given, Json, Model, Runs, find_source, from_settings
from ptlreid.errors import OptionError
from ptlreid.settings import EmbedSettings, GraphSettings


@from_settings(EmbedSettings, GraphSettings)
def embed(
    given: Given,
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="SOURCE...", help="Folder, tar files, list, images, - for standard input, or dataset."),
    ] = None,
    run: Annotated[str | None, typer.Option("--run", metavar="RUN", help="Run: its name or folder.")] = None,
    model: Model = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="PATH", help="File (.h5, .npz, .npy, .arrow or .parquet), or folder."),
    ] = None,
    *,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Extract the features of any images, for `ptlreid search` or other programs.

    A source is a folder, read with all folders in it; a tar file of images; a list with a path in each line; a CSV
    with a column path; image files; - for paths on standard input; or the name of a prepared dataset. Identities and
    cameras are kept where names, folders, samples in tar files or a CSV give them. Features are cached in the run
    folder, and an interrupted extraction resumes. With --shards, --out is a folder that any number of processes fill
    together, and nothing is cached.

    Examples:
      ptlreid embed my_crops --run market-resnet50-ptl-s0 --out my_crops.h5
      ptlreid embed market --part gallery --run market-resnet50-ptl-s0 --out gallery.npz
      ptlreid embed city.txt --run market-resnet50-ptl-s0 --out city --shards 1000000
      find . -name '*.jpg' | ptlreid embed - --run market-resnet50-ptl-s0 --out images.npy
    """
    from ptlreid.distributed import process_group
    from ptlreid.workflows.embed import embed as workflow

    settings = given.resolve(EmbedSettings)
    if not sources or (run is None) == (model is None) or out is None:
        raise OptionError("Nothing to embed: expected SOURCE..., --run RUN or --model FILE, and --out PATH. Give them.")
    listed = sys.stdin.buffer.read() if "-" in sources else b""
    folder = find_source(run, model, runs, given)
    # Processes that write shards exchange nothing.
    with nullcontext() if settings.shards else process_group(settings.device):
        result = workflow(sources, folder, settings, out, console.Reporter(), listed=listed)
    if json:
        console.show_json(result)
    else:
        _show(result)


def _show(result: dict[str, Any]) -> None:
    for one in result["files"]:
        known = [f"{one[key]} {key}" for key in ("identities", "cameras") if one[key]]
        details = ", ".join([f"{one['width']}-d {result['settings']['dtype']}", *known])
        console.say(f"{one['images']:,} images ({details}): {', '.join(one['files'])}")
        if one["skipped"]:
            console.say(f"{len(one['skipped']):,} images skipped.")
