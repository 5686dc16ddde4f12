"""What a step found: checks with their bounds, and rows of figures, in a file that is complete after each of them."""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """Replace the file at once: a reader, or a copy made at any time, sees the old content or the new."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(_finite(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(path)


def _finite(value: Any) -> Any:
    """The value with numbers that JSON does not know as text, such as "nan"."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return str(value) if isinstance(value, float) and not isfinite(value) else value


class Record:
    """The findings of one step, in `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, Any] = {"checks": [], "rows": [], "notes": []}
        write_json(path, self._found)

    def check(self, what: str, value: float, *, at_most: float | None = None, at_least: float | None = None) -> None:
        """A number and its bound; one that is not finite fails."""
        passed = isfinite(value) and not (
            (at_most is not None and value > at_most) or (at_least is not None and value < at_least)
        )
        bound = f"≤ {at_most:g}" if at_most is not None else f"≥ {at_least:g}"
        self._add("checks", {"what": what, "value": value, "bound": bound, "passed": passed})

    def expect(self, what: str, value: object, expected: object) -> None:
        """A value and what it should be."""
        entry = {"what": what, "value": str(value), "bound": f"= {expected}", "passed": value == expected}
        self._add("checks", entry)

    def row(self, **values: Any) -> None:
        """A row of figures."""
        self._add("rows", values)

    def note(self, text: str) -> None:
        """What a reader should know, such as why a part was left out."""
        self._add("notes", text)

    def error(self, text: str) -> None:
        """How the step ended, if not well."""
        self._found["error"] = text
        write_json(self._path, self._found)

    def _add(self, key: str, value: Any) -> None:
        self._found[key].append(value)
        write_json(self._path, self._found)
