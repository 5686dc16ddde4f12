"""From a file to the array that a network sees."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from ptlreid.errors import DataError
from ptlreid.views import MEAN, STD, EvalView, TrainView, standardize


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 50, 3), dtype=np.uint8)).save(path)
    return path


def test_evaluation_is_torchvisions_resize_and_normalize(picture):
    with Image.open(picture) as image:
        expected = v2.Compose(
            [v2.Resize((64, 32)), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
        )(image)
    images = torch.from_numpy(EvalView(64, 32)(picture).copy())[None]
    torch.testing.assert_close(standardize(images)[0], expected, atol=1e-5, rtol=1e-5)


def test_training_mirrors_with_the_chance_that_is_asked_for(picture):
    plain = EvalView(64, 32)(picture)
    assert np.array_equal(TrainView(64, 32, flip=0.0)(picture, np.random.default_rng(0)), plain)
    assert np.array_equal(TrainView(64, 32, flip=1.0)(picture, np.random.default_rng(0)), plain[:, ::-1])
    view = TrainView(64, 32, flip=0.25)
    mirrored = sum(not np.array_equal(view(picture, np.random.default_rng(seed)), plain) for seed in range(400))
    assert 70 <= mirrored <= 130  # 100 expected, and 3.5 standard deviations (8.7) either way


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / "image.tiff"
    Image.new("RGB", (10, 20), (200, 30, 40)).convert(mode).save(path)
    assert EvalView(20, 10)(path).shape == (20, 10, 3)


@pytest.mark.parametrize("content", [b"", b"no image at all", None])
def test_a_file_that_cannot_be_decoded_is_named(tmp_path, picture, content):
    path = tmp_path / "broken.png"
    path.write_bytes(picture.read_bytes()[:500] if content is None else content)
    with pytest.raises(DataError, match=r"broken\.png: not an image that can be decoded"):
        EvalView(64, 32)(path)


def test_a_view_describes_all_that_features_depend_on():
    about = EvalView(64, 32).describe()
    assert json.loads(json.dumps(about))["interpolation"] == "bilinear"
    assert about != EvalView(64, 33).describe()
