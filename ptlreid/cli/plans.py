"""The plan of a training run, as a dry run prints it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ptlreid.cli import console

_TOO_LARGE = "one batch needs more memory than is free. Choose a smaller --batch-size, with more --accumulate"


def show_training_plan(plan: Mapping[str, Any]) -> None:
    """Print settings, memory and time as lines, and what they hold for."""
    not_counted = "; ".join(plan["not_counted"])
    time = plan["time"] or f"unknown: {_TOO_LARGE}"
    console.show_plan({**plan, "time": time, "not_counted": not_counted}, as_json=False)
    if plan["time"]:
        console.say(_describe_moment(plan["time"]))


def _describe_moment(time: Mapping[str, Any]) -> str:
    """What the measured times hold for."""
    load = time["load_average"]
    shown = "" if load is None else f" (load average {load:g} on {time['cores']} cores)"
    return f"The times were measured at this moment, under the machine's present load{shown}."
