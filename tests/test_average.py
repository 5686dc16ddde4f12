"""The moving average of a network."""

from __future__ import annotations

import itertools

import pytest
import torch
from conftest import tiny_network
from torch import nn

from ptlreid.models.average import Average
from ptlreid.models.bconv import memory_state


class OneWeight(nn.Module):
    """A network of one weight, and of batch norm whose running variance is set to the same value."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(value))
        self.norm = nn.BatchNorm1d(1)
        self.set(value)

    def set(self, value: float) -> None:
        with torch.no_grad():
            self.weight.fill_(value)
            self.norm.running_var.fill_(value)


# After update 1, (1 + 1) / (10 + 1) of the average is left: 0 · 2/11 + 11 · 9/11 = 9. After update 2, 3/12 = 1/4 of
# it: 9/4 + 1 · 3/4 = 3; or, where the decay is 0.2, 9 · 0.2 + 1 · 0.8 = 2.6.
@pytest.mark.parametrize(("decay", "second"), [(0.999, 3.0), (0.2, 2.6)])
def test_the_average_by_hand(decay, second):
    network = OneWeight(0.0)
    average = Average(network, decay=decay)
    for value, expected in [(11.0, 9.0), (1.0, second)]:
        network.set(value)
        average.update_parameters(network)
        assert average.module.weight.item() == pytest.approx(expected)
        assert average.module.norm.running_var.item() == pytest.approx(expected)
        assert network.weight.item() == value


def test_the_share_that_is_left_grows_up_to_the_decay():
    network = OneWeight(1.0)
    average = Average(network, decay=0.5)
    network.set(0.0)
    weights = [1.0]
    for _ in range(10):
        average.update_parameters(network)
        weights.append(average.module.weight.item())
    shares = [after / before for before, after in itertools.pairwise(weights)]
    assert shares == pytest.approx([2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, 0.5, 0.5, 0.5])


def test_the_average_starts_as_the_network_is_and_learns_nothing_itself():
    network = tiny_network().train()
    average = Average(network, decay=0.999)
    torch.testing.assert_close(average.module.state_dict(), network.state_dict(), rtol=0, atol=0)
    assert not average.module.training
    assert not any(parameter.requires_grad for parameter in average.parameters())
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_latent_states_of_the_average_stay_zero():
    images = torch.randn(4, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    network = tiny_network().train()
    network(images)
    assert memory_state(network)
    average = Average(network, decay=0.999)
    assert memory_state(average) == {}
    network(images)
    average.update_parameters(network)
    average.module.features(images)
    assert memory_state(average) == {}
    assert not any("state" in name for name in average.state_dict())


def test_a_average_resumes_from_its_state():
    network = OneWeight(0.0)
    average = Average(network, decay=0.999)
    network.set(11.0)
    average.update_parameters(network)
    resumed = Average(network, decay=0.999)
    resumed.load_state_dict(average.state_dict())
    network.set(1.0)
    for each in (average, resumed):
        each.update_parameters(network)
    torch.testing.assert_close(resumed.state_dict(), average.state_dict(), rtol=0, atol=0)
    assert resumed.module.weight.item() == pytest.approx(3.0)


def test_whole_numbers_are_copied_and_not_averaged():
    # Their average would be cut to whole numbers: 0.9 of 1 and 0.1 of 1 need not be 1.
    network = OneWeight(0.0)
    network.register_buffer("index", torch.arange(1000))
    average = Average(network, decay=0.9)
    network.norm.num_batches_tracked += 7
    for _ in range(100):
        average.update_parameters(network)
    assert average.module.index.tolist() == list(range(1000))
    assert average.module.norm.num_batches_tracked == 7
