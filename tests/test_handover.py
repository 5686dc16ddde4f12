"""Features in vector databases: the scripts of docs/scale.md, where the engines are installed."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import handover
import pytest


def test_there_is_a_script_of_at_most_thirty_lines_for_each_engine():
    assert handover.SCRIPTS.keys() == handover.PACKAGES.keys()
    for name, text in handover.SCRIPTS.items():
        compile(text, name, "exec")
        assert len(text.splitlines()) <= 30


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", handover.PACKAGES)
def test_a_script_finds_the_nearest_images(name, dtype, tmp_path):
    missing = [package for package in handover.PACKAGES[name] if find_spec(package) is None]
    if missing:
        pytest.skip(
            f"needs {', '.join(missing)}, no dependency of ours: tests/benchmarks/handover.py runs it elsewhere"
        )
    nearest = handover.write_inputs(tmp_path, dtype, rows=300, width=16)
    found = handover.run_script(name, tmp_path, sys.executable)
    assert [path for _, path in found] == nearest
    distances = [distance for distance, _ in found]
    assert sorted(distances) == distances
