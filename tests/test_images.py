"""Batches of images, whichever process loads them."""

from __future__ import annotations

import multiprocessing
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ptlreid import datasets
from ptlreid.errors import DataError
from ptlreid.images import load_batches
from ptlreid.records import Records
from ptlreid.views import EvalView, TrainView, decode

VIEW = TrainView(64, 32, flip=0.5, pad=0, erase=0.0)


@pytest.fixture
def train(market_folder) -> Records:
    return datasets.load("market", market_folder.parent).train


def test_batches_come_in_the_order_asked_for(train):
    rows = [np.array([5, 0, 3]), np.array([1])]
    batches = list(load_batches(train.paths, EvalView(64, 32), rows, workers=0))
    assert [batch.rows.tolist() for batch in batches] == [[5, 0, 3], [1]]
    assert batches[0].images.shape == (3, 64, 32, 3)
    assert np.array_equal(batches[0].images[1].numpy(), decode(train.paths[0]))


def test_augmentation_depends_on_seed_and_row_alone(train):
    rows = np.arange(16)

    def images(parts: list[np.ndarray], seed: tuple[int, ...], workers: int = 0) -> torch.Tensor:
        return torch.cat(
            [batch.images for batch in load_batches(train.paths, VIEW, parts, augmentation_seed=seed, workers=workers)]
        )

    expected = images([rows], (0, 1))
    assert torch.equal(images(np.array_split(rows, 5), (0, 1)), expected)
    assert torch.equal(images(np.array_split(rows, 4), (0, 1), workers=2), expected)
    assert torch.equal(images([rows[::-1]], (0, 1)).flip(0), expected)
    assert not torch.equal(images([rows], (0, 2)), expected)


def test_the_global_generators_are_left_alone(train):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    list(load_batches(train.paths, VIEW, [np.arange(4)], workers=0, augmentation_seed=(0,)))
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_one_clear_message_from_any_process(tmp_path, workers):
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"no image")
    records = Records.make([Path(path)], [1], [1], "some")
    with pytest.raises(DataError) as error:
        list(load_batches(records.paths, EvalView(64, 32), [np.array([0])], workers=workers))
    assert str(error.value).startswith(f"{path}: not an image")
    assert "Traceback" not in str(error.value)


class StuckView(EvalView):
    """Keeps the loader busy until it is killed."""

    def augment(self, image: np.ndarray, rng: np.random.Generator) -> None:
        time.sleep(60)


def test_a_killed_loader_process_is_one_clear_message(train):
    def kill_children():
        for child in multiprocessing.active_children():  # and no other process that Python keeps
            child.kill()

    killer = threading.Timer(0.5, kill_children)
    killer.start()
    with pytest.raises(DataError, match=r"A DataLoader worker died .* fewer --workers"):
        list(load_batches(train.paths, StuckView(64, 32), [np.array([0])], workers=1))
    killer.join()
