"""docs/commands.md, made from the program: `python tests/option_tables.py --write` after an option has changed."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

from ptlreid.cli import app
from ptlreid.settings import (
    ChainSettings,
    DistillSettings,
    EvaluateSettings,
    FinetuneSettings,
    Settings,
    SyntheticSettings,
)
from ptlreid.settings.evaluate import CompareSettings
from ptlreid.settings.report import ReportSettings
from ptlreid.settings.reproduce import ReproduceSettings

PAGE = Path(__file__).parent.parent / "docs" / "commands.md"

# What the file of --config may say, beyond the command's options.
SETTINGS: dict[str, type[Settings]] = {
    "prepare": SyntheticSettings,
    "finetune": FinetuneSettings,
    "distill": DistillSettings,
    "transfer-chain": ChainSettings,
    "evaluate": EvaluateSettings,
    "compare": CompareSettings,
    "report": ReportSettings,
    "reproduce": ReproduceSettings,
}

INTRODUCTION = """\
# Commands

Made from the program by `python tests/option_tables.py --write`; a test holds that this page is what the program says.

What decides a result can stand in the TOML file of `--config`, by the option's name with `_` for `-`: \
`--batch-size 16` is `batch_size = 16`. An option that is given overrides the file, the file overrides the \
recipe, the recipe overrides the default. A key that is not known is an error.

`ptlreid --version` shows the version. `ptlreid --install-completion` makes the shell complete commands and options.
"""


def page() -> str:
    """The whole page."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return "\n".join([INTRODUCTION, *(_section(name, command) for name, command in commands.items())])


def _section(name: str, command: Any) -> str:
    shown = [param for param in command.params if not param.hidden and param.name != "help"]
    arguments = [param for param in shown if not param.opts[0].startswith("-")]
    usage = " ".join(["ptlreid", name, *(_argument(param) for param in arguments), "[OPTIONS]"])
    parts = [
        f"## ptlreid {name}\n",
        re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(command.help)) + "\n",
        f"```text\n{usage}\n```\n",
        _table(("option", "default", "meaning"), ((_flags(p), _default(p), _meaning(p)) for p in shown)),
    ]
    if name in SETTINGS:
        parts += _more(SETTINGS[name], {param.name for param in shown})
    return "\n".join(parts)


def _more(model: type[Settings], options: set[str]) -> list[str]:
    """The settings that are no options; those of fine-tuning are told of once."""
    shared = set(FinetuneSettings.model_fields) if model is not FinetuneSettings else set()
    shared = shared if issubclass(model, FinetuneSettings) else set()
    rows = [
        (f"`{model.key(key)}`", _value(about.default), about.description or "")
        for key, about in model.model_fields.items()
        if key not in options | shared
    ]
    lines = [_table(("key in TOML", "default", "meaning"), rows)] if rows else []
    if shared:
        lines.insert(0, "In TOML, all settings of `ptlreid finetune` too.\n")
    return lines


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _argument(param: Any) -> str:
    shown = param.metavar or param.name.upper()
    return shown if param.required else f"[{shown}]"


def _flags(param: Any) -> str:
    if not param.opts[0].startswith("-"):
        return f"`{_argument(param)}`"
    return ", ".join(f"`{flag}`" for flag in [*param.opts, *param.secondary_opts])


def _default(param: Any) -> str:
    if param.required:
        return "required"
    if isinstance(param.show_default, str):
        return param.show_default
    return "" if param.default is None or isinstance(param.default, bool) else str(param.default)


def _meaning(param: Any) -> str:
    return f"{param.help} Environment: `{param.envvar}`." if param.envvar else str(param.help or "")


def _value(default: Any) -> str:
    if default is None:
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else repr(default)}`"


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page(), encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page():
        sys.exit(f"{PAGE} is not what the program says: run `python {sys.argv[0]} --write`.")
