"""The training loop."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from conftest import tiny_network
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from ptlreid import datasets
from ptlreid.engine import fit, schedule
from ptlreid.engine.checkpoint import Training
from ptlreid.engine.fit import Step
from ptlreid.images import load_batches
from ptlreid.losses import ce
from ptlreid.models.bconv import reset_memory
from ptlreid.models.network import Network
from ptlreid.network_types import Output
from ptlreid.views import EvalView, standardize


@pytest.fixture
def train(market_folder):
    return datasets.load("market", market_folder.parent).train


def objective(output, labels, images):
    return ce.loss(output, labels, label_smoothing=0.0)


def training_of(network, **settings) -> Training:
    optimizer = SGD(network.parameters(), **settings)
    return Training(network, optimizer, build_schedule(optimizer, updates_per_epoch=1000, epochs=1))


def build_schedule(optimizer, **settings):
    usual = {"warmup_epochs": 0, "decay_every": 10, "decay_at": (), "decay_factor": 0.1}
    return schedule.build_schedule(optimizer, kind="step", **usual | settings)


def train_epoch(training, batches, labels, objective, *, accumulate=1, clip_grad=0.0):
    precision = fit.Precision(None, False)
    return fit.train_epoch(
        training, batches, labels, objective, precision=precision, accumulate=accumulate, clip_grad=clip_grad
    )


def loss_of(step: Step) -> float:
    return float(sum(step.terms.values()))


def test_an_epoch_equals_a_plain_pytorch_loop(train):
    rows = np.split(np.random.default_rng(0).permutation(16), 2)
    labels = torch.from_numpy(train.labels())
    network, plain = tiny_network(), tiny_network()
    batches = load_batches(train.paths, EvalView(64, 32), rows, workers=0)
    steps = list(train_epoch(training_of(network, lr=0.1), batches, labels, objective))
    optimizer = SGD(plain.parameters(), lr=0.1)
    for step, batch in zip(steps, load_batches(train.paths, EvalView(64, 32), rows, workers=0), strict=True):
        logits = plain(standardize(batch.images)).logits["pid"]
        loss = nn.functional.cross_entropy(logits, labels[batch.rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert loss_of(step) == loss.item()
        assert (step.lr, step.images) == (0.1, 8)
    assert [step.step for step in steps] == [0, 1]
    for name, value in plain.state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name


@pytest.mark.parametrize("memory", ["slot", "mean", "none", None])
def test_a_tiny_dataset_is_overfitted(train, memory):
    network = tiny_network(memory)
    training = training_of(network, lr=0.05, momentum=0.9)
    labels = torch.from_numpy(train.labels())
    batches = list(load_batches(train.paths, EvalView(64, 32), [np.arange(16)], workers=0))
    for _ in range(40):
        reset_memory(network)
        (step,) = train_epoch(training, batches, labels, objective)
    assert loss_of(step) < 0.02


def test_the_gradient_of_an_update_is_the_mean_over_its_batches(train):
    # Without cells and batch norm in training mode, two half batches are one whole batch.
    rows = [np.arange(0, 16, 2), np.arange(1, 16, 2)]
    labels = torch.from_numpy(train.labels())
    ours, theirs = Linear(), Linear()
    steps = list(
        train_epoch(
            training_of(ours, lr=0.1),
            load_batches(train.paths, EvalView(64, 32), rows, workers=0),
            labels,
            objective,
            accumulate=2,
        )
    )
    whole = load_batches(train.paths, EvalView(64, 32), [np.concatenate(rows)], workers=0)
    (expected,) = train_epoch(training_of(theirs, lr=0.1), whole, labels, objective)
    assert len(steps) == 1
    assert steps[0].images == expected.images == 16
    assert loss_of(steps[0]) == pytest.approx(loss_of(expected), rel=1e-5)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


@pytest.fixture
def group():
    """A process group with this process alone."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("wrap", [lambda module: module, partial(torch.compile, backend="eager")], ids=["", "compiled"])
def test_gradients_are_exchanged_once_an_update(train, group, wrap):
    exchanged = []

    def exchange(state, bucket):
        exchanged.append(bucket.index())
        future = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    network = Linear()
    parallel = DistributedDataParallel(network)
    parallel.register_comm_hook(None, exchange)
    rows = [np.arange(8)] * 6
    batches = load_batches(train.paths, EvalView(64, 32), rows, workers=0)
    labels = torch.from_numpy(train.labels())
    steps = fit.train_epoch(
        training_of(network, lr=0.1),
        batches,
        labels,
        objective,
        forward=wrap(parallel),
        precision=fit.Precision(None, False),
        accumulate=3,
        clip_grad=0.0,
    )
    assert len(list(steps)) == 2
    assert exchanged == [0, 0]  # two updates, one bucket, though there are six batches


def test_batches_that_do_not_fill_an_update_change_nothing(train):
    network = Linear()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batches = load_batches(train.paths, EvalView(64, 32), [np.arange(8)], workers=0)
    labels = torch.from_numpy(train.labels())
    assert list(train_epoch(training_of(network, lr=0.1), batches, labels, objective, accumulate=2)) == []
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("clip_grad", [0.0, 0.01, 100.0])
def test_a_gradient_that_is_too_long_keeps_its_direction(train, clip_grad):
    """The update of plain SGD at rate 1 is the gradient: the mean of two batches, over all weights together."""
    labels, before = torch.from_numpy(train.labels()), Linear().state_dict()

    def update(limit):
        network = Linear()
        rows = [np.arange(0, 16, 2), np.arange(1, 16, 2)]
        batches = load_batches(train.paths, EvalView(64, 32), rows, workers=0)
        list(train_epoch(training_of(network, lr=1.0), batches, labels, objective, accumulate=2, clip_grad=limit))
        return torch.cat([(value - before[name]).flatten() for name, value in network.state_dict().items()])

    full, clipped = update(0.0), update(clip_grad)
    length = full.norm().item()
    assert 0.01 < length < 100
    torch.testing.assert_close(clipped, full * (0.01 / length if clip_grad == 0.01 else 1), rtol=1e-4, atol=1e-7)


def test_fp16_gradients_are_clipped_as_they_are_without_their_scale(train):
    labels = torch.from_numpy(train.labels())
    found = []
    for scaler in (torch.amp.GradScaler("cpu", init_scale=1024.0), torch.amp.GradScaler(enabled=False)):
        network = Linear()
        training = training_of(network, lr=1.0)
        training.scaler = scaler
        batches = load_batches(train.paths, EvalView(64, 32), [np.arange(16)], workers=0)
        list(train_epoch(training, batches, labels, objective, clip_grad=0.01))
        found.append(network.state_dict())
    torch.testing.assert_close(*found)


def test_the_schedule_steps_with_each_update_and_the_reported_rate_is_the_one_used(train):
    network = Linear()
    optimizer = SGD(network.parameters(), lr=0.1)
    rates = build_schedule(optimizer, updates_per_epoch=1, epochs=4, decay_every=1, decay_factor=0.5)
    rows = [np.arange(8)] * 3
    labels = torch.from_numpy(train.labels())
    batches = load_batches(train.paths, EvalView(64, 32), rows, workers=0)
    steps = list(train_epoch(Training(network, optimizer, rates), batches, labels, objective))
    assert [step.lr for step in steps] == pytest.approx([0.1, 0.05, 0.025])


class Linear(Network):
    """A linear map of the mean colour: no batch norm, no cells."""

    feature_width = 3

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(3, 4)
        nn.init.zeros_(self.classifier.bias)
        nn.init.eye_(self.classifier.weight)

    def forward(self, images):
        embedding = images.mean(dim=(2, 3))
        return Output(embedding, {"pid": self.classifier(embedding)})
