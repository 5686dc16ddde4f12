"""Parts by file name."""

from __future__ import annotations

import sys

import pytest

from ptlreid import models, plugins
from ptlreid.errors import OptionError
from ptlreid.models import backbones


def test_names_are_file_names_and_helpers_are_left_out(tmp_path, monkeypatch):
    package = tmp_path / "some_parts"
    package.mkdir()
    for name in ("__init__", "zebra", "gray_wolf", "_helper"):
        (package / f"{name}.py").write_text(f"NAME = {name!r}\n")
    monkeypatch.syspath_prepend(tmp_path)
    import some_parts

    assert plugins.names(some_parts) == ["gray-wolf", "zebra"]
    assert plugins.find(some_parts, "gray-wolf", "animal").NAME == "gray_wolf"
    for name in [name for name in sys.modules if name.startswith("some_parts")]:
        del sys.modules[name]


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(OptionError, match=r"Unknown backbone 'resnet5'. Did you mean 'resnet50'\? Known: .*resnet18"):
        plugins.find(backbones, "resnet5", "backbone")


def test_a_name_unlike_any_gets_the_list_alone():
    assert "Did you mean" not in str(plugins.unknown_name("backbone", "xyzzy", models.names()))
