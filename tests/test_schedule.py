"""Schedules, against torch's own stepped once per update."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, MultiStepLR, SequentialLR, StepLR

from ptlreid.engine import schedule

UPDATES, EPOCHS = 7, 12


def optimizer():
    return SGD([{"params": [nn.Parameter(torch.ones(1))], "lr": rate} for rate in (0.2, 2.0)], lr=1.0)


def rates(make, updates=UPDATES * EPOCHS):
    """The groups' rates at each update under the schedule that `make` gives."""
    groups = optimizer()
    steps = make(groups)
    found = []
    for _ in range(updates):
        found.append([group["lr"] for group in groups.param_groups])
        groups.step()
        steps.step()
    return torch.tensor(found, dtype=torch.float64)


def build(groups, **settings):
    usual = {"warmup_epochs": 0, "decay_every": 10, "decay_at": (), "decay_factor": 0.1}
    return schedule.build_schedule(groups, **usual | settings)


def ours(kind="step", **settings):
    return lambda groups: build(groups, kind=kind, updates_per_epoch=UPDATES, epochs=EPOCHS, **settings)


def same(mine, theirs):
    torch.testing.assert_close(rates(mine), rates(theirs), rtol=1e-12, atol=1e-15)


def test_steps_of_equal_length_equal_torchs():
    same(ours(decay_every=4, decay_factor=0.3), lambda groups: StepLR(groups, 4 * UPDATES, gamma=0.3))


def test_named_epochs_equal_torchs_milestones():
    milestones = [3 * UPDATES, 8 * UPDATES]
    same(ours(decay_at=[3, 8], decay_every=1), lambda groups: MultiStepLR(groups, milestones, gamma=0.1))


def test_the_cosine_equals_torchs_and_ends_at_zero():
    same(ours("cosine"), lambda groups: CosineAnnealingLR(groups, UPDATES * EPOCHS))
    end = rates(ours("cosine"), UPDATES * EPOCHS + 3)
    assert torch.equal(end[-3:], torch.zeros(3, 2, dtype=torch.float64))


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step")  # SequentialLR's own affair
def test_warm_up_then_cosine_equals_torchs_sequence():
    warm, rest = 2 * UPDATES, (EPOCHS - 2) * UPDATES

    def theirs(groups):
        first = LinearLR(groups, start_factor=0.01, total_iters=warm)
        return SequentialLR(groups, [first, CosineAnnealingLR(groups, rest)], milestones=[warm])

    same(ours("cosine", warmup_epochs=2), theirs)


def test_steps_after_a_warm_up_count_from_the_start_of_training():
    def theirs(groups):
        return torch.optim.lr_scheduler.ChainedScheduler(
            [LinearLR(groups, start_factor=0.01, total_iters=2 * UPDATES), MultiStepLR(groups, [5 * UPDATES])]
        )

    same(ours(decay_at=[5], warmup_epochs=2), theirs)


def test_the_papers_rate_falls_tenfold_every_ten_epochs():
    groups = SGD([nn.Parameter(torch.ones(1))], lr=0.01)
    steps = build(groups, kind="step", updates_per_epoch=3, epochs=50)
    found = []
    for _ in range(63):
        found.append(groups.param_groups[0]["lr"])
        groups.step()
        steps.step()
    assert found == pytest.approx([0.01] * 30 + [0.001] * 30 + [0.0001] * 3)


@pytest.mark.parametrize("settings", [{"decay_every": 2}, {"kind": "cosine", "warmup_epochs": 3}])
def test_a_saved_schedule_resumes_with_equal_rates(settings, tmp_path):
    straight = rates(ours(**settings))
    groups = optimizer()
    steps = ours(**settings)(groups)
    for _ in range(25):
        groups.step()
        steps.step()
    torch.save((groups.state_dict(), steps.state_dict()), tmp_path / "state.pt")
    groups = optimizer()
    steps = ours(**settings)(groups)
    for part, state in zip((groups, steps), torch.load(tmp_path / "state.pt", weights_only=True), strict=True):
        part.load_state_dict(state)
    for expected in straight[25:]:
        assert [group["lr"] for group in groups.param_groups] == expected.tolist()
        groups.step()
        steps.step()


@pytest.mark.parametrize("kind", ["step", "cosine"])
def test_a_schedule_of_no_epochs_or_of_warm_up_only(kind):
    assert rates(lambda groups: build(groups, kind=kind, updates_per_epoch=1, epochs=0), 1).tolist() == [[0.2, 2]]
    up = rates(lambda groups: build(groups, kind=kind, updates_per_epoch=2, epochs=2, warmup_epochs=2), 4)
    assert up[:, 1].tolist() == pytest.approx([2 * (0.01 + 0.99 * update / 4) for update in range(4)])
