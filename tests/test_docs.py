"""The documentation agrees with the program."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import option_tables
import pytest

import ptlreid
from ptlreid import models
from ptlreid.cli import COMMANDS, load_command
from ptlreid.errors import PtlreidError
from ptlreid.models.mgn import MGNPTL
from ptlreid.network_types import NetworkSpec

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("name", [name for name in models.names() if name != "mgn" and not name.startswith("tiny")])
def test_the_table_of_widths_is_the_networks(name):
    network = models.find(name).network(NetworkSpec(name, True, "slot", 2, 256, 128))
    blocks = zip(network.backbone.channels, network.backbone.strides, strict=True)
    columns = [
        f"`{name}`",
        " ".join(f"{channels}/{stride}" for channels, stride in blocks),
        " ".join(str(fuse[0].out_channels) for fuse in network.fusions),
        " ".join(str(cell.gates.out_channels // 4) for cell in network.cells),
    ]
    assert f"| {' | '.join(columns)} |" in (DOCS / "networks.md").read_text(encoding="utf-8")


def test_mgns_cells_are_those_that_are_described():
    network = MGNPTL(2, "slot")
    cells = [*network.image_cells, *network.cells, *network.top_cells.values()]
    shapes = [(cell.gates.in_channels, cell.gates.out_channels // 4, cell.gates.stride[0]) for cell in cells]
    image, trunk = [(3, 16, 2), (16, 32, 2)], [(64, 64, 1), (128, 256, 2), (256, 512, 2)]
    assert shapes == [*image, *trunk, (512, 128, 2), (512, 128, 1), (512, 128, 1)]
    fusions = [(fuse[0].in_channels, fuse[0].out_channels) for fuse in network.fusions]
    assert fusions == [(64 + 32, 64), (256 + 64, 128), (512 + 256, 256), (1024 + 512, 512)]


def test_the_option_tables_are_the_programs():
    assert option_tables.PAGE.read_text(encoding="utf-8") == option_tables.page(), (
        "run `python tests/option_tables.py --write`"
    )


def test_every_command_with_a_config_file_has_its_settings_on_the_page():
    names = [name for commands in COMMANDS.values() for name in commands]
    with_config = {name for name in names if any(param.name == "config" for param in load_command(name).params)}
    assert with_config - set(option_tables.SETTINGS) == set()


ERRORS = {cls.__name__ for cls in (PtlreidError, *PtlreidError.__subclasses__())}


def _template(node: ast.AST) -> str:
    """The text of a string, … for what is filled in; "" if the node is none."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def errors() -> list[str]:
    """The message of every error in the source, except for those that are made elsewhere and only passed on."""
    calls = [
        node
        for path in Path(ptlreid.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS and node.args
    ]
    messages = [_template(call.args[0]) for call in calls]
    assert len(messages) > 150
    return [message for message in messages if re.search("[a-z]", message)]


def texts() -> list[str]:
    """Every text in the source, … for what is filled in."""
    found = []
    for path in Path(ptlreid.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            found += [_template(node)] if _template(node) else []
    return found


def quoted() -> list[str]:
    """The messages that the troubleshooting page quotes: the first column of its tables."""
    rows = re.findall(r"^\| `(.+?)` \| ", (DOCS / "troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 150
    return rows


def test_every_message_on_the_troubleshooting_page_is_one_of_the_program():
    known = texts()
    assert [message for message in quoted() if not any(message in text for text in known)] == []


def test_every_error_has_a_row_on_the_troubleshooting_page():
    rows = quoted()
    assert [message for message in errors() if not any(row in message for row in rows)] == [], (
        "add a row to docs/troubleshooting.md: a part of the message, with … for what is filled in, and its remedy"
    )
