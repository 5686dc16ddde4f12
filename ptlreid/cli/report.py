"""`ptlreid report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptlreid.cli import console
from ptlreid.cli.options import Json, Runs, from_settings
from ptlreid.settings.report import ReportSettings


@from_settings(ReportSettings)
def report(
    settings: ReportSettings,
    runs_or_chain: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Runs to compare with the first, or one transfer chain.")
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="File to write.", show_default="report.html of the first run"),
    ] = None,
    figure: Annotated[
        str | None,
        typer.Option(
            "--figure",
            metavar="NAME",
            help="Only one figure, into --out FILE.png, .svg or .pdf: cmc, ranklist, cameras, curves, distances, "
            "roc or cells.",
        ),
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--table", metavar="FILE", help="Only the scores, into a .md, .tex or .csv file.")
    ] = None,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Write an HTML report on runs, or one figure or table for a paper.

    The page is a single file without links to other sites. Features come from the run's cache, or are extracted if
    they are not cached. A run adapted by clusters also gets a page of its clusters.

    Examples:
      ptlreid report market-resnet50-ptl-s0
      ptlreid report market-resnet50-ptl-s0 market-resnet50-baseline-s0 --figure cmc --out cmc.pdf
    """
    from ptlreid.workflows.report import report as write

    written = write(runs_or_chain, runs, settings, console.Reporter(), out=out, figure=figure, table=table)
    if json:
        files = [{"file": str(path), "bytes": path.stat().st_size} for path in written]
        console.show_json({"runs": runs_or_chain, "written": files, "settings": settings.model_dump()})
        return
    for path in written:
        console.say(f"Written: {path} ({path.stat().st_size / 1e6:.2f} MB)")
