"""Batch norm in training that normalises each image by the images of its camera in the batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ptlreid.models import camera_norm
from ptlreid.models.camera_norm import normalising_by_camera

CAMERAS = torch.tensor([5, 2, 5, 2, 5, 9])


@pytest.fixture
def norm() -> nn.Sequential:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return nn.Sequential(norm)


def maps() -> torch.Tensor:
    return torch.randn(6, 4, 3, 2, generator=torch.Generator().manual_seed(1)) * 2 + 1


def test_each_camera_is_normalised_as_a_batch_of_its_own(norm, monkeypatch):
    monkeypatch.setattr(camera_norm, "BATCH_SHRINKAGE", 0.0)
    with normalising_by_camera(norm, CAMERAS):
        found = norm(maps())
    for camera in (2, 5, 9):
        rows = camera == CAMERAS
        torch.testing.assert_close(found[rows], norm(maps()[rows]))


def test_the_batch_counts_as_one_more_image_of_each_camera(norm):
    with normalising_by_camera(norm, CAMERAS):
        found = norm(maps())
    own, batch = maps()[CAMERAS == 2], maps()  # two images: 2 / 3 and 1 / 3
    mean = (2 * own.mean(dim=(0, 2, 3)) + batch.mean(dim=(0, 2, 3))) / 3
    square = (2 * own.square().mean(dim=(0, 2, 3)) + batch.square().mean(dim=(0, 2, 3))) / 3
    scale = norm[0].weight / (square - mean**2 + norm[0].eps).sqrt()
    expected = (own - mean[:, None, None]) * scale[:, None, None] + norm[0].bias[:, None, None]
    torch.testing.assert_close(found[CAMERAS == 2], expected)


def test_a_single_camera_is_a_batch_as_any_other(norm):
    images = maps().requires_grad_()
    norm(images).square().sum().backward()
    expected, images.grad = images.grad, None
    with normalising_by_camera(norm, torch.zeros(6, dtype=torch.int64)):
        found = norm(images)
    found.square().sum().backward()  # the context has ended by then
    torch.testing.assert_close(found, norm(images))
    torch.testing.assert_close(images.grad, expected)


def test_running_statistics_and_vectors_are_left_alone(norm):
    network = nn.Sequential(norm, nn.Flatten(), nn.BatchNorm1d(24))
    with normalising_by_camera(network, CAMERAS):
        found = network(maps())
        vectors = network[1](norm(maps()))
    assert norm[0].num_batches_tracked == 0
    assert torch.equal(norm[0].running_mean, torch.zeros(4))
    assert network[2].num_batches_tracked == 1
    torch.testing.assert_close(found, network[2](vectors))
