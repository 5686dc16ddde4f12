"""Centre loss: by hand, and against a slow loop over images."""

from __future__ import annotations

import pytest
import torch

from ptlreid import losses
from ptlreid.losses.centre import new_state
from ptlreid.network_types import Output


def output_of(vectors, classes=3, **more) -> Output:
    return Output(vectors, logits={"pid": torch.zeros(len(vectors), classes)}, metric={"global": vectors} | more)


def find(**settings):
    """The loss, and where its state is kept."""
    kept = {}
    return losses.find("centre", settings, kept), kept


def test_two_batches_by_hand():
    loss, kept = find(centre_weight=2.0, centre_rate=0.5)
    labels = torch.tensor([0, 0, 2])
    features = torch.tensor([[3.0, 0.0], [0.0, 6.0], [1.0, 1.0]])
    # All centres are at 0: (9 + 36 + 2) / 3, times 2 / 2. Centre 0 moves by 0.5 · (3, 6) / (1 + 2), centre 2 by
    # 0.5 · (1, 1) / (1 + 1).
    assert loss(output_of(features), labels)["centre"].item() == pytest.approx(47 / 3)
    expected = torch.tensor([[0.5, 1.0], [0.0, 0.0], [0.25, 0.25]])
    torch.testing.assert_close(kept["loss.centre.global"], expected)
    # From (0.5, 1) to (1.5, 1): 1. Centre 0 moves by 0.5 · 1 / 2, the others stay.
    assert loss(output_of(torch.tensor([[1.5, 1.0]])), labels[:1])["centre"].item() == pytest.approx(1.0)
    expected[0, 0] = 0.75
    torch.testing.assert_close(kept["loss.centre.global"], expected)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_slow_loop(seed):
    """Wen et al. 2016, Eq. 2 as a mean, and Eq. 4."""
    generator = torch.Generator().manual_seed(seed)
    weight, rate = 0.1 + seed, 0.2 * seed
    loss, kept = find(centre_weight=weight, centre_rate=rate)
    centres = [[0.0] * 4 for _ in range(3)]
    for _ in range(4):
        vectors, labels = torch.randn(6, 4, generator=generator), torch.randint(0, 3, (6,), generator=generator)
        rows = [*zip(vectors.double().tolist(), labels.tolist(), strict=True)]
        squares = [sum((x - c) ** 2 for x, c in zip(row, centres[label], strict=True)) for row, label in rows]
        assert loss(output_of(vectors), labels)["centre"].item() == pytest.approx(weight / 2 * sum(squares) / 6)
        for label, centre in enumerate(centres):
            own = [row for row, other in rows if other == label]
            for d in range(4):
                centre[d] -= rate * sum(centre[d] - row[d] for row in own) / (1 + len(own)) if own else 0
        torch.testing.assert_close(kept["loss.centre.global"].double(), torch.tensor(centres, dtype=torch.double))


def test_the_gradient_is_that_of_the_squared_distance_and_reaches_no_centre():
    loss, kept = find(centre_weight=0.5)
    features, labels = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 1, 2])
    for _ in range(2):
        before = kept.get("loss.centre.global", torch.zeros(3, 5)).clone()
        leaf = features.clone().requires_grad_()
        loss(output_of(leaf), labels)["centre"].backward()
        torch.testing.assert_close(leaf.grad, 0.5 * (features - before[labels]) / 4)
    assert not kept["loss.centre.global"].requires_grad


def test_each_part_has_centres_and_the_loss_is_their_mean():
    labels = torch.tensor([0, 1])
    one, other = torch.full((2, 3), 2.0), torch.full((2, 5), 1.0)
    loss, kept = find(centre_weight=1.0)
    # 3 · 4 and 5 · 1, halved.
    assert loss(output_of(one, halves=other), labels)["centre"].item() == pytest.approx((12 + 5) / 2 / 2)
    assert {key: tuple(value.shape) for key, value in kept.items()} == {
        "loss.centre.global": (3, 3),
        "loss.centre.halves": (3, 5),
    }


def test_the_default_weight_and_rate():
    loss, kept = find()
    assert loss(output_of(torch.ones(1, 4)), torch.tensor([1]))["centre"].item() == pytest.approx(5e-4 / 2 * 4)
    assert kept["loss.centre.global"][1].tolist() == [0.25] * 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(dtype):
    features, labels = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 0, 1, 1, 2, 2])
    (plain, expected), (mixed, found) = find(), find()
    for _ in range(2):
        cost = plain(output_of(features), labels)["centre"]
        with torch.autocast("cpu", dtype=dtype):
            assert torch.equal(mixed(output_of(features), labels)["centre"], cost)
    assert torch.equal(found["loss.centre.global"], expected["loss.centre.global"])


def test_there_is_a_centre_for_each_class_of_the_classifier():
    state = new_state(output_of(torch.ones(2, 5), classes=7), centre_weight=1.0)
    assert state["global"].shape == (7, 5)
    assert not state["global"].any()
