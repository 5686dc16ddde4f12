"""Cross-entropy over heads, by hand."""

from __future__ import annotations

from math import exp, log

import pytest
import torch

from ptlreid.losses import ce
from ptlreid.network_types import Output


def test_two_equal_scores_give_ln_2():
    output = Output(torch.zeros(1, 4), {"pid": torch.zeros(1, 2)})
    assert ce.loss(output, torch.tensor([1]), label_smoothing=0.0)["ce"].item() == pytest.approx(log(2))


def test_the_mean_over_images_and_heads():
    # Head a: scores (1, 0) for labels 0 and 1 cost ln(1 + e^-1) and ln(1 + e); head b: three equal scores cost ln 3.
    logits = {"a": torch.tensor([[1.0, 0.0], [1.0, 0.0]]), "b": torch.zeros(2, 3)}
    expected = ((log(1 + exp(-1)) + log(1 + exp(1))) / 2 + log(3)) / 2
    terms = ce.loss(Output(torch.zeros(2, 4), logits), torch.tensor([0, 1]), label_smoothing=0.0)
    assert terms["ce"].item() == pytest.approx(expected)
