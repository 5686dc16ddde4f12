"""Sums of losses, and how losses get their settings."""

from __future__ import annotations

from math import log

import pytest
import torch

from ptlreid import losses
from ptlreid.errors import OptionError
from ptlreid.network_types import Output
from ptlreid.settings import FinetuneSettings

LABELS = torch.tensor([0, 0, 1, 1])
LINE = torch.tensor([[0.0], [3.0], [4.0], [10.0]])
OUTPUT = Output(LINE, logits={"a": torch.zeros(4, 2), "b": torch.zeros(4, 4)}, metric={"global": LINE})


def test_both_terms_under_their_names():
    # Equal scores cost ln 2 and ln 4. 0 and 3 against 4 and 10, margin 1.2: 0.2, 3.2, 6.2 and 0.2.
    terms = losses.find("ce+triplet", {"margin": 1.2})(OUTPUT, LABELS)
    assert {name: term.item() for name, term in terms.items()} == {
        "ce": pytest.approx((log(2) + log(4)) / 2),
        "triplet": pytest.approx((0.2 + 3.2 + 6.2 + 0.2) / 4),
    }


def test_each_loss_gets_its_own_settings():
    # Smoothed by 0.2 over two classes, 0.9 of the label is class 0's; scores (1, 0): 0.9 ln(1 + 1/e) + 0.1 ln(1 + e).
    output = Output(LINE[:1], logits={"pid": torch.tensor([[1.0, 0.0]])})
    settings = {"margin": 7.0, "label_smoothing": 0.2, "lr": 3.0}
    smooth = losses.find("ce", settings)(output, torch.tensor([0]))["ce"].item()
    assert smooth == pytest.approx(0.9 * 0.3132617 + 0.1 * 1.3132617, rel=1e-6)
    assert losses.find("triplet", settings)(OUTPUT, LABELS)["triplet"].item() == pytest.approx((6 + 9 + 12 + 6) / 4)


def test_the_smoothed_label_reaches_the_combination():
    output = Output(LINE, logits={"pid": torch.tensor([[1.0, 0.0]] * 4)}, metric={"global": LINE})
    terms = losses.find("ce+triplet", {"label_smoothing": 0.2})(output, torch.tensor([0, 0, 0, 0]))
    assert terms["ce"].item() == pytest.approx(0.9 * 0.3132617 + 0.1 * 1.3132617, rel=1e-6)


def test_a_loss_without_given_settings_has_its_defaults():
    # Margin 0.3: relu(0.3 + 3 - 4), 0.3 + 3 - 1, 0.3 + 6 - 1 and relu(0.3 + 6 - 7).
    assert losses.find("triplet", {})(OUTPUT, LABELS)["triplet"].item() == pytest.approx((0 + 2.3 + 5.3 + 0) / 4)


def test_the_former_name_of_a_sum_is_that_sum(tmp_path):
    chosen = {"images_per_identity": 4, "margin": 0.5}
    old = FinetuneSettings.resolve(None, loss="ce-triplet", **chosen)
    assert old == FinetuneSettings.resolve(None, loss="ce+triplet", **chosen)
    (tmp_path / "config.toml").write_text(old.to_toml().replace("ce+triplet", "ce-triplet"))
    assert FinetuneSettings.load(tmp_path / "config.toml") == old
    assert FinetuneSettings.resolve(tmp_path / "config.toml") == old


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("ce+tripet", r"loss = 'ce\+tripet': no such loss\. Did you mean 'triplet'\?"),
        ("ce+", r"loss = 'ce\+': no such loss\. Known: ce, "),
        ("ce+ce", r"loss = 'ce\+ce': expected different losses\. Leave out the one that is there twice\."),
    ],
)
def test_a_sum_that_is_none_is_refused(loss, message):
    with pytest.raises(OptionError, match=message):
        FinetuneSettings.resolve(None, loss=loss, images_per_identity=4)
