"""Circle loss and AGW's weighted triplet loss, each against a slow loop over anchors."""

from __future__ import annotations

import math

import pytest
import torch
from pytorch_metric_learning.losses import CircleLoss

from ptlreid import losses
from ptlreid.losses.circle import circle
from ptlreid.losses.weighted_triplet import weighted
from ptlreid.network_types import Output

LOSSES = {"weighted-triplet": weighted, "circle": lambda vectors, labels: circle(vectors, labels, 0.25, 128.0)}


def random_batch(seed):
    generator = torch.Generator().manual_seed(seed)
    size = int(torch.randint(2, 13, (1,), generator=generator))
    return torch.randn(size, 3, generator=generator), torch.randint(0, 4, (size,), generator=generator)


def pairs(vectors, labels, measure):
    """For each anchor with both: what `measure` says of its positives, and of its negatives."""
    for anchor, person in zip(vectors, labels, strict=True):
        others = [(measure(anchor, v), p) for v, p in zip(vectors, labels, strict=True) if v is not anchor]
        positive = [value for value, p in others if p == person]
        negative = [value for value, p in others if p != person]
        if positive and negative:
            yield positive, negative


def slow_weighted(vectors, labels):
    """Ye et al. 2021, Eq. 9 and 10, with Python's own distance."""
    costs = []
    for positive, negative in pairs(vectors, labels, math.dist):
        far = sum(d * math.exp(d) for d in positive) / sum(math.exp(d) for d in positive)
        near = sum(d * math.exp(-d) for d in negative) / sum(math.exp(-d) for d in negative)
        costs.append(math.log(1 + math.exp(far - near)))
    return sum(costs) / max(1, len(costs))


def slow_circle(vectors, labels, margin, scale):
    """Sun et al. 2020, Eq. 6 with 8 and 9."""

    def cosine(one, other):
        return sum(a * b for a, b in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))

    costs = []
    for positive, negative in pairs(vectors, labels, cosine):
        near = sum(math.exp(scale * max(0, s + margin) * (s - margin)) for s in negative)
        far = sum(math.exp(-scale * max(0, 1 + margin - s) * (s - 1 + margin)) for s in positive)
        costs.append(math.log(1 + near * far))
    return sum(costs) / max(1, len(costs))


@pytest.mark.parametrize("seed", range(20))
def test_they_are_the_slow_loops(seed):
    vectors, labels = random_batch(seed)
    rows, identities = vectors.double().tolist(), labels.tolist()
    assert weighted(vectors, labels).item() == pytest.approx(slow_weighted(rows, identities), abs=1e-5)
    for margin, scale in ((0.25, 128.0), (0.4, 2.0), (0.0, 64.0)):
        expected = slow_circle(rows, identities, margin, scale)
        assert circle(vectors, labels, margin, scale).item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_the_circle_loss_is_that_of_pytorch_metric_learning():
    vectors = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])  # theirs takes the mean over anchors, too, if all have pairs
    ours, theirs = vectors.clone().requires_grad_(), vectors.clone().requires_grad_()
    cost, expected = circle(ours, labels, 0.25, 64.0), CircleLoss(m=0.25, gamma=64)(theirs, labels)
    torch.testing.assert_close(cost, expected)
    cost.backward(), expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-4)


def test_two_identities_on_a_line():
    # 0 and 3 against 4 and 10: one positive each; negatives at 4 and 10, 1 and 7, 4 and 1, 10 and 7.
    def anchor(p, *negatives):
        near = sum(d * math.exp(-d) for d in negatives) / sum(math.exp(-d) for d in negatives)
        return math.log(1 + math.exp(p - near))

    expected = (anchor(3, 4, 10) + anchor(3, 1, 7) + anchor(6, 4, 1) + anchor(6, 10, 7)) / 4
    line, labels = torch.tensor([[0.0], [3.0], [4.0], [10.0]]), torch.tensor([0, 0, 1, 1])
    assert weighted(line, labels).item() == pytest.approx(expected)
    equal = Output(line, metric={"global": line, "same": torch.ones(4, 1)})  # all distances 0: ln 2
    cost = losses.find("weighted-triplet", {})(equal, labels)["weighted-triplet"]
    assert cost.item() == pytest.approx((expected + math.log(2)) / 2)


@pytest.mark.parametrize("cost", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]])
def test_a_batch_without_a_triplet_costs_nothing_and_moves_nothing(cost, labels):
    vectors = torch.tensor([[1.0, 0.0], [3.0, 1.0], [5.0, -2.0]], requires_grad=True)
    value = cost(vectors, torch.tensor(labels))
    value.backward()
    assert value.item() == 0
    assert torch.equal(vectors.grad, torch.zeros(3, 2))


@pytest.mark.parametrize("cost", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("vectors", [torch.ones(4, 8), torch.zeros(4, 8)], ids=["ones", "zeros"])
def test_equal_vectors_have_finite_gradients(cost, vectors):
    vectors = vectors.clone().requires_grad_()
    cost(vectors, torch.tensor([0, 0, 1, 1])).backward()
    assert vectors.grad.isfinite().all()


@pytest.mark.parametrize("cost", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(cost, dtype):
    vectors, labels = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 0, 1, 1, 2, 2])
    with torch.autocast("cpu", dtype=dtype):
        value = cost(vectors, labels)
    assert torch.equal(value, cost(vectors, labels))


@pytest.mark.parametrize("name", LOSSES)
def test_each_is_a_part_of_a_sum(name):
    vectors, labels = random_batch(3)
    output = Output(vectors, logits={"pid": torch.zeros(len(vectors), 4)}, metric={"global": vectors})
    terms = losses.find(f"ce+{name}", {})(output, labels)
    assert terms.keys() == {"ce", name}
    assert terms[name].item() == LOSSES[name](vectors, labels).item()
