"""Eq. 4, by hand."""

from __future__ import annotations

import pytest
import torch

import ptlreid.losses
from ptlreid import plugins
from ptlreid.losses._std import std


def test_terms_of_two_features_are_those_worked_by_hand():
    student, teacher = torch.tensor([[1.0, 2.0], [0.0, -1.0]]), torch.tensor([[1.0, 5.0], [-2.0, 0.0]])
    # |0| + |-3| + |2| + |-1| = 6 over four numbers: 1.5. Of it 0.8, and of a cross-entropy of 2 the rest, 0.2.
    terms = std({"ce": torch.tensor(2.0)}, student, teacher, 0.8)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx({"ce": 0.4, "l1": 1.2})
    assert sum(terms.values()).item() == pytest.approx(1.6)


def test_every_term_of_the_students_own_has_the_same_share():
    own = {"ce": torch.tensor(2.0), "triplet": torch.tensor(4.0)}
    terms = std(own, torch.zeros(1, 3), torch.zeros(1, 3), 0.25)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx({"ce": 1.5, "triplet": 3.0, "l1": 0.0})


def test_the_gradient_of_a_feature_is_its_sign_over_their_number():
    student = torch.tensor([[1.0, 2.0], [0.0, -1.0]], requires_grad=True)
    std({}, student, torch.tensor([[0.5, 5.0], [-2.0, 0.0]]), 0.8)["l1"].backward()
    assert student.grad is not None
    assert student.grad.tolist() == pytest.approx([pytest.approx([0.2, -0.2]), pytest.approx([0.2, -0.2])])


def test_at_the_ends_one_side_has_no_gradient():
    for weight, first, second in ((1.0, 0.0, 1.0), (0.0, 1.0, 0.0)):
        score, feature = torch.tensor(3.0, requires_grad=True), torch.ones(1, 1, requires_grad=True)
        sum(std({"ce": score}, feature, torch.zeros(1, 1), weight).values()).backward()
        assert (score.grad.item(), feature.grad.item()) == (first, second)


def test_half_precision_features_are_compared_in_float32():
    student, teacher = torch.full((1, 4), 1.0), torch.full((1, 4), 1.0 + 1 / 512)
    assert std({}, student.bfloat16(), teacher, 1.0)["l1"].item() == pytest.approx(1 / 512)


def test_it_is_no_loss_by_name():
    assert not [name for name in plugins.names(ptlreid.losses) if "std" in name]
