"""Where two images agree: the shares of positions in the inner product of their features."""

from __future__ import annotations

import re
from base64 import b64decode
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_network, write_image
from PIL import Image, ImageOps
from torch import nn

from ptlreid import datasets, models
from ptlreid.attention import Reading, explain_hits, read_positions
from ptlreid.errors import OptionError
from ptlreid.features import Extractor
from ptlreid.models import weights
from ptlreid.models.camera_statistics import CameraStatistics
from ptlreid.network_types import NetworkSpec
from ptlreid.progress import Silent
from ptlreid.reports.crops import embed_spotlight
from ptlreid.runs import RunFolder
from ptlreid.settings import EvaluateSettings, FinetuneSettings
from ptlreid.views import EvalView

LARGE = EvalView(128, 96)  # maps of 4×3


def make(*, neck: str = "none", pool: str = "avg", **settings: object) -> Extractor:
    """Of the tiny backbone with cells; batch norm, the neck included, with random statistics."""
    torch.manual_seed(0)
    network = models.find("tiny").network(NetworkSpec("tiny", True, "slot", 4, 128, 96, neck=neck, pool=pool))
    for norm in (one for one in network.modules() if isinstance(one, nn.BatchNorm1d | nn.BatchNorm2d)):
        nn.init.normal_(norm.running_mean, std=0.1)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.normal_(norm.bias, std=0.1)
    return Extractor.from_network(network, LARGE, EvaluateSettings.resolve(None, device="cpu", **settings))


@pytest.fixture
def images(tmp_path) -> list[Path]:
    paths = [tmp_path / f"{number}.jpg" for number in range(3)]
    for number, path in enumerate(paths):
        write_image(path, number, height=128, width=96)
    return paths


def test_the_share_of_a_position_by_hand():
    positions = np.array([[[1.0, 0.0], [2.0, 1.0]], [[0.0, -3.0], [0.0, 1.0]]])  # 2×2 positions, features of width 2
    # Inner products with (1, 2): 1, 4, -6 and 2; without what is negative, over 4.
    reading = Reading(positions.mean(axis=(0, 1)), positions)
    assert reading.agree(np.array([1.0, 2.0])).tolist() == [[0.25, 1.0], [0.0, 0.5]]
    assert reading.agree(np.array([0.0, 0.0])).tolist() == [[0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("neck", ["none", "bn"])
def test_with_a_linear_head_the_shares_add_up_to_the_inner_product(images, neck, flip):
    extractor = make(neck=neck, flip=flip, normalize=False)
    features = extractor.extract(images).matrix
    readings = read_positions(extractor, images)
    assert [*readings] == images
    for path, feature in zip(images, features, strict=True):
        assert readings[path].positions.shape == (4, 3, 32)
        np.testing.assert_allclose(readings[path].feature, feature, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(readings[path].positions.mean(axis=(0, 1)), feature, rtol=1e-4, atol=1e-5)
    shares = readings[images[0]].positions @ features[1] / 12
    assert shares.std() > 1e-3 * abs(shares.mean())
    assert shares.sum() == pytest.approx(features[0] @ features[1], rel=1e-3)


def test_a_position_is_that_of_the_image(images):
    (reading,) = read_positions(make(), images[:1]).values()
    pixels = np.array(Image.open(images[0]))
    pixels[-8:] = 0  # the map has one position for each 32×32 pixels: the lowest row sees most of the change
    Image.fromarray(pixels).save(images[1].with_suffix(".png"))
    (other,) = read_positions(make(), [images[1].with_suffix(".png")]).values()
    change = np.abs(reading.positions - other.positions).mean(axis=(1, 2))
    assert change.argmax() == 3


def test_the_mirror_image_has_the_mirrored_shares(images):
    mirrored = images[0].with_suffix(".png")
    ImageOps.mirror(Image.open(images[0])).save(mirrored)
    upright, other = read_positions(make(flip=True), [images[0], mirrored]).values()
    np.testing.assert_allclose(other.positions, upright.positions[:, ::-1], rtol=1e-3, atol=1e-4)
    alone = read_positions(make(flip=False), [images[0]])[images[0]]
    assert not np.allclose(alone.positions, alone.positions[:, ::-1], atol=1e-3)


@pytest.mark.parametrize("flip", [False, True])
def test_with_statistics_of_cameras_images_are_those_of_no_camera(images, flip):
    extractor, rng = make(neck="bn", flip=flip, normalize=False), np.random.default_rng(0)
    width = {name: len(norm.running_mean) for name, norm in _norms(extractor)}
    norms = {
        name: (rng.normal(size=(2, size)).astype(np.float32), rng.uniform(1, 2, (2, size)).astype(np.float32))
        for name, size in width.items()
    }
    centres = rng.normal(size=(2, 3, 32)).astype(np.float32)
    known = replace(extractor, cameras=CameraStatistics([("a", 1), ("a", 2)], np.array([9, 9]), norms, centres))
    features = known.extract(images).matrix
    for reading, feature in zip(read_positions(known, images).values(), features, strict=True):
        np.testing.assert_allclose(reading.feature, feature, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(reading.positions.mean(axis=(0, 1)), feature, rtol=1e-3, atol=1e-4)


def _norms(extractor: Extractor):
    norms = nn.BatchNorm1d | nn.BatchNorm2d
    return [(name, one) for name, one in extractor.network.named_modules() if isinstance(one, norms)]


def test_batches_and_order_change_nothing(images):
    together = read_positions(make(batch_size=64), images)
    alone = read_positions(make(batch_size=1), images[::-1] + images)
    for path in images:
        np.testing.assert_allclose(together[path].positions, alone[path].positions, rtol=1e-4, atol=1e-5)


def test_a_hit_is_compared_with_the_most_similar_image_of_the_query(images):
    copy, text = images[0].with_name("copy.png"), images[0].with_name("text.jpg")
    Image.open(images[1]).save(copy)
    text.write_text("no image")
    hits = [{"rank": 1, "path": str(text)}, {"rank": 2, "path": str(copy)}]
    query = {"paths": [str(images[0]), str(images[1])], "hits": hits}
    nothing = {"paths": [str(text)], "hits": hits}
    (found,), none = explain_hits([query, nothing], make(), Silent())
    assert (found.rank, found.query, found.hit, none) == (2, images[1], copy, [])
    np.testing.assert_allclose(found.query_map, found.hit_map, atol=1e-5)
    assert (found.hit_map.min(), found.hit_map.max()) >= (0, 1)


def test_networks_without_one_map_are_refused(images, tmp_path):
    class Other(nn.Module):
        head = nn.Identity()

    extractor = replace(make(), model=Other())
    with pytest.raises(OptionError, match="this network is not made of the positions of one map"):
        read_positions(extractor, images)
    spec = NetworkSpec("tiny", True, "slot", 5, 64, 32, pool="token")
    weights.save(tiny_network(), spec, tmp_path / "w.safetensors")
    extractor = replace(make(), model=weights.read_weights_header(tmp_path / "w.safetensors"))
    with pytest.raises(OptionError, match="the feature of tiny is not made of"):
        read_positions(extractor, images)


def test_the_spotlight_is_dark_where_there_is_no_agreement():
    image = decode_uri(embed_spotlight(np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])))
    assert (image.mode, image.size) == ("LA", (12, 8))
    alpha = np.asarray(image)[:, :, 1]
    assert np.asarray(image)[:, :, 0].max() == 0
    assert (alpha[:, 0] < 20).all()
    assert (alpha[:, -1] == 190).all()


def decode_uri(uri: str) -> Image.Image:
    start = "data:image/png;base64,"
    assert uri.startswith(start)
    return Image.open(BytesIO(b64decode(uri.removeprefix(start))))


def test_the_page_of_a_search_has_a_pair_for_each_hit(ptlreid, tmp_path, market_folder):
    run = RunFolder(tmp_path / "runs" / "tiny")
    settings = {"data": "market", "backbone": "tiny", "init": "none", "height": 64, "width": 32}
    run.claim(FinetuneSettings.resolve(None, **settings), datasets.load("market", market_folder.parent))
    weights.save(tiny_network(classes=4), NetworkSpec("tiny", True, "slot", 4, 64, 32), run.weights())
    for number in range(3):
        write_image(tmp_path / "crops" / f"<b>{number}.jpg", number)
    search = ("search", "crops/<b>0.jpg", "--run", "tiny", "--gallery", "crops", "--device", "cpu", "--top", 2)
    code, _, err = ptlreid(*search, "--out", "page.html", "--attention", "--threshold", "1e-9")
    assert code == 0, err
    page = Path("page.html").read_text()
    overlays = re.findall(r'preserveAspectRatio="none" href="(data:[^"]+)"', page)
    assert [decode_uri(uri).size for uri in overlays] == [(4, 8)] * 4
    assert page.count('class="match"') == page.count('class="mismatch"') == 2
    assert "rank 2, distance" in page.lower()
    assert "<b>0" not in page
    code, _, err = ptlreid(*search, "--attention")
    assert (code, "--attention" in err) == (1, True)
