"""Features of records, filled by row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import tiny_network

from ptlreid import datasets
from ptlreid.features import extract
from ptlreid.views import EvalView, standardize

VIEW = EvalView(64, 32)
CPU = torch.device("cpu")


@pytest.fixture
def network():
    return tiny_network()


@pytest.fixture
def gallery(market_folder):
    return datasets.load("market", market_folder.parent).gallery


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_row_i_is_the_feature_of_record_i(network, gallery, batch_size):
    features = extract(network, gallery, VIEW, device=CPU, batch_size=batch_size)
    network.eval()
    for row, path in enumerate(gallery.paths):
        with torch.inference_mode():
            alone = network(standardize(torch.from_numpy(VIEW(path).copy())[None])).embedding[0]
        np.testing.assert_allclose(features.matrix[row], alone.numpy(), atol=1e-6)
    assert features.pids.tolist() == gallery.pids.tolist()
    assert features.paths.tolist() == [str(path) for path in gallery.paths]


def test_another_order_gives_the_same_rows(network, gallery):
    order = np.random.default_rng(0).permutation(len(gallery))
    straight = extract(network, gallery, VIEW, device=CPU)
    shuffled = extract(network, gallery.select(order), VIEW, device=CPU, batch_size=3)
    np.testing.assert_allclose(shuffled.matrix, straight.matrix[order], atol=1e-6)


@pytest.mark.parametrize("mode", [True, False])
def test_the_network_is_given_back_in_its_mode(network, gallery, mode):
    network.train(mode)
    extract(network, gallery, VIEW, device=CPU)
    assert network.training is mode
