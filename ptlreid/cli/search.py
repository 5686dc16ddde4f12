"""`ptlreid search`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptlreid.cli import console
from ptlreid.cli.options import Given, Json, Model, Runs, find_source, from_settings, refuse_graph_settings
from ptlreid.errors import OptionError
from ptlreid.settings import GraphSettings, SearchSettings

if TYPE_CHECKING:
    from ptlreid.attention import Agreement
    from ptlreid.runs import RunFolder


@from_settings(SearchSettings, GraphSettings)
def search(
    given: Given,
    queries: Annotated[
        list[str] | None, typer.Argument(metavar="QUERY...", help="Images of people, folders or lists of them.")
    ] = None,
    run: Annotated[str | None, typer.Option("--run", metavar="RUN", help="Run: its name or folder.")] = None,
    model: Model = None,
    gallery: Annotated[
        str | None, typer.Option("--gallery", metavar="PATH", help="Folder, list or features of the images to search.")
    ] = None,
    index: Annotated[
        Path | None, typer.Option("--index", metavar="DIR", help="Index to search, in place of a gallery.")
    ] = None,
    features: Annotated[
        Path | None, typer.Option("--features", metavar="FILE", help="Query features of any program, without a run.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Page with pictures, .html.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the hits as CSV.")] = None,
    *,
    attention: Annotated[
        bool, typer.Option("--attention", help="On the page, show where query and hit agree. Needs a run.")
    ] = False,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Find people in a gallery of images: the nearest images of each query, and whether they are matches.

    Features of the gallery and of the queries are cached in the run folder, so that a second search decodes no image.
    Without a run, --features has the query features; a QUERY is then a path in that file, and without one all images
    are queries.

    Examples:
      ptlreid search someone.jpg --run market-resnet50-ptl-s0 --gallery my_crops --out found.html
      ptlreid search a.jpg b.jpg --together --run market-resnet50-ptl-s0 --gallery my_crops.h5 --threshold 0.4
      ptlreid search --features q.npz --gallery g.npz --metric cosine --json
    """
    _check_out(out, run, attention=attention)
    settings, gallery = given.resolve(SearchSettings), _find_gallery(gallery, index)
    if features is not None and run is None and model is None:
        result = _search_files(queries or [], features, gallery, given)
    elif (run is None) != (model is None) and features is None and gallery is not None and queries:
        result = _search_run(queries, find_source(run, model, runs, given), gallery, settings)
    else:
        raise OptionError(
            "Nothing to search: expected QUERY... with --run RUN or --model FILE and --gallery PATH or --index DIR, "
            "or --features FILE. Give them."
        )
    _write(result, out, csv, _explain(result, run, runs, settings) if attention and run else [])
    console.show_json(result) if json else _show(result, out)


def _find_gallery(gallery: str | None, index: Path | None) -> str | None:
    """The gallery, or the index that is given instead."""
    if index is None:
        return gallery
    from ptlreid.retrieval.index_file import is_index_folder

    if gallery is not None:
        raise OptionError("--index and --gallery: expected one of them. Leave one out.")
    if not is_index_folder(index):
        raise OptionError(f"--index {index}: is no index, expected a folder of `ptlreid index build`. Correct it.")
    return str(index)


def _search_run(queries: list[str], run: RunFolder, gallery: str, settings: SearchSettings) -> dict[str, Any]:
    from ptlreid.distributed import process_group
    from ptlreid.workflows.search import search_run

    listed = sys.stdin.buffer.read() if "-" in queries else b""
    with process_group(settings.device):
        return search_run(queries, run, gallery, settings, console.Reporter(), listed=listed)


def _search_files(queries: list[str], features: Path, gallery: str | None, given: Given) -> dict[str, Any]:
    settings = given.resolve(SearchSettings)
    _check_file_settings(settings)
    refuse_graph_settings(given)
    from ptlreid.workflows.search import search_files

    return search_files(queries, features, Path(gallery) if gallery else None, settings, console.Reporter())


def _explain(result: Mapping[str, Any], name: str, runs: Path, settings: SearchSettings) -> list[list[Agreement]]:
    """Where the shown queries and their hits agree, with features read as the search read them."""
    from ptlreid.attention import explain_hits
    from ptlreid.features import Extractor
    from ptlreid.reports.search_page import SHOWN_QUERIES
    from ptlreid.runs import find_run

    readout = {name: result["settings"][name] for name in ("flip", "normalize")}
    extractor = Extractor.from_run(find_run(runs, name), settings.model_copy(update=readout))
    return explain_hits(result["queries"][:SHOWN_QUERIES], extractor, console.Reporter())


# Settings of images and of feature extraction, which do not apply to feature files.
_EXTRACTION = ("weights", "flip", "normalize", "amp", "batch_size", "dtype", "skip_bad", "layout", "pattern", "site")


def _check_file_settings(settings: SearchSettings) -> None:
    given = [f"--{name.replace('_', '-')}" for name in _EXTRACTION if name in settings.model_fields_set]
    if given:
        raise OptionError(f"{', '.join(given)}: for a --run only. Features in files are used as they are.")


def _check_out(out: Path | None, run: str | None, *, attention: bool) -> None:
    if attention and (out is None or run is None):
        raise OptionError("--attention: for the page of a search with a run: expected --out and --run. Give them.")
    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise OptionError(f"--out {out}: expected a file name that ends in .html. Rename the file.")


def _write(
    result: Mapping[str, Any], out: Path | None, csv: Path | None, explained: Sequence[Sequence[Agreement]]
) -> None:
    if csv is not None:
        from ptlreid.workflows.search import write_csv

        write_csv(csv, result)
    if out is not None:
        from ptlreid.reports.page import write_page
        from ptlreid.reports.search_page import make_search_page

        write_page(make_search_page(result, explained), out)


def _show(result: Mapping[str, Any], out: Path | None) -> None:
    from ptlreid.reports.search_page import describe_recall, describe_verdict

    threshold = result["threshold"]
    if recall := describe_recall(result):
        console.say(recall)
    columns = ("rank", "image", "distance", *([] if threshold is None else ["verdict"]))
    for one in result["queries"]:
        rows = [
            [
                str(hit["rank"]),
                hit["path"],
                f"{hit['distance']:.4f}",
                *([] if threshold is None else ["match" if hit["accepted"] else "too far"]),
            ]
            for hit in one["hits"]
        ]
        more = f" and {len(one['paths']) - 1:,} more" if len(one["paths"]) > 1 else ""
        console.show_rows(f"{one['paths'][0]}{more}: {describe_verdict(one, threshold)}", columns, rows)
    if out is not None:
        console.say(f"Page: {out}")
