"""`ptlreid demo`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptlreid.cli import console
from ptlreid.cli.options import Json, Runs, from_settings
from ptlreid.settings import DemoSettings


@from_settings(DemoSettings)
def demo(settings: DemoSettings, *, runs: Runs = Path("runs"), json: Json = False) -> None:
    """Take a small network from one camera site to another, without labels and with them.

    Renders two synthetic sites, trains a network on the first, and scores it on the second: as it is, adapted to the
    cameras without labels, and fine-tuned with labels. Takes one to three minutes on two CPU cores, and needs neither a
    GPU nor a download. The same command again reuses everything.
    """
    from ptlreid.workflows.demo import TARGET, run_demo

    demo = run_demo(settings, runs, console.Reporter())
    if json:
        found: dict[str, Any] = {"runs": demo.scores, "calibration": demo.calibration, "search": demo.search}
        found |= {"num_right": demo.num_right, "page": str(demo.page)}
        console.show_json({"settings": settings.model_dump(), **found})
        return
    _show(demo.scores)
    _show_search(demo.search, demo.num_right)
    tuned = demo.page.parent
    places = _flag("--root", settings.root, "data") + _flag("--runs", str(runs), "runs")
    console.say(f"Report: {tuned / 'report.html'}. The search with pictures: {demo.page}. Open both in a browser.")
    console.say("Next:")
    console.say(f"  ptlreid evaluate --run {tuned.name} --rerank --per-camera{places}")
    console.say(f"  ptlreid adapt --run demo-source --data {TARGET}{places}")
    console.say("  ptlreid prepare folder --source my_crops --name lobby")


def _show(scores: Mapping[str, Mapping[str, Any]]) -> None:
    """Print mAP and CMC-1 of each, in percent, with their 95% intervals."""
    rows = []
    for name, found in scores.items():
        intervals = found["intervals"]
        pairs = ((found["mAP"], intervals["mAP"]), (found["cmc"]["1"], intervals["cmc"]["1"]))
        rows.append([name, *(f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]" for value, (low, high) in pairs)])
    columns = ("network of site A, on site B", "mAP [95% CI]", "CMC-1 [95% CI]")
    console.show_rows(
        "Retrieval of identities of site B that training has not seen, percent", columns, rows, right=True
    )


def _show_search(search: Mapping[str, Any], num_right: int) -> None:
    """Print how many people were found."""
    found = sum(one["verdict"] == "match" for one in search["queries"])
    threshold = f"{search['settings']['threshold']}, {search['threshold']:.3f}"
    console.say(
        f"Search for {len(search['queries'])} people of site B by one image each, among those of other cameras "
        f"(threshold {threshold}): a match for {found}, the right person for {num_right}; nobody for the others."
    )


def _flag(flag: str, value: str, default: str) -> str:
    return "" if value == default else f" {flag} {value}"
