"""Epochs whose batches and objective are decided when they begin."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from ptlreid import datasets
from ptlreid.engine import history
from ptlreid.engine.job import EpochPlan, TrainingJob
from ptlreid.engine.training_run import train
from ptlreid.progress import Silent
from ptlreid.retrieval.cluster_statistics import measure_clusters
from ptlreid.runs import RunFolder
from ptlreid.samplers import ShuffleSampler
from ptlreid.settings import FinetuneSettings


class Fault(Exception):
    """Any error that ends a run."""


class StopAt(Silent):
    """Raises when this many updates have been reported."""

    def __init__(self, update: int) -> None:
        self.update = update

    @contextmanager
    def task(self, title, total):
        def advance(done, *, status="", total=None):
            if done == self.update:
                raise Fault

        yield advance


class Planner:
    """Pulls features towards the mean of the first weights, and counts updates in the extra state."""

    def __init__(self, splits, epochs: int) -> None:
        self.splits, self.epochs, self.asked = splits, epochs, []

    def __call__(self, training, device):
        self.asked.append((training.epoch, training.step))
        if training.epoch == self.epochs:
            return None
        if not training.step:
            training.extra = {"start": training.network.head.reduce.weight.detach().clone(), "updates": torch.zeros(())}
        start, seen = training.extra["start"], []

        def objective(output, rows, images):
            seen.append(rows.tolist())
            return {"rows": (output.embedding * start.mean() * (1 + rows[:, None])).square().mean()}

        def after_update(step):
            assert not step.skipped
            training.extra["updates"] = training.extra["updates"] + 1
            assert seen.pop() in [rows.tolist() for rows in batches]

        # 16 images, batches of 4, one epoch unlike another
        batches = [np.arange(4) * 4 + (number + training.epoch) % 4 for number in range(4)]
        clusters = measure_clusters(np.maximum(np.arange(4) - training.epoch, -1), np.arange(4))
        return EpochPlan(batches, objective, lambda rows: nullcontext(), after_update, clusters.describe())


@pytest.fixture
def start(market_folder):
    splits = datasets.load("market", market_folder.parent)

    def begin(folder: Path, progress, planner=None, epochs=3):
        size = {"height": 64, "width": 32, "batch_size": 4, "epochs": epochs, "decay_every": 2}
        settings = FinetuneSettings.resolve(
            None, amp="off", device="cpu", backbone="tiny", init="none", checkpoint_minutes=0.0, **size
        )
        planner = planner or Planner(splits, 9)
        run, sampler = RunFolder(folder), ShuffleSampler(16, 4, 0)
        job = TrainingJob(settings, splits, sampler, run, progress, classes=7, plan_epoch=planner)
        return planner, train(job, lambda *_, **__: {})

    return begin


@pytest.mark.parametrize("update", [1, 3, 4, 6, 12])
def test_a_planned_run_that_was_stopped_resumes_to_equal_weights_without_another_plan(tmp_path, start, update):
    _, whole = start(tmp_path / "whole", Silent())
    with pytest.raises(Fault):
        start(tmp_path / "stopped", StopAt(update))
    # Of the last update that was reported there is no checkpoint yet.
    planner, resumed = start(tmp_path / "stopped", Silent())
    assert planner.asked[0] == divmod(update - 1, 4)
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], tensor)
    assert resumed.extra["updates"] == whole.extra["updates"] == 4
    clusters = [
        [line for line in history.read(tmp_path / name / "history.jsonl") if line["kind"] == "clusters"]
        for name in ("whole", "stopped")
    ]
    assert clusters[0] == clusters[1]
    assert [(line["epoch"], line["clusters"]) for line in clusters[0]] == [(0, 4), (1, 3), (2, 2)]


def test_training_ends_where_there_is_no_plan(tmp_path, start, market_folder):
    planner, training = start(
        tmp_path / "run", Silent(), Planner(datasets.load("market", market_folder.parent), 2), epochs=5
    )
    assert (training.epoch, planner.asked) == (2, [(0, 0), (1, 0), (2, 0)])


def test_the_classifier_has_the_classes_of_the_job(tmp_path, start):
    _, training = start(tmp_path / "run", Silent(), epochs=0)
    assert training.network.state_dict()["head.classifier.6.weight"].shape[0] == 7
