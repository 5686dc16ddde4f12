"""From a file to the array that a network sees."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.profiler import profile
from torchvision.transforms import v2

from ptlreid import views
from ptlreid.errors import DataError
from ptlreid.views import MEAN, STD, EvalView, TrainView, decode, resize, standardize


def view_image(view: EvalView | TrainView, path: Path, seed: int = 0) -> np.ndarray:
    """One file as the view shows it."""
    image = resize([decode(path)], view)[0]
    view.augment(image, np.random.default_rng(seed))
    return image


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 50, 3), dtype=np.uint8)).save(path)
    return path


def test_evaluation_is_torchvisions_resize_and_normalize(picture):
    with Image.open(picture) as image:
        expected = v2.Compose(
            [v2.PILToTensor(), v2.Resize((64, 32)), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
        )(image)
    images = torch.from_numpy(view_image(EvalView(64, 32), picture).copy())[None]
    # Versions of Pillow and torchvision differ in how they round: by one of 255 levels, in a fifth of the numbers.
    apart = (standardize(images)[0] - expected).abs() * torch.tensor(STD).view(3, 1, 1) * 255
    assert apart.max() < 1.01
    assert (apart > 0.01).float().mean() < 0.25


def test_standardising_is_the_formula_to_the_last_bit_in_any_mode():
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 8, 4, 3), dtype=np.uint8))
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    expected = torch.addcmul(-mean / std, images.float(), 1 / (255 * std)).permute(0, 3, 1, 2)
    views._constants.clear()
    with torch.inference_mode():  # comes first, and leaves no tensor that training cannot use
        assert torch.equal(standardize(images), expected)
    assert not any(constant.is_inference() for constant in views._constants[images.device])
    with torch.device("meta"):
        assert torch.equal(standardize(images), expected)
    compiled = torch.compile(standardize, backend="eager")
    torch.testing.assert_close(compiled(images), expected, rtol=0, atol=0)
    assert standardize(images.to("meta")).shape == (2, 3, 8, 4)


def test_a_second_batch_copies_no_constants():
    images = torch.zeros(2, 8, 4, 3, dtype=torch.uint8)
    standardize(images)
    with profile() as seen:
        standardize(images)
    # As one on a GPU, which would wait for it: torch.tensor(...) makes a tensor by lift_fresh.
    assert not {"aten::lift_fresh", "aten::reciprocal"} & {event.name for event in seen.events()}


def test_training_mirrors_with_the_given_probability(picture):
    plain = view_image(EvalView(64, 32), picture)
    assert np.array_equal(view_image(TrainView(64, 32, crop=0.0, flip=0.0, pad=0, erase=0.0), picture, 0), plain)
    assert np.array_equal(
        view_image(TrainView(64, 32, crop=0.0, flip=1.0, pad=0, erase=0.0), picture, 0), plain[:, ::-1]
    )
    view = TrainView(64, 32, crop=0.0, flip=0.25, pad=0, erase=0.0)
    mirrored = sum(not np.array_equal(view_image(view, picture, seed), plain) for seed in range(400))
    assert 70 <= mirrored <= 130  # 100 expected, and 3.5 standard deviations (8.7) either way


@pytest.mark.parametrize("size", [(64, 32), (70, 50), (256, 128), (31, 90)])
def test_resizing_is_pillows(picture, size):
    with Image.open(picture) as image:
        expected = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))
    np.testing.assert_allclose(view_image(EvalView(*size), picture).astype(int), expected.astype(int), atol=1)


def pillows_bicubic(image: Image.Image, height: int, width: int) -> np.ndarray:
    """The width first, as Pillow did in one call until version 13, which resizes first what shrinks."""
    across = image.resize((width, image.height), Image.Resampling.BICUBIC)
    return np.asarray(across.resize((width, height), Image.Resampling.BICUBIC)).astype(int)


@pytest.mark.parametrize("size", [(64, 32), (70, 50), (256, 128), (31, 90)])
def test_bicubic_resizing_is_pillows(picture, size):
    with Image.open(picture) as image:
        expected = pillows_bicubic(image, *size)
    difference = np.abs(view_image(EvalView(*size, "bicubic"), picture) - expected)
    assert difference.max() <= 2  # weights of the kernel have 15 bits, Pillow's 22
    assert (difference > 1).mean() < 1e-4


@pytest.mark.parametrize("size", [(64, 32), (19, 11)], ids=["up", "down"])
def test_bicubic_overshoot_is_cut_off_as_in_pillow(size):
    pixels = np.zeros((32, 16, 3), dtype=np.uint8)
    pixels[8:24, 4:12] = 255  # next to an edge, the kernel gives less than 0 and more than 255
    expected = pillows_bicubic(Image.fromarray(pixels), *size)
    np.testing.assert_allclose(resize([pixels], EvalView(*size, "bicubic"))[0].astype(int), expected, atol=1)


def coordinates(height: int, width: int) -> np.ndarray:
    """An image whose pixels hold their row and column."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[..., 0], image[..., 1] = np.arange(height)[:, None], np.arange(width)
    return image


def test_a_rectangle_crop_is_a_part_of_the_image_within_its_limits():
    image, view = coordinates(200, 100), TrainView(64, 32, crop=1.0, flip=0.0, pad=0, erase=0.0)
    cuts = [view.cut(image, np.random.default_rng(seed)) for seed in range(500)]
    for cut in cuts:
        top, left = cut[0, 0, :2]
        assert np.array_equal(cut, image[top : top + cut.shape[0], left : left + cut.shape[1]])
    heights, widths = np.array([cut.shape[:2] for cut in cuts if cut.shape != image.shape]).T
    assert len(heights) > 490  # three of four rectangles fit: all of ten tries fail once in a million
    # Rounding to pixels changes a side by half a pixel, and the narrowest is 65 pixels wide.
    assert heights.min() / widths.max() > 1
    assert ((heights / widths > 1.98) & (heights / widths < 3.03)).all()
    assert ((heights * widths > 0.63 * image.size / 3) & (heights * widths <= image.size / 3)).all()
    assert len({tuple(cut[0, 0, :2]) for cut in cuts}) > 100


def test_an_image_that_no_rectangle_fits_is_resized_as_it_is():
    image, view = coordinates(64, 128), TrainView(64, 32, crop=1.0, flip=0.0, pad=0, erase=0.0)
    # 64% of the area, twice as high as wide, would be 102 rows.
    assert all(view.cut(image, np.random.default_rng(seed)) is image for seed in range(20))


def test_a_rectangle_crop_is_as_frequent_as_asked_for():
    image, view = coordinates(200, 100), TrainView(64, 32, crop=0.25, flip=0.0, pad=0, erase=0.0)
    cut = sum(view.cut(image, np.random.default_rng(seed)) is not image for seed in range(400))
    assert 70 <= cut <= 130  # 100 expected, and 3.5 standard deviations (8.7) either way


def test_a_padded_crop_is_a_shift_with_black_borders(picture):
    plain = view_image(EvalView(64, 32), picture)
    framed = np.zeros((64 + 6, 32 + 6, 3), dtype=np.uint8)
    framed[3:-3, 3:-3] = plain
    shifts = {(top, left): framed[top : top + 64, left : left + 32] for top in range(7) for left in range(7)}
    found = set()
    for seed in range(600):
        image = view_image(TrainView(64, 32, crop=0.0, flip=0.0, pad=3, erase=0.0), picture, seed)
        found |= {place for place, shifted in shifts.items() if np.array_equal(image, shifted)}
    assert found == set(shifts)  # fixed seeds: 600 samples cover all 49 positions


def test_erasing_fills_one_rectangle_with_the_mean_colour(picture):
    plain = view_image(EvalView(64, 32), picture)
    shares = []
    for seed in range(200):
        image = view_image(TrainView(64, 32, crop=0.0, flip=0.0, pad=0, erase=1.0), picture, seed)
        changed = (image != plain).any(axis=2)
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        box = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (box == [124, 116, 104]).all()  # 255 times ImageNet's mean
        shares.append(box.shape[0] * box.shape[1] / (64 * 32))
    assert 0.015 < min(shares) < 0.05
    assert 0.3 < max(shares) < 0.42
    view = TrainView(64, 32, crop=0.0, flip=0.0, pad=0, erase=0.25)
    erased = sum(not np.array_equal(view_image(view, picture, seed), plain) for seed in range(400))
    assert 70 <= erased <= 130  # 100 expected, and 3.5 standard deviations (8.7) either way


@pytest.mark.parametrize("height", [70, 256])
def test_an_image_does_not_depend_on_those_it_is_resized_with(height):
    rng = np.random.default_rng(0)
    sizes = [(70, 50), (64, 32), (70, 50), (256, 128), (64, 32), (70, 50)]
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    together = resize(images, EvalView(height, 128))
    for image, one in zip(together, images, strict=True):
        assert np.array_equal(image, resize([one], EvalView(height, 128))[0])


def test_an_image_that_fits_is_a_copy():
    image = np.zeros((64, 32, 3), dtype=np.uint8)
    resize([image], EvalView(64, 32))[0][:] = 1
    assert not image.any()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / "image.tiff"
    Image.new("RGB", (10, 20), (200, 30, 40)).convert(mode).save(path)
    assert view_image(EvalView(20, 10), path).shape == (20, 10, 3)


@pytest.mark.parametrize("content", [b"", b"no image at all", None])
def test_a_file_that_cannot_be_decoded_is_named(tmp_path, picture, content):
    path = tmp_path / "broken.png"
    path.write_bytes(picture.read_bytes()[:500] if content is None else content)
    with pytest.raises(DataError, match=r"broken\.png: not an image that can be decoded"):
        decode(path)


def test_a_bilinear_view_is_described_as_by_earlier_versions():
    """Otherwise their cached features would be extracted again."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pixels = {"decoding": 2, "interpolation": "bilinear, antialiased", "mean": mean, "std": std}
    assert EvalView(64, 32).describe() == {"view": "eval", "height": 64, "width": 32, **pixels}


def test_a_view_describes_all_that_features_depend_on():
    about = EvalView(64, 32).describe()
    assert json.loads(json.dumps(about))["interpolation"].startswith("bilinear")
    assert about != EvalView(64, 33).describe()
    assert about["decoding"] == 2  # as image files are decoded since 0.2: features of 0.1 did not state it
    assert about != EvalView(64, 32, "bicubic").describe()
    train = TrainView(64, 32, crop=0.0, flip=0.5, pad=0, erase=0.5).describe()
    assert (train["view"], train["erase"], train["pad"]) == ("train", 0.5, 0)
