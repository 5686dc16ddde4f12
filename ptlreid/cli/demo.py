"""`ptlreid demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ptlreid.cli import console, options
from ptlreid.settings import DemoSettings


def demo(
    epochs: Annotated[int | None, options.option(DemoSettings, "epochs")] = None,
    identities: Annotated[int | None, options.option(DemoSettings, "identities")] = None,
    seed: Annotated[int | None, options.option(DemoSettings, "seed")] = None,
    root: options.Root = None,
    runs: options.Runs = Path("runs"),
    device: options.Device = None,
    json: options.Json = False,
) -> None:
    """Draw a small dataset, train a network with and without PTL on it, and score both beside an untrained one.

    A few minutes on two cores, without a GPU or a download. A second time, everything is reused.
    """
    settings = options.settings(DemoSettings, locals())

    from ptlreid.workflows.demo import run_demo

    scores = run_demo(settings, runs, console.Reporter())
    if json:
        console.show_json({"settings": settings.model_dump(), "runs": scores})
        return
    console.show_scores("Retrieval of people never seen before, percent", scores)
    name = scores["PTL"]["run"]
    console.say(f"Run folder: {runs / name}. Open its report.html in a browser to see what was found and what not.")
    places = _where("--root", settings.root, "data") + _where("--runs", str(runs), "runs")
    size = "--height 128 --width 64"
    console.say("Next, adapt it to another camera network:")
    console.say(f"  ptlreid prepare synthetic-b{_where('--root', settings.root, 'data')}")
    console.say(f"  ptlreid evaluate --run {name} --data synthetic-b{places}")
    console.say(f"  ptlreid finetune --data synthetic-b --backbone resnet18 --init {name} {size} --epochs 5{places}")


def _where(flag: str, value: str, default: str) -> str:
    return "" if value == default else f" {flag} {value}"
