"""What the documentation says of the program is what the program does."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptlreid import models
from ptlreid.models.mgn import MGNPTL

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("name", [name for name in models.names() if name != "mgn" and not name.startswith("tiny")])
def test_the_table_of_widths_is_the_networks(name):
    network = models.find(name).ptl(2, "slot")
    blocks = zip(network.backbone.channels, network.backbone.strides, strict=True)
    columns = [
        f"`{name}`",
        " ".join(f"{channels}/{stride}" for channels, stride in blocks),
        " ".join(str(fuse[0].out_channels) for fuse in network.fusions),
        " ".join(str(cell.gates.out_channels // 4) for cell in network.cells),
    ]
    assert f"| {' | '.join(columns)} |" in (DOCS / "networks.md").read_text(encoding="utf-8")


def test_mgns_cells_are_those_that_are_described():
    network = MGNPTL(2)
    cells = [*network.image_cells, *network.cells, *network.top_cells.values()]
    shapes = [(cell.gates.in_channels, cell.gates.out_channels // 4, cell.gates.stride[0]) for cell in cells]
    image, trunk = [(3, 16, 2), (16, 32, 2)], [(64, 64, 1), (128, 256, 2), (256, 512, 2)]
    assert shapes == [*image, *trunk, (512, 128, 2), (512, 128, 1), (512, 128, 1)]
    fusions = [(fuse[0].in_channels, fuse[0].out_channels) for fuse in network.fusions]
    assert fusions == [(64 + 32, 64), (256 + 64, 128), (512 + 256, 256), (1024 + 512, 512)]
