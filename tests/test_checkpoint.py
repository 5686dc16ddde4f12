"""Checkpoints that are damaged, edited, or of another network."""

from __future__ import annotations

import os
import zipfile

import pytest
import torch
from damage import damage_examples, damaged, within_seconds
from hypothesis import given
from hypothesis import strategies as st

from ptlreid import models
from ptlreid.engine import checkpoint
from ptlreid.engine.checkpoint import Training
from ptlreid.errors import CheckpointError
from ptlreid.models import bconv
from ptlreid.models.average import Average
from ptlreid.models.bconv import memory_state
from ptlreid.network_types import NetworkSpec


def make_training(classes: int = 4, **fields) -> Training:
    """A small network after one update of Adam, whose state has a tensor for each parameter."""
    network = models.build(NetworkSpec("tiny", True, "slot", classes, 64, 32), seed=1)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    sum(parameter.sum() for parameter in network.parameters()).backward()
    optimizer.step()
    network(torch.randn(2, 3, 64, 32))  # fills the latent states
    return Training(network, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 2), **fields)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("saved") / "checkpoint.pt"
    checkpoint.save(make_training(epoch=3, step=2, best=0.5, stale=1, history_bytes=99), path)
    return path.read_bytes()


@pytest.fixture
def write(saved, tmp_path):
    """Write the checkpoint with `changed` fields, with right checksums."""
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(saved)

    def write(**changed):
        torch.save(torch.load(path, weights_only=True) | changed, path)
        return path

    return write


def state_of(training: Training) -> dict:
    return {
        "network": training.network.state_dict(),
        "optimizer": training.optimizer.state_dict()["state"],
        "plain": [getattr(training, name) for name in checkpoint._PLAIN],
    }


@pytest.fixture(scope="module")
def expected(saved, tmp_path_factory) -> dict:
    path = tmp_path_factory.mktemp("whole") / "checkpoint.pt"
    path.write_bytes(saved)
    training = make_training()
    checkpoint.load(training, path)
    assert (training.epoch, training.step, training.best) == (3, 2, 0.5)
    return state_of(training)


@damage_examples(0.5)
@given(data=st.data())
def test_a_damaged_checkpoint_is_one_message_or_gives_the_same_state(saved, expected, tmp_path, data):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(data.draw(damaged(saved)))
    training = make_training()
    with within_seconds():
        try:
            checkpoint.load(training, path)
        except CheckpointError as error:
            assert str(error).startswith(f"{path}: ")
            assert str(error).endswith("Start another run (--name).")
            assert "weights_only" not in str(error)
            return
    torch.testing.assert_close(state_of(training), expected, rtol=0, atol=0)


def test_one_changed_bit_of_a_weight_is_found(saved, tmp_path):
    """torch itself loads such a file without a word."""
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(saved)
    with zipfile.ZipFile(path) as archive:
        tensors = [info for info in archive.infolist() if "/data/" in info.filename]
    largest = max(tensors, key=lambda info: info.file_size)
    content = bytearray(saved)
    content[largest.header_offset + largest.file_size] ^= 1  # after a header of some 100 bytes
    path.write_bytes(content)
    torch.load(path, weights_only=True)
    with pytest.raises(CheckpointError, match=r"cannot be read \(.*checksum of .*/data/\d+ is wrong\)\. Start another"):
        checkpoint.load(make_training(), path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epoch": "3"}, "epoch = '3': expected a valid integer"),
        ({"step": -1}, "step = -1: expected greater than or equal to 0"),
        ({"best": float("nan")}, "best = nan: expected a finite number"),
        ({"cells": {"a": 1}}, r"cells\.a = 1: expected a JSON object"),
        ({"network": {"a": 1}}, r"network\.a = 1: expected an instance of Tensor"),
        ({"generators": []}, r"generators = \[\]: list should have at least 1 item"),
        ({"generators": [[]]}, r"generators\[0\] = \[\]: list should have at least 1 item"),
        ({"more": 1}, "more is no key of this file"),
        ({"schema": 1}, "schema 1, expected 3"),
        ({"schema": None}, "schema = None: expected"),
        ({"network": {}}, "does not fit the network and settings of the run"),
        ({"optimizer": {"state": 3}}, r"does not fit .*param_groups"),
        ({"generators": [[torch.zeros(3)]]}, "does not fit .*RNG state"),
    ],
    ids=str,
)
def test_fields_that_are_missing_or_wrong_are_named(write, changed, message):
    with pytest.raises(CheckpointError, match=rf"checkpoint\.pt: {message}.*[Ss]tart another run \(--name\)\."):
        checkpoint.load(make_training(), write(**changed))


def as_schema_2(content: dict, processes: int) -> dict:
    """A checkpoint as version 0.2 wrote it before `memory` and `generators` were fields of their own."""
    own = {"memory": content.pop("memory"), "generators": content.pop("generators")[0]}
    return content | {"schema": 2, "processes": [own] * processes}


def test_schema_2_of_one_process_gives_the_same_state(write, expected):
    path = write()
    content = torch.load(path, weights_only=True)
    memory = content["memory"]
    torch.save(as_schema_2(content, 1), path)
    training = make_training()
    bconv.reset_memory(training.network)
    checkpoint.load(training, path)
    torch.testing.assert_close(state_of(training), expected, rtol=0, atol=0)
    torch.testing.assert_close(memory_state(training.network), memory, rtol=0, atol=0)
    assert len(training.generators) == 1


def test_schema_2_of_several_processes_is_refused_as_their_batches_were_others(write):
    path = write()
    torch.save(as_schema_2(torch.load(path, weights_only=True), 2), path)
    with pytest.raises(CheckpointError, match=r"schema 2, expected 3\. Resume with the version"):
        checkpoint.load(make_training(), path)


def test_a_missing_field_is_named(write, tmp_path):
    content = torch.load(write(), weights_only=True)
    del content["stale"]
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: stale is missing\. Start another run"):
        checkpoint.load(make_training(), tmp_path / "checkpoint.pt")


def test_a_checkpoint_without_the_average_of_a_run_that_has_one_is_refused(write):
    training = make_training()
    training.average = Average(training.network, decay=0.9)
    with pytest.raises(CheckpointError, match="does not fit the network and settings of the run"):
        checkpoint.load(training, write())


def test_a_checkpoint_of_another_network_is_refused(write):
    with pytest.raises(CheckpointError, match=r"does not fit the network .*size mismatch.*Start another run"):
        checkpoint.load(make_training(classes=5), write())


def test_the_optimisers_state_of_another_network_is_refused(write):
    """torch takes it, and its next update would end in an error."""
    state = make_training(classes=5).optimizer.state_dict()
    with pytest.raises(CheckpointError, match=r"does not fit .*exp_avg of shape \(5, \d+\), expected \(4, \d+\)"):
        checkpoint.load(make_training(), write(optimizer=state))


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_a_folder_or_pipe_in_its_place_is_not_opened(tmp_path, make):
    make(tmp_path / "checkpoint.pt")
    with (
        within_seconds(),
        pytest.raises(CheckpointError, match=r"checkpoint\.pt: a (folder|pipe or device), expected .* Start another"),
    ):
        checkpoint.load(make_training(), tmp_path / "checkpoint.pt")


def test_a_list_of_tensors_is_no_checkpoint(tmp_path):
    torch.save([torch.zeros(3)], tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: found \[tensor.*, expected a JSON object\. Start"):
        checkpoint.load(make_training(), tmp_path / "checkpoint.pt")
