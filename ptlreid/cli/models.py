"""`ptlreid models`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from ptlreid.cli import console
from ptlreid.cli.options import Json


def models(
    name: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Networks, timm:NAME for timm's.", show_default="all but timm's"),
    ] = None,
    classes: Annotated[
        int,
        typer.Option(
            "--classes", min=1, max=10_000_000, metavar="INT ≥ 1", help="Training identities; 1041 is MSMT17."
        ),
    ] = 1041,
    json: Json = False,
) -> None:
    """List every network, with and without PTL: parameters and multiply-adds."""
    from ptlreid import models as networks
    from ptlreid.models.summary import summarize

    summaries = [summarize(one, ptl, classes) for one in name or networks.names() for ptl in (False, True)]
    if json:
        console.show_json([asdict(one) for one in summaries])
        return
    rows = [
        [
            plain.name,
            " ".join(str(channels) for channels, _ in plain.stages),
            f"{plain.input_size[0]}×{plain.input_size[1]}",
            f"{plain.params / 1e6:.1f} → {ptl.params / 1e6:.1f}",
            " → ".join(str(one.paper_params_m) for one in (plain, ptl) if one.paper_params_m),
            f"{plain.macs / 1e9:.2f} → {ptl.macs / 1e9:.2f}",
        ]
        for plain, ptl in zip(summaries[::2], summaries[1::2], strict=True)
    ]
    columns = ("network", "blocks", "input", "#Param M", "paper", "MACs G")
    console.show_rows(f"Networks at {classes} classes, plain → with BConv-Cells", columns, rows)
    console.say("MACs: forward pass of one training image. Paper: Table 1 and section 5.2.")
    if not name:
        console.say("Also any network of timm, as timm:NAME: `ptlreid models timm:NAME` shows it.")
