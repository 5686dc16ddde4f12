"""The training loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import tiny_network
from torch import nn
from torch.optim import SGD

from ptlreid import datasets
from ptlreid.engine.fit import train_epoch
from ptlreid.images import load_batches
from ptlreid.losses import ce
from ptlreid.models.bconv import reset_memory
from ptlreid.views import EvalView, standardize


@pytest.fixture
def train(market_folder):
    return datasets.load("market", market_folder.parent).train


def test_an_epoch_is_the_loop_that_anyone_would_write(train):
    rows = np.split(np.random.default_rng(0).permutation(16), 2)
    labels = torch.from_numpy(train.labels())
    network, plain = tiny_network(), tiny_network()
    batches = load_batches(train, EvalView(64, 32), rows)
    steps = list(train_epoch(network, batches, labels, ce.loss, SGD(network.parameters(), lr=0.1)))
    optimizer = SGD(plain.parameters(), lr=0.1)
    for step, batch in zip(steps, load_batches(train, EvalView(64, 32), rows), strict=True):
        logits = plain(standardize(batch.images)).logits["pid"]
        loss = nn.functional.cross_entropy(logits, labels[batch.rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert step.loss == loss.item()
        assert (step.lr, step.images) == (0.1, 8)
    assert [step.step for step in steps] == [0, 1]
    for name, value in plain.state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name


@pytest.mark.parametrize("memory", ["slot", "mean", "none", None])
def test_a_tiny_set_is_learnt_by_heart(train, memory):
    network = tiny_network(memory)
    optimizer = SGD(network.parameters(), lr=0.05, momentum=0.9)
    labels = torch.from_numpy(train.labels())
    batches = list(load_batches(train, EvalView(64, 32), [np.arange(16)]))
    for _ in range(40):
        reset_memory(network)
        (step,) = train_epoch(network, batches, labels, ce.loss, optimizer)
    assert step.loss < 0.02
