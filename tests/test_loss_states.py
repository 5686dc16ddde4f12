"""What losses keep between batches: where it is kept, saved and read again, and what is refused."""

from __future__ import annotations

import pytest
import torch
from test_resume import At, Fault, fault, make_settings

from ptlreid import datasets, losses
from ptlreid.errors import CheckpointError
from ptlreid.network_types import Output
from ptlreid.progress import Silent
from ptlreid.runs import RunFolder
from ptlreid.workflows.finetune import finetune

SETTINGS = {"loss": "ce+xbm+centre", "xbm_size": 6, "epochs": 1}


def output_of(*values: float) -> Output:
    vectors = torch.tensor([[value, 1.0] for value in values])
    return Output(vectors, logits={"pid": torch.zeros(len(values), 3)}, metric={"global": vectors})


LABELS = torch.tensor([0, 1])


def begin(states, checkpoint=None):
    settings = {"xbm_size": 4, "xbm_start": 1, "centre_weight": 1.0}
    return losses.find("xbm+centre", settings, states, checkpoint)


def test_states_that_were_kept_are_taken_up_by_another_loss(tmp_path):
    first, second = {}, {}
    whole, half = begin(first), begin(second)
    expected = [whole(output_of(*values), LABELS) for values in ((0, 1), (2, 3), (4, 5))]
    half(output_of(0, 1), LABELS)
    assert second.keys() == {
        f"loss.{key}" for key in ("xbm.queue.global", "xbm.labels", "xbm.batches", "centre.global")
    }
    resumed = begin(second, tmp_path / "checkpoint.pt")
    assert [resumed(output_of(*values), LABELS) for values in ((2, 3), (4, 5))] == expected[1:]
    assert all(torch.equal(second[key], value) for key, value in first.items())


def test_without_a_place_to_keep_it_each_loss_has_a_state_of_its_own():
    one, other = losses.find("centre", {}), losses.find("centre", {})
    expected = one(output_of(0, 1), LABELS)
    one(output_of(0, 1), LABELS)
    assert other(output_of(0, 1), LABELS) == expected


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"loss.centre.global": None}, r"centre: nothing, expected global"),
        ({"loss.xbm.labels": None}, r"xbm: batches, queue\.global, expected batches, labels, queue\.global"),
        ({"loss.xbm.more": torch.zeros(1)}, r"xbm: batches, labels, more, queue\.global, expected"),
        (
            {"loss.centre.global": torch.zeros(5, 2)},
            r"centre: global is float32 of shape \(5, 2\), expected float32 of shape \(3, 2\)",
        ),
        (
            {"loss.xbm.labels": torch.zeros(4)},
            r"xbm: labels is float32 of shape \(4,\), expected int64 of shape \(4,\)",
        ),
    ],
    ids=["none", "missing", "unknown", "shape", "type"],
)
def test_states_of_another_shape_are_refused(tmp_path, changed, reason):
    states = {}
    begin(states)(output_of(0, 1), LABELS)
    states = {key: value for key, value in (states | changed).items() if value is not None}
    path = tmp_path / "checkpoint.pt"
    message = (
        rf"checkpoint\.pt: does not fit the network .* \(state of the loss {reason}.*\)\. Start another run \(--name\)"
    )
    with pytest.raises(CheckpointError, match=message):
        begin(states, path)(output_of(2, 3), LABELS)


def test_a_checkpoint_with_another_state_ends_the_run_with_a_message_and_is_left_alone(tmp_path, market_folder):
    splits, run = datasets.load("market", market_folder.parent), RunFolder(tmp_path / "run")
    with pytest.raises(Fault):
        finetune(make_settings(checkpoint_minutes=0.0, **SETTINGS), splits, run, At(3, fault))
    content = torch.load(run.checkpoint, weights_only=True)
    assert content["extra"]["loss.xbm.batches"] == 2
    for extra in ({"extra": {key: value[:3] for key, value in content["extra"].items() if value.dim()}}, {}):
        torch.save({key: value for key, value in content.items() if key != "extra"} | extra, run.checkpoint)
        before = run.checkpoint.read_bytes()
        with pytest.raises(CheckpointError, match=r"checkpoint\.pt: does not fit the network .* loss xbm: "):
            finetune(make_settings(**SETTINGS), splits, run, Silent())
        assert run.checkpoint.read_bytes() == before


def test_a_checkpoint_without_states_resumes_a_loss_that_has_none(tmp_path, market_folder):
    splits, run = datasets.load("market", market_folder.parent), RunFolder(tmp_path / "run")
    with pytest.raises(Fault):
        finetune(make_settings(checkpoint_minutes=0.0, epochs=1), splits, run, At(3, fault))
    assert "extra" not in torch.load(run.checkpoint, weights_only=True)
    finetune(make_settings(epochs=1), splits, run, Silent())
    assert run.finished
