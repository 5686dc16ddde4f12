"""BConv-Cell, Eq. 1: worked by hand, against a slow loop, and the contract of its latent state."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from ptlreid.errors import OptionError
from ptlreid.models.bconv import BConvCell, load_memory_state, memory_state, reset_memory


def cell_of_one_channel(memory="slot") -> BConvCell:
    cell = BConvCell(1, 1, kernel_size=1, memory=memory)
    with torch.no_grad():
        cell.gates.weight.copy_(torch.tensor([1.0, 0.5, 2.0, -1.0]).view(4, 1, 1, 1))  # i, o, candidate, f
        cell.gates.bias.copy_(torch.tensor([0.0, 0.25, -1.0, 0.5]))
    return cell


def one_pixel(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


def test_two_batches_worked_by_hand():
    # x = 1:    i = s(1) = 0.731059, o = s(0.75) = 0.679179, c = tanh(1) = 0.761594, f = s(-0.5), C' = 0
    #           C = 0.731059 * 0.761594 = 0.556770, y = 0.679179 * tanh(0.556770) = 0.343377
    # x = -0.5: i = s(-0.5) = 0.377541, o = s(0) = 0.5, c = tanh(-2) = -0.964028, f = s(1) = 0.731059
    #           C = 0.731059 * 0.556770 - 0.377541 * 0.964028 = 0.043072, y = 0.5 * tanh(0.043072) = 0.021523
    cell = cell_of_one_channel()
    assert cell(one_pixel(1.0)).item() == pytest.approx(0.343377, abs=1e-6)
    assert cell.state.item() == pytest.approx(0.556770, abs=1e-6)
    assert cell(one_pixel(-0.5)).item() == pytest.approx(0.021523, abs=1e-6)
    assert cell.state.item() == pytest.approx(0.043072, abs=1e-6)


def test_mean_state_worked_by_hand():
    # C of x = 1 is 0.556770, C of x = -0.5 is 0.377541 * -0.964028 = -0.363960: their mean is 0.096405.
    cell = cell_of_one_channel("mean")
    cell(one_pixel(1.0, -0.5))
    assert cell.state.shape == (1, 1, 1, 1)
    assert cell.state.item() == pytest.approx(0.096405, abs=1e-6)
    # The next batch may be of another size: x = -0.5 again, C = 0.731059 * 0.096405 - 0.363960 = -0.293482.
    cell(one_pixel(-0.5, -0.5, -0.5))
    assert cell.state.item() == pytest.approx(-0.293482, abs=1e-6)


def slow_cell(weights: np.ndarray, bias: np.ndarray, batches: list[np.ndarray], stride: int) -> list[np.ndarray]:
    """Eq. 1, element by element in float64. `weights`: (4, C, C_in, k, k), `bias`: (4, C); i, o, candidate, f."""
    _, channels, _, size, _ = weights.shape
    pad = size // 2
    state, results = None, []
    for x in batches:
        height, width = -(-x.shape[2] // stride), -(-x.shape[3] // stride)
        padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        y = np.zeros((len(x), channels, height, width))
        new = np.zeros_like(y)
        for n, c, h, w in np.ndindex(y.shape):
            patch = padded[n, :, h * stride : h * stride + size, w * stride : w * stride + size]
            i, o, candidate, f = ((weights[gate, c] * patch).sum() + bias[gate, c] for gate in range(4))
            before = 0.0 if state is None else state[n, c, h, w]
            new[n, c, h, w] = before / (1 + math.exp(-f)) + math.tanh(candidate) / (1 + math.exp(-i))
            y[n, c, h, w] = math.tanh(new[n, c, h, w]) / (1 + math.exp(-o))
        state = new
        results.append(y)
    return results


@pytest.mark.parametrize(
    ("size", "stride", "height", "width"), [(3, 1, 4, 3), (3, 2, 5, 4), (7, 4, 9, 8), (1, 1, 2, 2)]
)
def test_equals_a_slow_loop(size, stride, height, width):
    rng = np.random.default_rng(size + stride)
    cell = BConvCell(3, 2, kernel_size=size, stride=stride, memory="slot").double()
    batches = [rng.normal(size=(2, 3, height, width)) for _ in range(3)]
    weights = cell.gates.weight.detach().numpy().reshape(4, 2, 3, size, size)
    expected = slow_cell(weights, cell.gates.bias.detach().numpy().reshape(4, 2), batches, stride)
    for batch, y in zip(batches, expected, strict=True):
        # The state is float32 by design: that bounds the precision from the second batch on.
        np.testing.assert_allclose(cell(torch.from_numpy(batch)).detach().numpy(), y, atol=1e-6)


def test_evaluation_starts_from_zero_and_leaves_the_training_state_alone():
    torch.manual_seed(0)
    cell = BConvCell(3, 4, memory="slot")
    x = torch.randn(2, 3, 6, 5)
    first = cell(x).detach()  # from the zero state, as evaluation is
    cell(torch.randn(2, 3, 6, 5))
    state = cell.state.clone()
    cell.eval()
    torch.testing.assert_close(cell(x), first)
    cell(torch.randn(7, 3, 4, 4))
    assert torch.equal(cell.state, state)


def test_memory_none_carries_no_state_and_reset_sets_it_to_zero():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 4)
    forgetful, cell = BConvCell(3, 4, memory="none"), BConvCell(3, 4, memory="slot")
    cell.load_state_dict(forgetful.state_dict())
    assert torch.equal(forgetful(x), forgetful(x))
    first = cell(x)
    assert not torch.equal(cell(x), first)
    cell.reset()
    assert torch.equal(cell(x), first)


def test_no_gradient_flows_into_the_previous_batch():
    cell = BConvCell(1, 2, memory="slot")
    before = torch.randn(1, 1, 3, 3, requires_grad=True)
    cell(before)
    now = torch.randn(1, 1, 3, 3, requires_grad=True)
    cell(now).sum().backward()
    assert before.grad is None
    assert now.grad is not None
    assert not cell.state.requires_grad


def test_gradients_reach_every_gate():
    cell = BConvCell(1, 1, kernel_size=1, memory="slot")
    cell(torch.randn(2, 1, 3, 3))
    cell(torch.randn(2, 1, 3, 3)).sum().backward()
    assert (cell.gates.weight.grad.flatten() != 0).all()


@pytest.mark.parametrize("memory", ["slot", "mean"])
def test_another_image_size_within_an_epoch_is_refused(memory):
    cell = BConvCell(1, 1, memory=memory)
    cell(torch.zeros(2, 1, 4, 4))
    with pytest.raises(OptionError, match=r"\(2, 1, 4, 4\)|\(1, 1, 4, 4\)"):
        cell(torch.zeros(2, 1, 4, 6))


@pytest.mark.parametrize("size", [1, 3])
def test_another_batch_size_within_an_epoch_is_refused(size):
    cell = BConvCell(1, 1, memory="slot")
    cell(torch.zeros(2, 1, 4, 4))
    with pytest.raises(OptionError, match="last incomplete batch"):
        cell(torch.zeros(size, 1, 4, 4))


def test_the_state_is_float32_under_autocast_and_in_half_precision():
    cell = BConvCell(2, 2, memory="slot")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cell(torch.randn(2, 2, 3, 3))
        y = cell(torch.randn(2, 2, 3, 3))
    assert y.dtype == torch.bfloat16
    assert cell.state.dtype == torch.float32
    assert cell.bfloat16().state.dtype == torch.float32


def test_the_state_moves_with_the_module_but_is_neither_parameter_nor_buffer():
    cell = BConvCell(1, 1, memory="slot")
    cell(torch.zeros(1, 1, 2, 2))
    assert set(cell.state_dict()) == {"gates.weight", "gates.bias"}
    assert not list(cell.buffers())
    assert cell.to("meta").state.device.type == "meta"


def test_latent_states_are_saved_and_restored_by_name():
    torch.manual_seed(0)
    network = nn.Sequential(BConvCell(1, 2, memory="slot"), BConvCell(2, 3, stride=2, memory="slot"))
    x = torch.randn(2, 1, 4, 4)
    network(x)
    saved = {name: state.clone() for name, state in memory_state(network).items()}
    assert list(saved) == ["0", "1"]
    expected = network(x)
    load_memory_state(network, saved)
    assert torch.equal(network(x), expected)
    reset_memory(network)
    assert memory_state(network) == {}
