"""Batch-hard triplet loss, by hand and against a slow loop."""

from __future__ import annotations

import math

import pytest
import torch

from ptlreid.losses import triplet
from ptlreid.network_types import Output


def loss_of(vectors, labels, margin):
    return triplet.batch_hard(torch.tensor(vectors), torch.tensor(labels), margin).item()


def slow(vectors, labels, margin):
    """Hermans et al. 2017, Eq. 5, as a mean: each anchor by itself, with Python's own distance."""
    losses = []
    for anchor, person in zip(vectors, labels, strict=True):
        others = [(math.dist(anchor, v), p) for v, p in zip(vectors, labels, strict=True) if v is not anchor]
        positive = [distance for distance, p in others if p == person]
        negative = [distance for distance, p in others if p != person]
        if positive and negative:
            losses.append(max(0.0, margin + max(positive) - min(negative)))
    return sum(losses) / max(1, len(losses))


def test_two_identities_on_a_line():
    # Person 0 at 0 and 3, person 1 at 4 and 10. Farthest of the same - nearest of another: 3 - 4, 3 - 1, 6 - 1, 6 - 7.
    # What pytorch-metric-learning's documentation defines as BatchHardMiner, then TripletMarginLoss with MeanReducer,
    # without normalising: relu(distance to the positive - distance to the negative + margin), its mean.
    vectors, labels = [[0.0], [3.0], [4.0], [10.0]], [0, 0, 1, 1]
    assert loss_of(vectors, labels, 5.0) == pytest.approx((4 + 7 + 10 + 4) / 4)
    # Triplets that are far enough apart count as 0, and are counted (that library's own default leaves them out).
    assert loss_of(vectors, labels, 0.5) == pytest.approx((0 + 2.5 + 5.5 + 0) / 4)


@pytest.mark.parametrize("seed", range(20))
def test_it_is_the_slow_loop(seed):
    generator = torch.Generator().manual_seed(seed)
    size = int(torch.randint(2, 13, (1,), generator=generator))
    vectors = torch.randn(size, 3, generator=generator)
    labels = torch.randint(0, 4, (size,), generator=generator)
    for margin in (0.0, 0.3, 1.2):
        expected = slow(vectors.tolist(), labels.tolist(), margin)
        assert triplet.batch_hard(vectors, labels, margin).item() == pytest.approx(expected, abs=1e-5)


def test_the_mean_over_all_vectors_that_are_compared():
    labels = torch.tensor([0, 0, 1, 1])
    near, far = torch.tensor([[0.0], [3.0], [4.0], [10.0]]), torch.tensor([[0.0], [1.0], [9.0], [10.0]])
    # The first 6.25 as above; the second 5 + 1 - 9, 5 + 1 - 8, 5 + 1 - 8, 5 + 1 - 9: nothing.
    output = Output(near, metric={"global": near, "halves": far})
    assert triplet.loss(output, labels, margin=5.0)["triplet"].item() == pytest.approx((6.25 + 0) / 2)


def test_an_anchor_without_a_positive_is_left_out_of_the_mean():
    # Person 2 at 5 has one image: it is somebody's negative, and no anchor. 0: 1 + 3 - 5 < 0; 3: 1 + 3 - 2 = 2.
    assert loss_of([[0.0], [3.0], [5.0]], [0, 0, 2], 1.0) == pytest.approx((0 + 2) / 2)


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]])
def test_a_batch_without_a_triplet_costs_nothing_and_moves_nothing(labels):
    vectors = torch.tensor([[0.0], [3.0], [5.0]], requires_grad=True)
    cost = triplet.batch_hard(vectors, torch.tensor(labels), 1.0)
    cost.backward()
    assert cost.item() == 0
    assert torch.equal(vectors.grad, torch.zeros(3, 1))


def test_equal_vectors_have_finite_gradients():
    vectors = torch.ones(4, 8, requires_grad=True)
    cost = triplet.batch_hard(vectors, torch.tensor([0, 0, 1, 1]), 0.3)
    cost.backward()
    assert cost.item() == pytest.approx(0.3)  # all distances are 0: the margin is left
    assert torch.equal(vectors.grad, torch.zeros(4, 8))


def test_gradients_are_those_of_finite_differences():
    vectors = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    leaf = vectors.clone().requires_grad_()
    triplet.batch_hard(leaf, labels, 1.0).backward()
    numeric = torch.zeros_like(vectors)
    for place in range(vectors.numel()):
        moved = [vectors.clone() for _ in range(2)]
        moved[0].view(-1)[place] += 1e-3
        moved[1].view(-1)[place] -= 1e-3
        up, down = (slow(values.double().tolist(), labels.tolist(), 1.0) for values in moved)
        numeric.view(-1)[place] = (up - down) / 2e-3
    torch.testing.assert_close(leaf.grad, numeric, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_distances_keep_their_digits_under_autocast(dtype):
    # 256.5 is no bfloat16, and the square of 300 no float16: in either the loss would be another.
    vectors = torch.tensor([[0.0], [256.5], [300.0], [600.0]])
    with torch.autocast("cpu", dtype=dtype):
        cost = triplet.batch_hard(vectors, torch.tensor([0, 0, 1, 1]), 1.0)
    assert cost.dtype == torch.float32
    assert cost.item() == pytest.approx((0 + 214 + 257.5 + 0) / 4)


def test_small_distances_of_long_vectors_keep_their_digits():
    # By a matrix product, 1e8 + 1e8 - 2e8 in float32 would leave nothing of 1e-2.
    vectors = torch.full((4, 1), 1e4)
    vectors[1] += 0.0625
    vectors[2:] += torch.tensor([[0.25], [0.5]])
    expected = ((0.0625 - 0.25) + (0.0625 - 0.1875) + (0.25 - 0.1875) + (0.25 - 0.4375)) / 4 + 1
    assert triplet.batch_hard(vectors, torch.tensor([0, 0, 1, 1]), 1.0).item() == pytest.approx(expected)
