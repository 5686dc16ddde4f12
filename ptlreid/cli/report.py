"""`ptlreid report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptlreid.cli import console, options
from ptlreid.settings.report import ReportSettings


def report(
    runs_or_chain: Annotated[
        list[str], typer.Argument(metavar="RUN", help="Runs to compare with the first, or one transfer chain.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="File to write.", show_default="report.html in the first run's folder")
    ] = None,
    data: options.TestData = None,
    figure: Annotated[
        str | None,
        typer.Option(
            help="One picture into --out FILE.png, .svg or .pdf: cmc, ranklist, cameras, curves, distances, cells."
        ),
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="The scores of the runs alone, into this .md, .tex or .csv file.")
    ] = None,
    queries: Annotated[int | None, options.option(ReportSettings, "queries")] = None,
    ranklist_size: Annotated[int | None, options.option(ReportSettings, "ranklist_size")] = None,
    weights: Annotated[str | None, options.option(ReportSettings, "weights")] = None,
    metric: Annotated[str | None, options.option(ReportSettings, "metric")] = None,
    seed: Annotated[int | None, options.option(ReportSettings, "seed")] = None,
    config: options.ConfigFile = None,
    root: options.Root = None,
    runs: options.Runs = Path("runs"),
    device: options.Device = None,
    json: options.Json = False,
) -> None:
    """Show runs on one HTML page that needs no network, or write one picture or table for a paper.

    Features come from the run's cache and are extracted where they are not in it.
    """
    settings = options.settings(ReportSettings, locals())

    from ptlreid.workflows.report import report as write

    written = write(runs_or_chain, runs, settings, console.Reporter(), out=out, figure=figure, table=table)
    if json:
        files = [{"file": str(path), "bytes": path.stat().st_size} for path in written]
        console.show_json({"runs": runs_or_chain, "written": files, "settings": settings.model_dump()})
        return
    for path in written:
        console.say(f"Written: {path} ({path.stat().st_size / 1e6:.2f} MB)")
