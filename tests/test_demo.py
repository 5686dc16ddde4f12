"""The tour, small."""

from __future__ import annotations

import pytest
from test_finetune import StoppedAt

from ptlreid.config import DemoConfig, SyntheticConfig
from ptlreid.datasets import synthetic
from ptlreid.workflows.demo import run_demo


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")


def test_the_second_time_everything_is_reused(place):
    config = DemoConfig.resolve(None, root=str(place / "data"), epochs=1, identities=4, device="cpu")
    first = run_demo(config, place / "runs", StoppedAt(-1))
    assert list(first) == ["untrained", "baseline", "PTL"]
    assert [metrics["epochs"] for metrics in first.values()] == [0, 1, 1]
    progress = StoppedAt(1)  # raises if a step is made
    assert run_demo(config, place / "runs", progress) == first
    assert len(progress.notes) == 4
    assert all("reused" in note for note in progress.notes)


def test_a_site_that_was_drawn_otherwise_is_used_as_it_is(tmp_path):
    drawn = SyntheticConfig.resolve(None, identities=4, cameras=2, images_per_camera=2, height=64, width=32)
    synthetic.prepare(tmp_path / "data" / "synthetic-a", "a", drawn)
    config = DemoConfig.resolve(None, root=str(tmp_path / "data"), epochs=1, device="cpu")
    with pytest.raises(Exception, match="8 training images do not fill one batch of 16"):
        run_demo(config, tmp_path / "runs", StoppedAt(-1))
