"""Every documentation page runs from top to bottom in an empty folder."""

from __future__ import annotations

from pathlib import Path

import option_tables
import pages
import pytest
from blocks import PAGES, blocks, to_run

from ptlreid.errors import OptionError
from ptlreid.settings import Settings

# Run unchanged, with the networks and sizes that they name, in test_docs_walks.py.
UNCHANGED = {"docs/own-cameras.md", "docs/distributed.md", "docs/extending.md"}

PAGE = """\
Text.

<!-- first: ptlreid models -->

```sh
ptlreid finetune \\
  --data market  # in two lines
ls
```

<!-- not run: a day on a GPU -->

```sh
ptlreid finetune
```

<!-- file: mine.toml -->

```toml
epochs = 1
```
"""


RUN = [name for name, page in PAGES.items() if to_run(page) and name not in UNCHANGED]
LONG = {"docs/transfer.md", "docs/report.md"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in RUN])
def test_every_block_of_a_page_runs(name, ptlreid, monkeypatch):
    page = PAGES[name]
    pages.limit_settings(monkeypatch)
    pages.use_tiny_parts(monkeypatch)
    pages.write_inputs(page, ptlreid)
    pages.run_page(page, ptlreid)


@pytest.mark.parametrize("name", PAGES)
def test_commands_that_are_not_run_are_commands_of_the_program(name):
    for block in blocks(PAGES[name].read_text(encoding="utf-8")):
        for command in block.commands() if block.language == "sh" and block.reason else ():
            if command.startswith("ptlreid ") and "$" not in command:
                pages.parse(command)


@pytest.mark.parametrize("name", PAGES)
def test_settings_on_a_page_are_settings_of_a_command(name, tmp_path):
    file = tmp_path / "settings.toml"
    for block in blocks(PAGES[name].read_text(encoding="utf-8")):
        if block.language == "toml":
            file.write_text(block.text, encoding="utf-8")
            assert any(accepts(model, file) for model in option_tables.SETTINGS.values()), f"line {block.line}"


def accepts(model: type[Settings], file: Path) -> bool:
    try:
        model.resolve(file)
    except OptionError:
        return False
    return True


def test_blocks_are_parsed_with_their_comments():
    first, two_lines, left_out, saved = blocks(PAGE)
    assert first.commands() == ["ptlreid models"]
    assert two_lines.commands() == ["ptlreid finetune    --data market  # in two lines", "ls"]
    assert left_out.reason == "a day on a GPU"
    assert (saved.file, saved.text, saved.reason) == ("mine.toml", "epochs = 1\n", None)


@pytest.mark.parametrize("text", ["  ```sh\n  ls\n  ```\n", "```sh\nls\n", "<!-- not run: reason -->\nText.\n"])
def test_a_block_that_the_tests_would_not_see_is_refused(text):
    with pytest.raises(AssertionError):
        blocks(text)


def test_a_page_that_does_not_run_is_reported(ptlreid, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```sh\nptlreid finetune --data nowhere\n```\n")
    with pytest.raises(AssertionError, match=r"page.md, line 1: ptlreid finetune --data nowhere"):
        pages.run_page(page, ptlreid)


def test_an_unknown_option_is_reported():
    with pytest.raises(Exception, match="No such option"):
        pages.parse("ptlreid finetune --epoch 3")
