"""`ptlreid demo`."""

from __future__ import annotations

from pathlib import Path

from ptlreid.cli import console
from ptlreid.cli.options import Json, Runs, from_settings
from ptlreid.settings import DemoSettings


@from_settings(DemoSettings)
def demo(settings: DemoSettings, *, runs: Runs = Path("runs"), json: Json = False) -> None:
    """Train a small network with and without PTL on a synthetic dataset, and compare both.

    Both are also compared with the untrained network. Takes a few minutes on two CPU cores, and needs neither a GPU
    nor a download. The same command again reuses everything.
    """
    from ptlreid.workflows.demo import run_demo

    scores = run_demo(settings, runs, console.Reporter())
    if json:
        console.show_json({"settings": settings.model_dump(), "runs": scores})
        return
    console.show_scores("Retrieval of identities not seen in training, percent", scores)
    name = scores["PTL"]["run"]
    console.say(f"Run folder: {runs / name}. Open its report.html in a browser to see rank lists and curves.")
    root, folders = _flag("--root", settings.root, "data"), _flag("--runs", str(runs), "runs")
    network = f"--backbone resnet18 --init {name} --height 128 --width 64"
    console.say("Next, adapt it to another camera network:")
    console.say(f"  ptlreid prepare synthetic-b{root}")
    console.say(f"  ptlreid evaluate --run {name} --data synthetic-b{root}{folders}")
    console.say(f"  ptlreid finetune --data synthetic-b {network} --epochs 5{root}{folders}")


def _flag(flag: str, value: str, default: str) -> str:
    return "" if value == default else f" {flag} {value}"
