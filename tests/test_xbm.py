"""Cross-batch memory: by hand, against a slow loop over all earlier images, and against pytorch-metric-learning."""

from __future__ import annotations

import math

import pytest
import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import ContrastiveLoss, CrossBatchMemory

from ptlreid import losses
from ptlreid.losses.xbm import contrast, new_state
from ptlreid.network_types import Output

NOW = {"xbm_start": 0}  # the term from the first batch on


def find(**settings):
    """The loss, and where its state is kept."""
    kept = {}
    return losses.find("xbm", NOW | settings, kept), kept


def output_of(vectors, **more) -> Output:
    return Output(vectors, metric={"global": vectors} | more)


def turned(*degrees):
    """Vectors of different lengths at these angles."""
    angles = [math.radians(angle) for angle in degrees]
    return torch.tensor([[math.cos(a), math.sin(a)] for a in angles]) * torch.arange(1.0, len(angles) + 1)[:, None]


def slow(vectors, labels, earlier, size, margin):
    """The paper's contrastive loss of a batch against the last `size` of all images, means over pairs that cost."""
    queue = [*earlier, *zip(vectors, labels, range(len(labels)), strict=True)][-size:]

    def cosine(one, other):
        return sum(a * b for a, b in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))

    near, far = [], []
    for place, (vector, label) in enumerate(zip(vectors, labels, strict=True)):
        for other, other_label, other_place in queue:
            s = cosine(vector, other)
            if label != other_label:
                far.append(max(0.0, s - margin))
            elif place != other_place:
                near.append(1 - s)
    means = sum(near) / max(1, len(near)) + sum(far) / max(1, sum(cost > 0 for cost in far))
    return means, [(vector, label, None) for vector, label, _ in queue]


def test_two_batches_by_hand():
    loss, _ = find()
    # Person 0 at 0°, person 1 at 30°: no pair of one person. Cosine 0.866 twice: 0.366 above the margin of 0.5.
    (first,) = loss(output_of(turned(0, 30)), torch.tensor([0, 1])).values()
    assert first.item() == pytest.approx(math.sqrt(3) / 2 - 0.5)
    # Person 0 at 90°: 1 - 0 to itself at 0°. To person 1 at 30° the cosine is 0.5, which is no more than the margin.
    # Person 2 at 60°, which is 30° from the new 0 (twice) and from 1, and 60° from the old 0, which costs nothing.
    (second,) = loss(output_of(turned(90, 60)), torch.tensor([0, 2])).values()
    assert second.item() == pytest.approx(1 + math.sqrt(3) / 2 - 0.5, rel=1e-5)


@pytest.mark.parametrize("seed", range(10))
def test_it_is_the_slow_loop(seed):
    generator = torch.Generator().manual_seed(seed)
    size, margin = int(torch.randint(1, 12, (1,), generator=generator)), 0.9 - 0.2 * seed
    loss, _ = find(xbm_size=size, xbm_margin=margin)
    earlier = []
    for _ in range(5):  # batches that are larger than the queue, too
        count = int(torch.randint(1, 7, (1,), generator=generator))
        vectors, labels = torch.randn(count, 3, generator=generator), torch.randint(0, 3, (count,), generator=generator)
        expected, earlier = slow(vectors.double().tolist(), labels.tolist(), earlier, size, margin)
        assert loss(output_of(vectors), labels)["xbm"].item() == pytest.approx(expected, abs=1e-5)


def test_values_and_gradients_are_those_of_pytorch_metric_learning():
    theirs = CrossBatchMemory(
        ContrastiveLoss(pos_margin=1, neg_margin=0.3, distance=CosineSimilarity()), embedding_size=4, memory_size=10
    )
    loss, _ = find(xbm_size=10, xbm_margin=0.3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):  # the queue is full from the third batch on
        vectors, labels = torch.randn(4, 4, generator=generator), torch.randint(0, 3, (4,), generator=generator)
        ours, others = vectors.clone().requires_grad_(), vectors.clone().requires_grad_()
        cost, expected = loss(output_of(ours), labels)["xbm"], theirs(others, labels)
        torch.testing.assert_close(cost, expected)
        cost.backward(), expected.backward()
        torch.testing.assert_close(ours.grad, others.grad)


def test_nothing_is_compared_with_empty_places_and_nothing_is_minimised_alone():
    loss, _ = find(xbm_margin=-1.0)  # an empty place, of cosine 0, would cost 1
    vectors = torch.ones(1, 2, requires_grad=True)
    cost = loss(output_of(vectors), torch.tensor([0]))["xbm"]
    cost.backward()
    assert cost.item() == 0
    assert torch.equal(vectors.grad, torch.zeros(1, 2))


def test_the_queue_fills_from_the_first_batch_and_is_used_after_the_start():
    waiting, _ = find(xbm_start=2)
    at_once, _ = find()
    batches = [(turned(0, 30), [0, 1]), (turned(20, 50), [1, 0]), (turned(40, 10), [1, 2])]
    for number, (vectors, labels) in enumerate(batches):
        leaf = vectors.clone().requires_grad_()
        cost = waiting(output_of(leaf), torch.tensor(labels))["xbm"]
        cost.backward()
        full = at_once(output_of(vectors), torch.tensor(labels))["xbm"]
        assert cost.item() == (full.item() if number == 2 else 0)
        assert bool(leaf.grad.any()) == (number == 2)


def test_the_weighted_mean_over_the_vectors_of_each_part():
    labels = torch.tensor([0, 1])
    one, other = turned(0, 30), turned(0, 45)
    costs = [find()[0](output_of(vectors), labels)["xbm"].item() for vectors in (one, other)]
    both = find(xbm_weight=3.0)[0](output_of(one, halves=other), labels)["xbm"].item()
    assert both == pytest.approx(3 * sum(costs) / 2)


def test_the_queue_has_no_gradient_and_no_more_memory_than_its_size():
    loss, kept = find(xbm_size=3)
    for _ in range(2):
        loss(output_of(turned(0, 30).requires_grad_()), torch.tensor([0, 1]))["xbm"].backward()
    assert kept.keys() == {"loss.xbm.queue.global", "loss.xbm.labels", "loss.xbm.batches"}
    assert not any(value.requires_grad for value in kept.values())
    assert kept["loss.xbm.queue.global"].untyped_storage().nbytes() == 3 * 2 * 4  # a checkpoint writes all of it
    assert kept["loss.xbm.labels"].tolist() == [1, 0, 1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(dtype):
    vectors, labels = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 0, 1, 1, 2, 2])
    expected = find()[0](output_of(vectors), labels)["xbm"]
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(find()[0](output_of(vectors), labels)["xbm"], expected)


def test_equal_vectors_and_zeros_have_finite_gradients():
    for vectors in (torch.ones(4, 8), torch.zeros(4, 8)):
        leaf = vectors.requires_grad_()
        find()[0](output_of(leaf), torch.tensor([0, 0, 1, 1]))["xbm"].backward()
        assert leaf.grad.isfinite().all()


def test_a_queue_that_ends_with_the_batch_is_what_contrast_takes():
    unit = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    queue, labels = torch.cat([torch.tensor([[0.0, 1.0]]), unit]), torch.tensor([1, 0, 0])
    # One identity: 1 - 0.6, twice. Two: 0 and 0.8, of which the second is 0.5 above the margin of 0.3.
    assert contrast(unit, labels[1:], queue, labels, 0.3).item() == pytest.approx(0.4 + 0.5)


def test_a_new_queue_is_empty():
    state = new_state(output_of(torch.ones(2, 5)), xbm_size=3, xbm_start=0)
    assert {key: tuple(value.shape) for key, value in state.items()} == {
        "queue.global": (3, 5),
        "labels": (3,),
        "batches": (),
    }
    assert state["labels"].tolist() == [-1, -1, -1]
