"""The Markdown page of a check's results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

KIND = {True: "correctness", False: "speed"}


def page(results: dict[str, Any]) -> str:
    """Everything that was found, as tables."""
    steps = {step["name"]: step for step in results["steps"]}
    checks = [(step["name"], check) for step in results["steps"] for check in step["checks"]]
    parts = [
        f"# GPU check: {'passed' if results['passed'] else 'not passed'}",
        f"{results['started']}, {results['seconds']:.0f} seconds, {results['device']}, commit {results['commit']}",
        *(f"Not installed: {name} ({reason})" for name, reason in results["not_installed"].items()),
        _machine(steps.get("machine")),
        "## Steps",
        _table(
            ("step", "kind", "result", "seconds", "note"),
            (
                (one["name"], KIND[one["correct"]], one["state"], one["seconds"], one["reason"])
                for one in steps.values()
            ),
        ),
        "## Checks" if checks else "",
        _table(
            ("step", "check", "value", "bound", "result"),
            (
                (name, one["what"], one["value"], one["bound"], "passed" if one["passed"] else "FAILED")
                for name, one in checks
            ),
        )
        if checks
        else "",
    ]
    for step in results["steps"]:
        if step["rows"] and step["name"] != "machine":
            parts += [f"## {step['name']}", _rows(step["rows"])]
    return "\n\n".join(filter(None, parts)) + "\n"


def _machine(step: dict[str, Any] | None) -> str:
    if not step or not step["rows"]:
        return ""
    (row,) = step["rows"]
    rates = ", ".join(f"{name} {value:.3g}" for name, value in row["tflops"].items())
    known = ", ".join(f"{name} {value}" for name, value in row.items() if name != "tflops" and value is not None)
    return f"{known}. Matrix products, TFLOP/s: {rates}."


def _rows(rows: Sequence[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return _table(names, ([row.get(name, "") for name in names] for row in rows))


def _table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(_cell(value) for value in line)} |" for line in lines)


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
