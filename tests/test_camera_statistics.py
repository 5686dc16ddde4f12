"""Statistics of cameras: how they are taken, stored, and used by an extractor."""

from __future__ import annotations

import copy
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import tiny_network, write_image
from damage import damage_examples, damaged, within_seconds
from hypothesis import given
from safetensors.numpy import load_file, save_file
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ptlreid import cache
from ptlreid.adapt import camera_pass
from ptlreid.adapt.camera_pass import collect_cameras
from ptlreid.errors import CheckpointError, DataError
from ptlreid.features import Extractor
from ptlreid.models import bconv, camera_statistics, weights
from ptlreid.models.camera_norm import CameraNorms, find_norms
from ptlreid.models.camera_statistics import CameraStatistics, cameras_file, read_cameras, save_cameras
from ptlreid.network_types import NetworkSpec, Readout
from ptlreid.progress import Silent
from ptlreid.records import Records
from ptlreid.settings import EvaluateSettings
from ptlreid.views import EvalView, decode, resize, standardize

VIEW = EvalView(64, 32)
COUNTS = {1: 7, 2: 5, 5: 1}  # images by camera


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Records:
    folder = tmp_path_factory.mktemp("site")
    rows = [(camid, number) for camid, count in COUNTS.items() for number in range(count)]
    for camid, number in rows:
        write_image(folder / f"{camid}-{number}.jpg", 100 * camid + number)
    paths = [folder / f"{camid}-{number}.jpg" for camid, number in rows]
    return Records.make(paths, [-1] * len(rows), [camid for camid, _ in rows], "lobby")


def make_extractor(network=None, *, batch_size=64, readout=None, cameras=None) -> Extractor:
    network = network or tiny_network()
    return Extractor(network, readout or network.readout, VIEW, "cpu", batch_size, 0, cameras)


def images_of(records: Records) -> torch.Tensor:
    return standardize(torch.from_numpy(resize([decode(path) for path in records.paths], VIEW)))


def torchs_own(records: Records) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and biased variance of each batch norm, by torch in training mode, of all images at once, in float64."""
    network = copy.deepcopy(tiny_network()).double().train()
    images = images_of(records).double()
    sizes: dict[str, int] = {}
    for name, norm in find_norms(network).items():
        norm.momentum = 1.0
        norm.register_forward_hook(lambda _, given, __, name=name: sizes.update({name: given[0][:, 0].numel()}))
    bconv.reset_memory(network)
    with torch.no_grad():
        network(images)
    norms = find_norms(network)
    return {
        name: (norms[name].running_mean.numpy(), norms[name].running_var.numpy() * (size - 1) / size)
        for name, size in sizes.items()
        if "classifier" not in name
    }


@pytest.mark.parametrize(
    ("images", "doubts"),
    [
        ([100], [r"All images are from one camera: it has the statistics of the site\."]),
        ([16, 100], []),
        ([15, 100, 1], [r"2 of 3 cameras have fewer than 16 images: expected more"]),
    ],
)
def test_one_camera_and_cameras_with_few_images_are_doubtful(images, doubts):
    names = [("lobby", number) for number in range(len(images))]
    found = CameraStatistics(names, np.array(images), {}, np.zeros((2, len(images) + 1, 4))).describe_doubts()
    assert len(found) == len(doubts)
    assert all(re.match(one, text) for one, text in zip(doubts, found, strict=True))


def camera(records: Records, *camids: int) -> Records:
    return records.select(np.isin(records.camids, camids))


def test_the_statistics_are_those_of_torchs_training_mode(site, monkeypatch):
    monkeypatch.setattr(camera_statistics, "SHRINKAGE", 0.0)
    source = make_extractor(batch_size=2)
    found = collect_cameras(source, camera(site, 1, 2))
    assert found.names == [("lobby", 1), ("lobby", 2)]
    assert found.images.tolist() == [7, 5]
    own = find_norms(source.network)
    expected_site = torchs_own(camera(site, 1, 2))
    assert set(found.norms) == set(expected_site) != set()
    for row, camid in enumerate((1, 2)):
        for name, (mean, variance) in torchs_own(camera(site, camid)).items():
            np.testing.assert_allclose(found.norms[name][0][row], mean, rtol=2e-4, atol=2e-5)
            np.testing.assert_allclose(found.norms[name][1][row], variance, rtol=2e-4, atol=1e-6)
            np.testing.assert_allclose(own[name].running_mean, expected_site[name][0], rtol=2e-4, atol=2e-5)
            np.testing.assert_allclose(own[name].running_var, expected_site[name][1], rtol=2e-4, atol=1e-6)


def test_groups_of_a_camera_are_pooled_with_the_variance_between_them(site, monkeypatch):
    monkeypatch.setattr(camera_statistics, "SHRINKAGE", 0.0)
    monkeypatch.setattr(camera_pass, "GROUP", 4)
    records = camera(site, 1)
    found = collect_cameras(make_extractor(), records)
    digests = camera_pass.contents.digest_each(records.paths)
    order = np.lexsort(digests.T)  # 7 images: groups of 4 and 3
    parts = [torchs_own(records.select(order[:4])), torchs_own(records.select(order[4:]))]
    for name, (means, variances) in found.norms.items():
        pair = [part[name] for part in parts]
        mean = (4 * pair[0][0] + 3 * pair[1][0]) / 7
        within = (4 * pair[0][1] + 3 * pair[1][1]) / 7
        between = (4 * (pair[0][0] - mean) ** 2 + 3 * (pair[1][0] - mean) ** 2) / 7
        np.testing.assert_allclose(means[0], mean, rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(variances[0], within + between, rtol=5e-4, atol=1e-6)


def test_batch_size_and_order_change_nothing_but_rounding(site):
    found = [
        collect_cameras(make_extractor(batch_size=size), site.select(order))
        for size, order in ((64, np.arange(13)), (3, np.random.default_rng(0).permutation(13)))
    ]
    assert found[0].names == found[1].names
    for name in found[0].norms:
        for one, other in zip(found[0].norms[name], found[1].norms[name], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found[0].centres, found[1].centres, rtol=1e-5, atol=1e-6)


def test_a_camera_of_one_image_shrinks_towards_the_site(site, monkeypatch):
    """At the first batch norm, whose input does not depend on statistics, by hand."""
    first = next(iter(find_norms(tiny_network())))
    monkeypatch.setattr(camera_statistics, "SHRINKAGE", 3.0)
    found = collect_cameras(make_extractor(), site)
    row = found.names.index(("lobby", 5))
    maps = tiny_network().backbone.blocks["block1"][0](images_of(site)).detach().double()
    own, all_images = maps[[-1]], maps
    mean = own.mean((0, 2, 3)) / 4 + 3 * all_images.mean((0, 2, 3)) / 4
    square = (own**2).mean((0, 2, 3)) / 4 + 3 * (all_images**2).mean((0, 2, 3)) / 4
    np.testing.assert_allclose(found.norms[first][0][row], mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.norms[first][1][row], square - mean**2, rtol=1e-4, atol=1e-6)


def test_centres_are_the_mean_features_of_cameras(site, monkeypatch):
    monkeypatch.setattr(camera_statistics, "SHRINKAGE", 0.0)
    source = make_extractor()
    found = collect_cameras(source, site)
    for flip in (False, True):
        readout = Readout(flip=flip)
        features = make_extractor(source.network, readout=readout, cameras=found).extract(camera(site, 1)).matrix
        raw = make_extractor(source.network, readout=readout, cameras=replace(found, centres=0 * found.centres))
        # Up to the rounding of what each group was normalised by.
        length = np.linalg.norm(raw.extract(camera(site, 1)).matrix, axis=1).mean()
        assert np.linalg.norm(features.mean(axis=0)) < 1e-3 * length


def by_itself(network, statistics: CameraStatistics, row: int, records: Records) -> np.ndarray:
    """The features of images of one camera: a copy of the network gets its statistics as its own."""
    alone = copy.deepcopy(network).eval()
    for name, norm in find_norms(alone).items():
        if name in statistics.norms and row < len(statistics.names):
            norm.running_mean.copy_(torch.from_numpy(statistics.norms[name][0][row]))
            norm.running_var.copy_(torch.from_numpy(statistics.norms[name][1][row]))
    with torch.inference_mode():
        return np.asarray(alone(images_of(records)).embedding) - statistics.centres[0, row]


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_each_image_is_normalised_by_its_own_camera(site, batch_size):
    source = make_extractor()
    found = collect_cameras(source, camera(site, 1, 2))
    order = np.random.default_rng(1).permutation(13)
    features = make_extractor(source.network, batch_size=batch_size, cameras=found).extract(site.select(order)).matrix
    for camid, row in ((1, 0), (2, 1), (5, 2)):  # no statistics of camera 5: those of the site
        mine = site.camids[order] == camid
        expected = by_itself(source.network, found, row, site.select(order[mine]))
        np.testing.assert_allclose(features[mine], expected, rtol=1e-4, atol=1e-5)


def test_a_camera_of_the_same_number_in_another_dataset_is_another(site):
    found = collect_cameras(make_extractor(), site)
    other = replace(site, sources=np.full(len(site), "market", dtype=object))
    assert set(found.find_rows(other.sources, other.camids).tolist()) == {3}
    assert found.describe_unknown(site.sources, site.camids) is None
    assert found.describe_unknown(other.sources, other.camids) == (
        "no statistics of cameras 1 of market, 2 of market, 5 of market: 13 of 13 images are normalised by those of "
        "the site that the run was adapted to"
    )


def test_paths_and_arrays_are_of_no_known_camera(site):
    source = make_extractor()
    found = collect_cameras(source, site)
    adapted = make_extractor(source.network, cameras=found)
    expected = by_itself(source.network, found, 3, site)
    np.testing.assert_allclose(adapted.extract(list(site.paths)).matrix, expected, rtol=1e-4, atol=1e-5)
    arrays = [decode(path) for path in site.paths]
    np.testing.assert_allclose(adapted.extract(arrays).matrix, expected, rtol=1e-4, atol=1e-5)


def test_the_network_computes_as_before_afterwards(site):
    source = make_extractor()
    found = collect_cameras(source, site)
    before = make_extractor(source.network).extract(site).matrix
    make_extractor(source.network, cameras=found).extract(site)
    np.testing.assert_array_equal(make_extractor(source.network).extract(site).matrix, before)
    assert not any("forward" in vars(norm) for norm in find_norms(source.network).values())


def test_latent_states_and_mode_stay_as_they_were(site):
    network = tiny_network().train()
    network(torch.zeros(2, 3, 64, 32))
    states = {name: one.clone() for name, one in bconv.gather_memory_state(network).items()}
    collect_cameras(make_extractor(network), site)
    assert network.training
    assert {name: one.tolist() for name, one in bconv.gather_memory_state(network).items()} == {
        name: one.tolist() for name, one in states.items()
    }


def test_a_network_without_batch_norm_gets_centres_alone(site, monkeypatch):
    monkeypatch.setattr(camera_statistics, "SHRINKAGE", 0.0)
    network = tiny_network()
    for name, module in list(network.named_modules()):
        if isinstance(module, _BatchNorm):
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, nn.Identity())
    found = collect_cameras(make_extractor(network), site)
    assert found.norms == {}
    plain = make_extractor(network).extract(site).matrix
    centred = make_extractor(network, cameras=found).extract(site).matrix
    for row, camid in enumerate(COUNTS):
        mine = site.camids == camid
        np.testing.assert_allclose(found.centres[0, row], plain[mine].mean(0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(centred[mine], plain[mine] - plain[mine].mean(0), rtol=1e-4, atol=1e-5)


def test_without_images_there_is_one_message(site):
    with pytest.raises(DataError, match=r"There are no training images: expected those of the site\."):
        collect_cameras(make_extractor(), site.select(np.arange(0)))


@pytest.fixture
def stored(site, tmp_path):
    """A weights file with statistics of cameras next to it."""
    source = make_extractor()
    found = collect_cameras(source, site)
    file = tmp_path / "weights.safetensors"
    weights.save(source.network, NetworkSpec("tiny", True, "slot", 5, 64, 32), file)
    save_cameras(found, file)
    return file, found


def test_the_file_gives_the_statistics_back(stored):
    file, found = stored
    header = weights.read_weights_header(file)
    read = read_cameras(file, header.digest)
    assert read is not None
    assert cameras_file(file).name == "cameras.safetensors"
    assert (read.names, read.images.tolist()) == (found.names, found.images.tolist())
    np.testing.assert_array_equal(read.centres, found.centres)
    for name, pair in found.norms.items():
        for one, other in zip(read.norms[name], pair, strict=True):
            np.testing.assert_array_equal(one, other)
    assert len(read.digest) >= 32


def test_an_extractor_of_the_weights_uses_them_unless_it_should_not(stored, site):
    file, found = stored
    header = weights.read_weights_header(file)
    on, off = (
        Extractor.from_weights(header, EvaluateSettings(device="cpu", cameras=cameras)) for cameras in (True, False)
    )
    expected = make_extractor(header.build(), cameras=found).extract(site).matrix
    np.testing.assert_allclose(on.extract(site).matrix, expected, atol=1e-5)
    np.testing.assert_allclose(off.extract(site).matrix, make_extractor(header.build()).extract(site).matrix, atol=1e-5)
    assert cache.fingerprint(on, site, "float32")["cameras"] != cache.fingerprint(off, site, "float32")["cameras"] == ""


def test_a_cache_knows_the_statistics_and_the_cameras(stored, site, tmp_path):
    file, _ = stored
    header = weights.read_weights_header(file)
    on, off = (
        Extractor.from_weights(header, EvaluateSettings(device="cpu", cameras=cameras)) for cameras in (True, False)
    )
    cached = tmp_path / "f.h5"
    expected = cache.load_or_extract(cached, on, site, dtype="float32", progress=Silent())
    np.testing.assert_array_equal(on.extract(site).matrix, expected.matrix)
    assert cache.describe_status(cached, on, site, "float32") == "cached"
    assert cache.describe_status(cached, off, site, "float32") == "to extract: the statistics of cameras changed"
    renamed = replace(site, sources=np.full(len(site), "market", dtype=object))
    assert cache.describe_status(cached, on, renamed, "float32") == "to extract: the statistics of cameras changed"


def test_statistics_of_other_weights_are_refused(stored):
    file, _ = stored
    with pytest.raises(CheckpointError, match=r"cameras\.safetensors: belongs to other weights than weights"):
        read_cameras(file, "0" * 32)


def test_statistics_of_another_network_are_refused(stored):
    _, found = stored
    norms = {f"elsewhere.{name}": pair for name, pair in found.norms.items()}
    with pytest.raises(CheckpointError, match="which the network lacks"):
        CameraNorms.of(tiny_network(), replace(found, norms=norms))


@pytest.mark.parametrize("fault", ["nan", "negative", "shape", "missing"])
def test_tensors_that_are_no_statistics_are_refused(stored, fault):
    file, _ = stored
    path = cameras_file(file)
    header = weights.read_weights_header(file)
    from safetensors import safe_open

    with safe_open(path, framework="np") as content:
        metadata = content.metadata()
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith(".variance"))
    if fault == "nan":
        tensors["centres"][0, 0, 0] = np.nan
    elif fault == "negative":
        tensors[name][0, 0] = -1
    elif fault == "shape":
        tensors["images"] = tensors["images"][:-1]
    else:
        del tensors[name]
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(CheckpointError, match=r"cameras\.safetensors: its tensors are not statistics of 3 cameras\."):
        read_cameras(file, header.digest)


@pytest.fixture(scope="module")
def content(site, tmp_path_factory) -> tuple[bytes, bytes]:
    folder = tmp_path_factory.mktemp("content")
    source = make_extractor()
    found = collect_cameras(source, site)
    weights.save(source.network, NetworkSpec("tiny", True, "slot", 5, 64, 32), folder / "weights.safetensors")
    save_cameras(found, folder / "weights.safetensors")
    return (folder / "weights.safetensors").read_bytes(), (folder / "cameras.safetensors").read_bytes()


def test_damage_gives_statistics_or_one_message(content, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage")
    file = folder / "weights.safetensors"
    file.write_bytes(content[0])
    digest = weights.read_weights_header(file).digest

    @damage_examples()
    @given(damaged(content[1]))
    def check(changed: bytes) -> None:
        cameras_file(file).write_bytes(changed)
        try:
            found = read_cameras(file, digest)
        except CheckpointError as error:
            assert "cameras.safetensors" in str(error)
        else:
            assert found is not None
            assert found.centres.shape[:2] == (2, 4)

    with within_seconds(60):
        check()
