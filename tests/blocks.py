"""The fenced blocks of a documentation page, with the comments that control how they are run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = {
    page.relative_to(ROOT).as_posix(): page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}

_FENCE = re.compile(r"```(?P<language>\w*)$")
_NOTE = re.compile(r"<!-- (?P<kind>file|not run|first): (?P<text>.+) -->$")


@dataclass(frozen=True)
class Block:
    """A fenced block. `line`: that of its fence. `file`: the name it is saved under. `reason`: why it is not run."""

    line: int
    language: str
    text: str
    file: str | None = None
    reason: str | None = None

    def commands(self) -> list[str]:
        """The commands of a shell block, one per line, without comments."""
        joined = self.text.replace("\\\n", " ")
        return [line for line in map(str.strip, joined.splitlines()) if line and not line.startswith("#")]


def blocks(text: str) -> list[Block]:
    """The blocks of a page, in order; a command that is not shown is a block of its own."""
    found: list[Block] = []
    notes: dict[str, str] = {}
    lines = iter(enumerate(text.splitlines(), start=1))
    for number, line in lines:
        note, fence = _NOTE.match(line), _FENCE.match(line)
        if note and note["kind"] == "first":
            found.append(Block(number, "sh", note["text"]))
        elif note:
            notes[note["kind"]] = note["text"]
        elif fence:
            inside = "\n".join(_until_closed(lines)) + "\n"
            found.append(Block(number, fence["language"], inside, notes.get("file"), notes.get("not run")))
            notes = {}
        else:
            assert "```" not in line, f"line {number}: not a fence that the tests support: {line}"
            assert not (notes and line), f"line {number}: a comment on a block must be directly before it"
    return found


def _until_closed(lines: Iterator[tuple[int, str]]) -> Iterator[str]:
    for _, line in lines:
        if line == "```":
            return
        yield line
    raise AssertionError("a block is not closed")


def to_run(page: Path) -> list[Block]:
    """The blocks of a page that are run."""
    found = blocks(page.read_text(encoding="utf-8"))
    return [block for block in found if block.language in ("sh", "python") and not (block.file or block.reason)]
