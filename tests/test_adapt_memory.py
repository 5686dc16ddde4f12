"""The memory of clusters and its loss, by hand and against a slow loop."""

from __future__ import annotations

import math
import multiprocessing
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed as dist
from torch import nn

from ptlreid.adapt.memory import ClusterMemory, MemoryOptions, build_memory, restore_memory

CPU = torch.device("cpu")


def options(**changes) -> MemoryOptions:
    chosen = {"temperature": 0.5, "momentum": 0.2, "proxies": False, "inter_weight": 0.5, "hard_negatives": 50}
    return MemoryOptions(**chosen | {"outliers": False} | changes)


def build(features, labels, cameras=None, **changes) -> ClusterMemory:
    cameras = [0] * len(labels) if cameras is None else cameras
    arrays = np.array(features, dtype=np.float32), np.array(labels), np.array(cameras)
    for array in arrays:
        array.flags.writeable = False  # it is the caller's
    return build_memory(*arrays, options(**changes), CPU)


def terms(memory, embedding, rows) -> dict[str, float]:
    found = memory.terms(torch.tensor(embedding, dtype=torch.float32), torch.tensor(rows, dtype=torch.int64))
    return {name: term.item() for name, term in found.items()}


def update(memory, embedding, rows) -> None:
    memory.update(torch.tensor(embedding, dtype=torch.float32), torch.tensor(rows, dtype=torch.int64))


# A slow loop in Python's own float64.


def unit(vector):
    length = math.hypot(*vector)
    return [value / length for value in vector] if length else list(vector)


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def mean(values):
    return sum(values) / len(values) if values else 0.0


def slow_keys(labels, cameras, chosen) -> list[tuple[int, int] | None]:
    """What an image's entry is called: (cluster, camera); None if it has none."""
    per_camera = chosen.proxies and len(set(cameras)) > 1
    keys = []
    for row, (label, camera) in enumerate(zip(labels, cameras, strict=True)):
        cluster = 1000 + row if label < 0 else label
        keys.append(None if label < 0 and not chosen.outliers else (cluster, camera if per_camera else 0))
    return keys


def slow_entries(features, keys) -> dict[tuple[int, int], list[float]]:
    entries = {}
    for key in sorted({key for key in keys if key is not None}):
        own = [unit(feature) for feature, k in zip(features, keys, strict=True) if k == key]
        entries[key] = unit([sum(values) / len(own) for values in zip(*own, strict=True)])
    return entries


def slow_terms(entries, keys, embedding, rows, cameras, chosen) -> dict[str, float]:
    """Dai et al. 2022, the InfoNCE loss; Wang et al. 2021, the losses within and between cameras."""
    cluster, intra, inter = [], [], []
    for vector, row in zip(embedding, rows, strict=True):
        own = keys[row]
        if own is None:
            continue
        scores = {key: dot(unit(vector), entry) / chosen.temperature for key, entry in entries.items()}
        powers = {key: math.exp(score) for key, score in scores.items()}
        cluster.append(-math.log(powers[own] / sum(powers.values())))
        intra.append(-math.log(powers[own] / sum(power for key, power in powers.items() if key[1] == own[1])))
        positive = [key for key in entries if key[0] == own[0] and key[1] != own[1]]
        others = sorted((power for key, power in powers.items() if key[0] != own[0]), reverse=True)
        total = sum(powers[key] for key in positive) + sum(others[: chosen.hard_negatives])
        if positive:
            inter.append(mean([-math.log(powers[key] / total) for key in positive]))
    if chosen.proxies and len(set(cameras)) > 1:
        return {"intra": mean(intra), "inter": chosen.inter_weight * mean(inter)}
    return {"cluster": mean(cluster)}


def slow_update(entries, keys, embedding, rows, momentum) -> None:
    for vector, row in zip(embedding, rows, strict=True):
        key = keys[row]
        if key is not None:
            moved = zip(entries[key], unit(vector), strict=True)
            entries[key] = unit([momentum * old + (1 - momentum) * new for old, new in moved])


# Two clusters and an outlier in the plane: cluster 0 has unit vectors (1, 0) and (0, 1), cluster 1 has (-1, 0).
PLANE = [[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [0.0, -5.0]]
LABELS = [0, 0, 1, -1]
DIAGONAL = [1 / math.sqrt(2), 1 / math.sqrt(2)]


def test_an_entry_is_the_normalised_mean_of_normalised_features():
    expected = torch.tensor([DIAGONAL, [-1.0, 0.0]])
    torch.testing.assert_close(build(PLANE, LABELS).entries, expected)


def test_an_image_is_contrasted_with_all_clusters():
    # An image of cluster 0 at (1, 0): cosines 0.7071 and -1, over the temperature of 0.5 1.4142 and -2. An image of
    # cluster 1 at (-1, 0): -1.4142 and 2. The mean of both.
    near = math.log(1 + math.exp(-2 - math.sqrt(2)))
    found = terms(build(PLANE, LABELS), [[4.0, 0.0], [-3.0, 0.0]], [0, 2])
    assert found == {"cluster": pytest.approx((near + near) / 2, abs=1e-6)}
    # An image of cluster 0 that is seen at (-1, 0): -(-1.4142) + log(exp(-1.4142) + exp(2)).
    far = math.log(1 + math.exp(2 + math.sqrt(2)))
    assert terms(build(PLANE, LABELS), [[-1.0, 0.0]], [1])["cluster"] == pytest.approx(far)


def test_an_entry_moves_towards_the_image_by_one_less_the_momentum():
    memory = build(PLANE, LABELS)
    update(memory, [[4.0, 0.0]], [0])
    x, y = 0.2 * DIAGONAL[0] + 0.8, 0.2 * DIAGONAL[1]
    expected = torch.tensor([[x / math.hypot(x, y), y / math.hypot(x, y)], [-1.0, 0.0]])
    torch.testing.assert_close(memory.entries, expected)


def test_two_images_of_a_cluster_move_its_entry_one_after_the_other():
    memory = build([[1.0, 0.0]], [0], momentum=0.5)
    # (1, 0) and (0, 1): (1, 1)/√2 after the first. Then with (-1, 0): (0.7071 - 1, 0.7071) / 2, normalised.
    update(memory, [[0.0, 9.0], [-7.0, 0.0]], [0, 0])
    x, y = DIAGONAL[0] - 1, DIAGONAL[1]
    expected = torch.tensor([[x / math.hypot(x, y), y / math.hypot(x, y)]])
    torch.testing.assert_close(memory.entries, expected)


def test_an_outlier_left_out_costs_nothing_and_moves_nothing():
    memory = build(PLANE, LABELS)
    before = memory.entries
    embedding = torch.tensor([[0.0, -1.0]], requires_grad=True)
    cost = memory.terms(embedding, torch.tensor([3]))["cluster"]
    cost.backward()
    memory.update(embedding, torch.tensor([3]))
    assert cost.item() == 0
    assert torch.equal(embedding.grad, torch.zeros(1, 2))
    assert torch.equal(memory.entries, before)
    # Nor does it count in the mean.
    assert terms(memory, [[0.0, -1.0], [4.0, 0.0]], [3, 0]) == pytest.approx(terms(memory, [[4.0, 0.0]], [0]))


def test_an_outlier_of_its_own_is_a_cluster_of_one_image():
    # Entries at (1, 1)/√2, (-1, 0) and (0, -1). An image at (0, -1): 2 for its own, 0 and -1.4142 for the others.
    memory = build(PLANE, LABELS, outliers=True)
    expected = -2 + math.log(math.exp(2) + math.exp(0) + math.exp(-math.sqrt(2)))
    assert terms(memory, [[0.0, -1.0]], [3])["cluster"] == pytest.approx(expected)
    update(memory, [[1.0, 0.0]], [3])
    # 0.2 (0, -1) + 0.8 (1, 0), normalised.
    torch.testing.assert_close(memory.entries[2], torch.tensor([0.8, -0.2]) / math.hypot(0.8, 0.2))


def test_a_memory_without_entries_costs_nothing():
    memory = build(PLANE, [-1, -1, -1, -1])
    embedding = torch.ones(2, 2, requires_grad=True)
    cost = memory.terms(embedding, torch.tensor([0, 3]))["cluster"]
    cost.backward()
    memory.update(embedding, torch.tensor([0, 3]))
    assert cost.item() == 0
    assert torch.equal(embedding.grad, torch.zeros(2, 2))
    assert memory.entries.shape == (0, 2)


def test_a_single_cluster_costs_nothing():
    assert terms(build(PLANE, [0, 0, 0, 0]), [[1.0, 3.0]], [2]) == {"cluster": pytest.approx(0, abs=1e-6)}


def test_a_label_that_no_image_has_gets_no_entry():
    memory, same = build(PLANE, [0, 0, 7, -1]), build(PLANE, LABELS)
    assert torch.equal(memory.entries, same.entries)
    assert terms(memory, [[1.0, 1.0]], [2]) == terms(same, [[1.0, 1.0]], [2])


# Three clusters and two cameras. Cluster 0 is seen by both, cluster 1 by the first and cluster 2 by the second alone.
SEEN = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]
SEEN_LABELS, SEEN_CAMERAS = [0, 0, 1, 2], [0, 1, 0, 1]


def test_within_a_camera_an_image_is_contrasted_with_its_proxies_alone():
    # An image at (0.6, 0.8) of cluster 0: in camera 0 the proxies (1, 0) and (-1, 0), cosines 0.6 and -0.6.
    memory = build(SEEN, SEEN_LABELS, SEEN_CAMERAS, proxies=True)
    torch.testing.assert_close(memory.entries, torch.tensor(SEEN))
    assert terms(memory, [[3.0, 4.0]], [0])["intra"] == pytest.approx(math.log(1 + math.exp(-2.4)))
    # In camera 1 the proxies (0, 1) and (0, -1), cosines 0.8 and -0.8.
    assert terms(memory, [[3.0, 4.0]], [1])["intra"] == pytest.approx(math.log(1 + math.exp(-3.2)))


def test_between_cameras_the_own_cluster_elsewhere_is_contrasted_with_the_nearest_of_other_clusters():
    # The image of camera 0: P is (0, 1), of cosine 0.8; Q are (-1, 0), of -0.6, and (0, -1), of -0.8. Weight 0.5.
    scores = {"p": 1.6, "near": -1.2, "far": -1.6}
    both = -math.log(math.exp(1.6) / sum(math.exp(score) for score in scores.values()))
    one = math.log(1 + math.exp(-1.2 - 1.6))
    memory = build(SEEN, SEEN_LABELS, SEEN_CAMERAS, proxies=True)
    assert terms(memory, [[3.0, 4.0]], [0])["inter"] == pytest.approx(0.5 * both)
    memory = build(SEEN, SEEN_LABELS, SEEN_CAMERAS, proxies=True, hard_negatives=1)
    assert terms(memory, [[3.0, 4.0]], [0])["inter"] == pytest.approx(0.5 * one)


def test_a_cluster_seen_by_one_camera_has_no_term_between_cameras():
    memory = build(SEEN, SEEN_LABELS, SEEN_CAMERAS, proxies=True)
    embedding = torch.tensor([[3.0, 4.0]], requires_grad=True)
    cost = memory.terms(embedding, torch.tensor([2]))["inter"]
    cost.backward()
    assert cost.item() == 0
    assert torch.equal(embedding.grad, torch.zeros(1, 2))
    # Nor does it count in the mean.
    alone = terms(memory, [[3.0, 4.0]], [0])["inter"]
    assert terms(memory, [[3.0, 4.0], [3.0, 4.0]], [0, 2])["inter"] == pytest.approx(alone)


def test_an_image_moves_the_proxy_of_its_own_camera():
    memory = build(SEEN, SEEN_LABELS, SEEN_CAMERAS, proxies=True)
    update(memory, [[1.0, 0.0]], [1])
    expected = torch.tensor(SEEN)
    expected[1] = torch.tensor([0.8, 0.2]) / math.hypot(0.8, 0.2)
    torch.testing.assert_close(memory.entries, expected)


def test_with_one_camera_proxies_are_the_clusters():
    with_proxies, without = build(PLANE, LABELS, [3] * 4, proxies=True), build(PLANE, LABELS)
    assert torch.equal(with_proxies.entries, without.entries)
    assert terms(with_proxies, [[1.0, 2.0]], [0]) == terms(without, [[1.0, 2.0]], [0])


def test_identities_of_a_source_are_further_clusters_of_further_cameras():
    # The source's two identities in two cameras of its own: nothing of the target within a camera changes.
    alone = build(SEEN, SEEN_LABELS, SEEN_CAMERAS, proxies=True)
    along = build(SEEN * 2, [*SEEN_LABELS, 3, 3, 4, 4], [*SEEN_CAMERAS, 2, 3, 2, 3], proxies=True)
    torch.testing.assert_close(along.entries, torch.tensor(SEEN * 2))
    assert terms(along, [[3.0, 4.0]], [0])["intra"] == terms(alone, [[3.0, 4.0]], [0])["intra"]
    # Between cameras, the four of the source are among the nearest of other clusters.
    powers = [math.exp(2 * cosine) for cosine in (0.8, -0.6, -0.8, 0.6, 0.8, -0.6, -0.8)]
    expected = 0.5 * math.log(sum(powers) / powers[0])
    assert terms(along, [[3.0, 4.0]], [0])["inter"] == pytest.approx(expected)


@st.composite
def cases(draw):
    """Features, labels and cameras of a few images, and two batches of them, from a seed."""
    size, batch = draw(st.integers(1, 10)), draw(st.integers(1, 8))
    labels = draw(st.lists(st.integers(-1, 3), min_size=size, max_size=size))
    cameras = draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))
    rows = draw(st.lists(st.integers(0, size - 1), min_size=2 * batch, max_size=2 * batch))
    vectors = np.random.default_rng(draw(st.integers(0, 999))).normal(size=(size + 2 * batch, 3))
    vectors = vectors.astype(np.float32).tolist()
    chosen = options(
        temperature=draw(st.sampled_from([0.05, 0.5])),
        momentum=draw(st.sampled_from([0.0, 0.2, 1.0])),
        proxies=draw(st.booleans()),
        hard_negatives=draw(st.sampled_from([0, 1, 3, 50])),
        outliers=draw(st.booleans()),
    )
    batches = [(vectors[size : size + batch], rows[:batch]), (vectors[size + batch :], rows[batch:])]
    return vectors[:size], labels, cameras, batches, chosen


@settings(derandomize=True, deadline=None, max_examples=150)
@given(cases())
def test_it_is_the_slow_loop(case):
    features, labels, cameras, batches, chosen = case
    memory = build(features, labels, cameras, **vars(chosen))
    keys = slow_keys(labels, cameras, chosen)
    entries = slow_entries(features, keys)
    for embedding, rows in batches:
        expected = slow_terms(entries, keys, embedding, rows, cameras, chosen)
        assert terms(memory, embedding, rows) == pytest.approx(expected, rel=1e-4, abs=1e-4)
        update(memory, embedding, rows)
        slow_update(entries, keys, embedding, rows, chosen.momentum)
    expected = torch.tensor(list(entries.values()), dtype=torch.float32).reshape(memory.entries.shape)
    torch.testing.assert_close(memory.entries, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("proxies", "hard_negatives"), [(False, 50), (True, 2), (True, 50)])
def test_gradients_are_those_of_finite_differences(proxies, hard_negatives):
    vectors = np.random.default_rng(0).normal(size=(14, 3)).astype(np.float32).tolist()
    features, embedding, rows = vectors[:8], vectors[8:], [0, 1, 4, 5, 7, 1]
    labels, cameras = [0, 0, 1, 1, 2, 2, 0, -1], [0, 1, 0, 1, 0, 0, 1, 2]
    chosen = options(proxies=proxies, hard_negatives=hard_negatives)
    memory = build(features, labels, cameras, **vars(chosen))
    leaf = torch.tensor(embedding, requires_grad=True)
    cost = sum(memory.terms(leaf, torch.tensor(rows)).values())
    memory.update(leaf, torch.tensor(rows))  # has no part in the gradient, of this batch or of the next
    assert not memory.entries.requires_grad
    cost.backward()
    keys = slow_keys(labels, cameras, chosen)
    entries = slow_entries(features, keys)
    for image, place in np.ndindex(len(rows), 3):
        costs = []
        for step in (1e-5, -1e-5):
            moved = [list(vector) for vector in embedding]
            moved[image][place] += step
            costs.append(sum(slow_terms(entries, keys, moved, rows, cameras, chosen).values()))
        assert leaf.grad[image, place].item() == pytest.approx((costs[0] - costs[1]) / 2e-5, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_cosines_keep_their_digits_under_autocast(dtype):
    # At a temperature of 0.001, a cosine of three digits would be off by more than 1.
    plain, mixed = (build(PLANE, LABELS, temperature=0.001) for _ in range(2))
    embedding = [[-0.41, 1.0]]
    with torch.autocast("cpu", dtype=dtype):
        costs = terms(mixed, embedding, [0])
        update(mixed, embedding, [0])
    assert costs == terms(plain, embedding, [0])
    update(plain, embedding, [0])
    assert torch.equal(mixed.entries, plain.entries)


@pytest.mark.parametrize("proxies", [False, True])
def test_a_memory_resumes_from_its_state_bit_for_bit(tmp_path, proxies):
    vectors = np.random.default_rng(1).normal(size=(20, 5)).astype(np.float32)
    chosen = {"proxies": proxies, "outliers": True}
    memory = build(vectors, [0, 1, 2, -1, 4] * 4, [0, 1, 2, 1, 0] * 4, **chosen)
    update(memory, vectors[:3], [5, 6, 3])
    torch.save(memory.state(), tmp_path / "state")
    state = torch.load(tmp_path / "state", weights_only=True)
    assert state["labels"].tolist() == [0, 1, 2, -1, 4] * 4
    resumed = restore_memory(state, options(**chosen), CPU)
    for each in (memory, resumed):
        update(each, vectors[3:9], [7, 8, 3, 0, 1, 2])
    assert torch.equal(memory.entries, resumed.entries)
    assert terms(memory, vectors[9:], range(11)) == terms(resumed, vectors[9:], range(11))


def test_a_state_of_other_options_is_refused():
    state = build(SEEN, SEEN_LABELS, SEEN_CAMERAS, proxies=True).state()
    with pytest.raises(ValueError, match="expected 3"):
        restore_memory(state, options(), CPU)


# Two processes.

IMAGES = np.random.default_rng(2).normal(size=(24, 4)).astype(np.float32)
IMAGE_LABELS, IMAGE_CAMERAS = [0, 1, 2, -1] * 3, [0, 0, 0, 0, 1, 1, 0, 1, 0, 1, 1, 0]
# The first half of a batch is that of the first process: it has most of the outliers, which are left out.
BATCHES = [[3, 7, 11, 0, 1, 2, 4, 5], [8, 9, 3, 4, 10, 0, 11, 6]]


def train(wrap) -> dict[str, torch.Tensor]:
    """The gradients of two batches and the memory after them; `wrap`: for several processes, or the network itself."""
    torch.manual_seed(0)
    network = nn.Linear(4, 3)
    with torch.no_grad():
        features = network(torch.from_numpy(IMAGES[:12])).numpy()
    memory = build(features, IMAGE_LABELS, IMAGE_CAMERAS, proxies=True)
    forward, found = wrap(network), {}
    part = len(BATCHES[0]) // (dist.get_world_size() if dist.is_initialized() else 1)
    start = part * (dist.get_rank() if dist.is_initialized() else 0)
    for number, batch in enumerate(BATCHES):
        rows = torch.tensor(batch[start : start + part])
        network.zero_grad()
        embedding = forward(torch.from_numpy(IMAGES[12:])[rows])
        cost = memory.terms(embedding, rows)
        memory.update(embedding, rows)
        sum(cost.values()).backward()
        found[f"gradient {number}"] = network.weight.grad.clone()
        found |= {f"{name} {number}": term.detach() for name, term in cost.items()}
    return found | {"entries": memory.entries}


def train_in_process(rank: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "WORLD_SIZE": "2", "RANK": str(rank)}
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(train(nn.parallel.DistributedDataParallel), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_compute_what_one_does(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"])
    processes = [context.Process(target=train_in_process, args=(rank, str(tmp_path))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    one, two = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert torch.equal(one["entries"], two["entries"])
    torch.testing.assert_close(one, train(lambda network: network))
    torch.testing.assert_close(two, train(lambda network: network))
