"""Batches of images, whichever process loads them."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_image

from ptlreid import datasets
from ptlreid.errors import DataError
from ptlreid.images import Batch, load_batches, load_seeded
from ptlreid.records import Records
from ptlreid.views import EvalView, TrainView, decode

VIEW = TrainView(64, 32, crop=0.0, flip=0.5, pad=0, erase=0.0)
CROPS = TrainView(64, 32, crop=0.5, flip=0.5, pad=0, erase=0.0)


@pytest.fixture
def train(market_folder) -> Records:
    return datasets.load("market", market_folder.parent).train


def test_batches_come_in_the_order_asked_for(train):
    rows = [np.array([5, 0, 3]), np.array([1])]
    batches = list(load_batches(train.paths, EvalView(64, 32), rows, workers=0))
    assert [batch.rows.tolist() for batch in batches] == [[5, 0, 3], [1]]
    assert batches[0].images.shape == (3, 64, 32, 3)
    assert np.array_equal(batches[0].images[1].numpy(), decode(train.paths[0]))


@pytest.mark.parametrize("view", [VIEW, CROPS], ids=["plain", "crops"])
def test_augmentation_depends_on_seed_and_row_alone(train, view):
    rows = np.arange(16)

    def images(parts: list[np.ndarray], seed: tuple[int, ...], workers: int = 0) -> torch.Tensor:
        return torch.cat(
            [batch.images for batch in load_batches(train.paths, view, parts, augmentation_seed=seed, workers=workers)]
        )

    expected = images([rows], (0, 1))
    assert torch.equal(images(np.array_split(rows, 5), (0, 1)), expected)
    assert torch.equal(images(np.array_split(rows, 4), (0, 1), workers=2), expected)
    assert torch.equal(images([rows[::-1]], (0, 1)).flip(0), expected)
    assert not torch.equal(images([rows], (0, 2)), expected)


def test_the_random_numbers_of_a_view_are_the_same_with_and_without_crops(tmp_path):
    for number in range(8):  # wide images: no rectangle fits, and all of them remain
        write_image(tmp_path / f"{number}.png", number, height=32, width=64)
    paths = sorted(tmp_path.iterdir())
    plain, crops = (
        TrainView(64, 32, crop=0.0, flip=0.5, pad=4, erase=0.5),
        TrainView(64, 32, crop=1.0, flip=0.5, pad=4, erase=0.5),
    )
    expected, found = (next(load_batches(paths, view, [np.arange(8)], workers=0)).images for view in (plain, crops))
    assert torch.equal(found, expected)


class Recording(TrainView):
    """Keeps the first random number of each use instead of changing the image."""

    def cut(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        FIRST["cut"].append(rng.random())
        return image

    def augment(self, image: np.ndarray, rng: np.random.Generator) -> None:
        FIRST["augment"].append(rng.random())


FIRST: dict[str, list[float]] = {"cut": [], "augment": []}


def test_the_random_numbers_of_crops_are_not_those_of_the_rest():
    """Otherwise a part of the image would always be flipped."""
    view, image = Recording(64, 32, crop=1.0, flip=0.5, pad=0, erase=0.0), np.zeros((64, 32, 3), dtype=np.uint8)
    list(load_batches([image] * 20, view, [np.arange(20)], workers=0))
    assert len(set(FIRST["cut"]) | set(FIRST["augment"])) == 40


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


class ProcessView(EvalView):
    """Writes the number of its process into the image."""

    def augment(self, image: np.ndarray, rng: np.random.Generator) -> None:
        image.reshape(-1).view(np.int64)[0] = os.getpid()


def test_each_batch_has_its_own_seed_and_all_are_loaded_by_the_same_processes(train):
    rows = np.split(np.arange(16), 4)
    seeded = [((0, epoch), part) for epoch in range(3) for part in rows]
    batches = load_seeded(train.paths, VIEW, seeded, workers=2)
    for epoch in range(3):
        expected = load_batches(train.paths, VIEW, rows, augmentation_seed=(0, epoch), workers=0)
        assert all(torch.equal(next(batches).images, batch.images) for batch in expected)
    assert next(batches, None) is None
    numbered = load_seeded(train.paths, ProcessView(64, 32), seeded, workers=2)
    processes = [batch.images.numpy().reshape(-1).view(np.int64)[0] for batch in numbered]
    assert len(set(processes)) == 2
    assert os.getpid() not in processes


@pytest.mark.parametrize("consumed", [0, 1, 3])
def test_a_loader_that_is_closed_leaves_no_process(train, consumed):
    batches = load_batches(train.paths, VIEW, [np.arange(4)] * 50, workers=2)
    for _ in range(consumed):
        next(batches)
    assert len(multiprocessing.active_children()) == (2 if consumed else 0)
    batches.close()
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(("device", "pinned"), [(None, 0), ("cpu", 0), ("cuda:1", 2)])
def test_batches_are_pinned_for_the_gpu_that_computes(train, monkeypatch, device, pinned):
    calls, entered = [], []

    class OnDevice(nullcontext):
        def __init__(self, device) -> None:
            super().__init__()
            entered.append(str(device))

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr("torch.cuda.device", OnDevice)
    monkeypatch.setattr(Batch, "pin_memory", lambda batch: calls.append(1) or batch)
    chosen = None if device is None else torch.device(device)
    list(load_batches(train.paths, VIEW, [np.arange(4)] * 2, workers=0, pin_for=chosen))
    assert (len(calls), entered) == (pinned, ["cuda:1"] if pinned else [])


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
