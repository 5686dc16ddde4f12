"""Features of records, filled by row, by one process and by two for real (gloo on this machine)."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_network
from PIL import Image
from test_processes import free_port

from ptlreid import datasets, distributed
from ptlreid.errors import DataError
from ptlreid.features import Extractor
from ptlreid.views import EvalView, decode, resize, standardize

VIEW = EvalView(64, 32)


def extractor(network, batch_size=64) -> Extractor:
    return Extractor(network, network.readout, VIEW, "cpu", batch_size, None)


@pytest.fixture
def network():
    return tiny_network()


@pytest.fixture
def gallery(market_folder):
    return datasets.load("market", market_folder.parent).gallery


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_row_i_is_the_feature_of_record_i(network, gallery, batch_size):
    features = extractor(network, batch_size).extract(gallery)
    network.eval()
    for row, path in enumerate(gallery.paths):
        with torch.inference_mode():
            image = resize([decode(path)], VIEW)
            alone = network(standardize(torch.from_numpy(image))).embedding[0]
        np.testing.assert_allclose(features.matrix[row], alone.numpy(), atol=1e-6)
    assert features.pids.tolist() == gallery.pids.tolist()
    assert features.paths.tolist() == [str(path) for path in gallery.paths]


def test_another_order_gives_the_same_rows(network, gallery):
    order = np.random.default_rng(0).permutation(len(gallery))
    straight = extractor(network).extract(gallery)
    shuffled = extractor(network, 3).extract(gallery.select(order))
    np.testing.assert_allclose(shuffled.matrix, straight.matrix[order], atol=1e-6)


@pytest.mark.parametrize("mode", [True, False])
def test_the_network_is_given_back_in_its_mode(network, gallery, mode):
    network.train(mode)
    extractor(network).extract(gallery)
    assert network.training is mode


def test_a_stream_may_begin_at_any_row(network, gallery):
    whole = extractor(network).extract(gallery).matrix
    for start in (0, 3, 7, 8):
        parts = list(extractor(network, 2).stream(gallery, start=start))
        assert [len(part) for part in parts] == [2] * ((8 - start) // 2) + [1] * (start % 2)
        np.testing.assert_allclose(np.concatenate([np.empty((0, 32)), *parts]), whole[start:], atol=1e-6)


def test_paths_arrays_and_pil_images_have_the_features_of_their_records(network, gallery):
    expected = extractor(network).extract(gallery)
    paths = [str(path) for path in gallery.paths]
    images = [Image.open(path) for path in paths]
    arrays = [np.asarray(image) for image in images]
    for given, names in ((paths, paths), (images, None), (arrays, None)):
        found = extractor(network, 3).extract(given)
        np.testing.assert_allclose(found.matrix, expected.matrix, atol=1e-6)
        assert found.paths.tolist() == (names or [f"#{row}" for row in range(len(paths))])
        assert set(found.pids.tolist()) == {-1}


def test_an_array_that_is_no_image_is_an_error(network):
    with pytest.raises(DataError, match=r"float64, shape \(4, 4\): expected \(H, W, 3\) uint8"):
        extractor(network).extract([np.zeros((4, 4))])


def of_rank(rank: int, folder: str, port: str) -> None:
    """One of two processes: features in batches of several sizes, then of a dataset with an image that is none."""
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    os.environ |= places | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    whole, broken = (datasets.load(f"{folder}/{name}", Path()).gallery for name in ("whole", "broken"))
    with distributed.process_group("cpu"):
        for batch_size in SIZES:
            features = extractor(tiny_network(), batch_size).extract(whole)
            np.savez(f"{folder}/{batch_size}.{rank}.npz", matrix=features.matrix, pids=features.pids)
        try:
            extractor(tiny_network(), 2).extract(broken)
        except DataError as error:
            Path(f"{folder}/{rank}.txt").write_text(str(error))


SIZES = (1, 3, 8)  # of 8 images: four steps; two, the last of one image for each; one step, half for each


@pytest.fixture(scope="module")
def by_two(tmp_path_factory, market_folder) -> Path:
    """The folder in which two processes left what they found."""
    folder = tmp_path_factory.mktemp("two")
    for name in ("whole", "broken"):
        shutil.copytree(market_folder, folder / name)
    datasets.load(str(folder / "broken"), folder).gallery.paths[2].write_bytes(b"no image")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ptlreid.features"])
    port = free_port()
    processes = [context.Process(target=of_rank, args=(rank, str(folder), port)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    return folder


@pytest.mark.parametrize("batch_size", SIZES)
def test_features_of_two_processes_are_those_of_one(by_two, network, gallery, batch_size):
    alone = extractor(network).extract(gallery)
    for rank in range(2):
        found = np.load(by_two / f"{batch_size}.{rank}.npz")
        np.testing.assert_allclose(found["matrix"], alone.matrix, atol=1e-6)
        assert found["pids"].tolist() == gallery.pids.tolist()


def test_an_image_that_one_process_cannot_read_is_the_error_of_both(by_two):
    messages = [(by_two / f"{rank}.txt").read_text() for rank in range(2)]
    assert messages[0] == messages[1]
    assert "not an image that can be decoded" in messages[0]
