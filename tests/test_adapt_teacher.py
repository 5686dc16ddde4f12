"""The moving average of a network."""

from __future__ import annotations

import itertools

import pytest
import torch
from conftest import tiny_network
from torch import nn

from ptlreid.adapt.teacher import build_teacher
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
    student = OneWeight(0.0)
    teacher = build_teacher(student, decay=decay)
    for value, expected in [(11.0, 9.0), (1.0, second)]:
        student.set(value)
        teacher.update_parameters(student)
        assert teacher.module.weight.item() == pytest.approx(expected)
        assert teacher.module.norm.running_var.item() == pytest.approx(expected)
        assert student.weight.item() == value


def test_the_share_that_is_left_grows_up_to_the_decay():
    student = OneWeight(1.0)
    teacher = build_teacher(student, decay=0.5)
    student.set(0.0)
    weights = [1.0]
    for _ in range(10):
        teacher.update_parameters(student)
        weights.append(teacher.module.weight.item())
    shares = [after / before for before, after in itertools.pairwise(weights)]
    assert shares == pytest.approx([2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, 0.5, 0.5, 0.5])


def test_the_teacher_starts_as_the_student_is_and_learns_nothing_itself():
    student = tiny_network().train()
    teacher = build_teacher(student, decay=0.999)
    torch.testing.assert_close(teacher.module.state_dict(), student.state_dict(), rtol=0, atol=0)
    assert not teacher.module.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert student.training
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_latent_states_of_the_teacher_stay_zero():
    images = torch.randn(4, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    student = tiny_network().train()
    student(images)
    assert memory_state(student)
    teacher = build_teacher(student, decay=0.999)
    assert memory_state(teacher) == {}
    student(images)
    teacher.update_parameters(student)
    teacher.module.features(images)
    assert memory_state(teacher) == {}
    assert not any("state" in name for name in teacher.state_dict())


def test_a_teacher_resumes_from_its_state():
    student = OneWeight(0.0)
    teacher = build_teacher(student, decay=0.999)
    student.set(11.0)
    teacher.update_parameters(student)
    resumed = build_teacher(student, decay=0.999)
    resumed.load_state_dict(teacher.state_dict())
    student.set(1.0)
    for each in (teacher, resumed):
        each.update_parameters(student)
    torch.testing.assert_close(resumed.state_dict(), teacher.state_dict(), rtol=0, atol=0)
    assert resumed.module.weight.item() == pytest.approx(3.0)
