"""`ptlreid index`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ptlreid.cli import console
from ptlreid.cli.options import Given, Json, from_settings
from ptlreid.errors import OptionError
from ptlreid.settings import IndexSettings

_ACTIONS = ("build", "add", "remove", "measure", "info")


@from_settings(IndexSettings)
def index(
    given: Given,
    action: Annotated[str, typer.Argument(metavar="ACTION", help="build, add, remove, measure or info.")],
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="build: folders of shards; otherwise the index first.")
    ],
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="build: folder of the index.")] = None,
    glob: Annotated[
        str | None,
        typer.Option("--glob", metavar="GLOB", help="remove: images whose path matches, such as '*/door/*'."),
    ] = None,
    *,
    json: Json = False,
) -> None:
    """Build an index over shards, for searches in galleries that are too large to be read each time.

    build: an index of one or more folders of shards. add: further folders. remove: images by their paths, - for a list
    on standard input, or by --glob. measure: another recall. info: what an index is, and how much it finds.

    The recall is the share of the nearest 20 images that a search finds, measured with 1,000 images of the gallery.

    Examples:
      ptlreid index build city --out city-index
      ptlreid search someone.jpg --run market-resnet50-ptl-s0 --index city-index
      ptlreid index add city-index city-may city-june
      ptlreid index remove city-index --glob 'door/2023-*'
    """
    if action not in _ACTIONS:
        raise OptionError(f"index {action}: expected {', '.join(_ACTIONS[:-1])} or {_ACTIONS[-1]}. Choose one.")
    _check_options(action, out, glob, given, len(paths))
    result = _run(action, paths, out, glob, given)
    if json:
        console.show_json(result)
    else:
        _show(result)


def _run(action: str, paths: list[str], out: Path | None, glob: str | None, given: Given) -> dict[str, Any]:
    from ptlreid.workflows import index as workflow

    settings, progress = given.resolve(IndexSettings), console.Reporter()
    if action == "build":
        assert out is not None
        return workflow.build_index([Path(path) for path in paths], out, settings, progress)
    folder, others = Path(paths[0]), paths[1:]
    if action == "add":
        return workflow.add_to_index(folder, [Path(path) for path in others], settings, progress)
    if action == "remove":
        from ptlreid.datasets._loose_images import parse_listed

        listed = parse_listed(sys.stdin.buffer.read()) if "-" in others else []
        named = [path for path in others if path != "-"]
        return workflow.remove_from_index(folder, [*named, *map(str, listed)], glob, progress)
    if action == "measure":
        return workflow.measure_index(folder, settings, progress)
    return workflow.describe_index(folder, progress)


def _check_options(action: str, out: Path | None, glob: str | None, given: Given, num_paths: int) -> None:
    """Raise `OptionError` for options of another action, and for missing ones."""
    if (action == "build") != (out is not None):
        raise OptionError(f"index {action}: expected --out with build, and only there. Correct it.")
    if glob is not None and action != "remove":
        raise OptionError(f"index {action} with --glob: expected remove. Leave it out.")
    needed = 2 if action == "add" or (action == "remove" and glob is None) else 1
    if num_paths < needed or (action in ("measure", "info") and num_paths > 1):
        wanted = {"build": "SHARDS...", "add": "INDEX SHARDS...", "remove": "INDEX PATH..."}.get(action, "INDEX")
        raise OptionError(f"index {action}: expected {wanted}. See `ptlreid index --help`.")
    usable = {"build": set(IndexSettings.model_fields), "add": {"memory_budget"}, "measure": {"recall"}}
    unused = [given.origins[name] for name in given.values if name not in usable.get(action, set())]
    if unused:
        raise OptionError(f"index {action} with {unused[0]}: has no effect there, expected without. Leave it out.")


def _show(result: Mapping[str, Any]) -> None:
    recall, removed = result["recall"], f", {result['removed']:,} of them removed" if result["removed"] else ""
    rows = [
        ["images", f"{result['rows']:,}{removed}"],
        ["shards", ", ".join(one["folder"] for one in result["sources"])],
        ["features", f"{result['width']}-d, {result['metric']}"],
        ["structure", f"{result['structure']}: {result['factory']}, effort {result['effort']}"],
        ["size", f"{result['bytes'] / 1e6:,.1f} MB"],
        [
            f"recall of the first {recall['at']}",
            f"{100 * recall['mean']:.1f}% [{100 * recall['low']:.1f}, {100 * recall['high']:.1f}], "
            f"{recall['queries']:,} queries",
        ],
    ]
    console.show_rows(f"Index {result['index']}", ("", ""), rows)
