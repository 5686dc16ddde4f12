"""The memory and time that a dry run estimates, against measurements."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from test_cli import TRAIN
from torch.profiler import profile

from ptlreid import datasets, losses, models
from ptlreid.engine import estimate, optim
from ptlreid.engine.fit import Precision
from ptlreid.engine.job import TrainingJob, build_sampler
from ptlreid.models.bconv import memory_state
from ptlreid.network_types import NetworkSpec
from ptlreid.runs import RunFolder
from ptlreid.settings import FinetuneSettings
from ptlreid.views import standardize

FLOAT32 = Precision(None, channels_last=False)


class Silent:
    def note(self, text: str) -> None: ...


@pytest.fixture
def splits(market_folder):
    return datasets.load("market", market_folder.parent)


def job(splits, tmp_path, objective=None, **settings):
    chosen = {"backbone": "tiny-wide", "batch_size": 8, "height": 64, "width": 32, "device": "cpu"} | settings
    settings = FinetuneSettings.resolve(None, **chosen)
    return TrainingJob(
        settings, splits, build_sampler(settings, splits), RunFolder(tmp_path / "run"), Silent(), objective=objective
    )


def with_teacher(device, loss):
    """An objective that runs a frozen network of 2 million weights, whose convolutions need little scratch memory."""
    spec = NetworkSpec("tiny-wide", False, "slot", 4, 64, 32)
    teacher = models.build(spec, seed=0).eval().requires_grad_(False).to(device)

    def objective(output, labels, images):
        with torch.no_grad():
            features = teacher(images).embedding
        return {"l1": (output.embedding.mean() - features.mean()).abs(), "ce": output.logits["pid"].square().mean()}

    objective.bytes = sum(tensor.nbytes for tensor in teacher.state_dict().values())
    return objective


def measured(work):
    """The peak of allocated bytes in a second update written by hand, by torch's profiler."""
    settings = work.settings
    network = models.build(work.spec, seed=0).train()
    optimizer = optim.build_optimizer(
        settings.optimizer,
        network,
        lr=settings.lr,
        momentum=0.9,
        nesterov=False,
        weight_decay=0.0,
        amsgrad=settings.amsgrad,
        new_lr_factor=1.0,
        layer_decay=1.0,
    )
    objective = work.objective(torch.device("cpu"), None) if work.objective else None
    size = settings.batch_size
    pixels = torch.zeros(size, settings.height, settings.width, 3, dtype=torch.uint8)

    def update():
        optimizer.zero_grad(set_to_none=True)
        # A new one, as the profiler sees a state freed only if it saw it made.
        loss = losses.find(settings.loss, settings.model_dump())
        for _ in range(settings.accumulate):
            images = standardize(pixels)
            output, labels = network(images), torch.arange(size) // 2 % 4
            terms = objective(output, labels, images) if objective else loss(output, labels)
            (torch.stack(list(terms.values())).sum() / settings.accumulate).backward()
            del images, output, terms
        optimizer.step()

    update()
    optimizer.zero_grad(set_to_none=True)
    lasting = [*network.parameters(), *network.buffers()] * (2 if settings.ema_decay else 1)
    lasting += memory_state(network).values()
    lasting += [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    # Without oneDNN, which reorders weights into copies of its own on some CPUs.
    with torch.backends.mkldnn.flags(enabled=False), profile(profile_memory=True) as seen:
        update()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    running = np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    return sum(tensor.nbytes for tensor in lasting) + getattr(objective, "bytes", 0) + int(running.max())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ptl": False},
        {"memory": "mean", "optimizer": "adamw"},
        {"accumulate": 2, "pool": "gem", "loss": "ce+xbm+centre", "clip_grad": 1.0, "ema_decay": 0.9},
        {"optimizer": "adam", "amsgrad": True, "loss": "ce+triplet", "images_per_identity": 2},
        {"backbone": "resnet18", "width": 64, "batch_size": 4},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())) or "tiny",
)
@pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN")  # said by switching oneDNN off
def test_the_peak_is_what_torch_allocates(splits, tmp_path, settings):
    work = job(splits, tmp_path, **settings)
    found = estimate.estimate_bytes(work, FLOAT32)
    # To 2%: the scratch memory of torch's own convolutions is not counted.
    assert found["peak"] == pytest.approx(measured(work), rel=0.02)


@pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN")
def test_a_frozen_teacher_and_what_it_computes_are_counted(splits, tmp_path):
    work = job(splits, tmp_path, with_teacher)
    found = estimate.estimate_bytes(work, FLOAT32)
    assert found["teacher"] == with_teacher("cpu", None).bytes > 8_000_000
    assert found["peak"] == pytest.approx(measured(work), rel=0.02)
    assert estimate.estimate_bytes(job(splits, tmp_path), FLOAT32)["teacher"] == 0


def test_several_processes_exchange_a_copy_of_the_gradients(splits, tmp_path, monkeypatch):
    alone = estimate.estimate_bytes(job(splits, tmp_path, batch_size=4), FLOAT32)
    monkeypatch.setenv("WORLD_SIZE", "2")
    found = estimate.estimate_bytes(job(splits, tmp_path, batch_size=8), FLOAT32)
    expected = {"buckets": alone["gradients"], "peak": alone["peak"] + alone["gradients"]}
    assert (alone["buckets"], found) == (0, alone | expected)


def test_what_is_not_counted_is_said(splits, tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "estimate_time", lambda *given: {})

    def plan(**settings):
        work = job(splits, tmp_path, **settings)
        return estimate.estimate_training(work)["not_counted"]

    assert plan() == ["loading of images, evaluation"]
    assert plan(compile=True)[1].startswith("--compile: memory and time are those without it")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert plan()[1] == "exchange of gradients between processes"


def test_weights_gradients_and_optimizer_by_hand(splits, tmp_path):
    network = models.build(job(splits, tmp_path).spec, seed=0)
    trained = sum(weight.numel() for weight in network.parameters())
    statistics = sum(buffer.nbytes for buffer in network.buffers())
    tensors = len(list(network.parameters()))
    # SGD: one momentum per weight. AdamW: two moments, and a step count of 4 bytes per tensor; amsgrad one moment more.
    for settings, optimizer in (
        ({"optimizer": "sgd"}, 4 * trained),
        ({"optimizer": "sgd", "momentum": 0.0, "ema_decay": 0.9}, 0),
        ({"optimizer": "adamw"}, 8 * trained + 4 * tensors),
        ({"optimizer": "adamw", "amsgrad": True}, 12 * trained + 4 * tensors),
    ):
        found = estimate.estimate_bytes(job(splits, tmp_path, **settings), FLOAT32)
        assert found["averaged"] == (4 * trained + statistics if "ema_decay" in settings else 0)
        expected = (4 * trained + statistics, 4 * trained, optimizer)
        assert (found["weights"], found["gradients"], found["optimizer"]) == expected


def test_state_bytes_are_those_of_the_batch_or_of_one_image(splits, tmp_path):
    # The tiny cells, 64 x 32 at strides 4, 4, 8, 16, 16: channels 4, 4, 6, 6, 8 on 16x8, 16x8, 8x4, 4x2 and 2x1.
    of_one = 4 * (4 * 16 * 8 + 4 * 16 * 8 + 6 * 8 * 4 + 6 * 4 * 2 + 8 * 2 * 1)
    found = {
        memory: estimate.estimate_bytes(job(splits, tmp_path, memory=memory), FLOAT32)["states"]
        for memory in ("slot", "mean", "none")
    }
    assert found == {"slot": 8 * of_one, "mean": of_one, "none": 0}


def test_the_states_of_losses_are_counted_and_timed(splits, tmp_path):
    work = job(splits, tmp_path, ptl=False, loss="ce+xbm+centre", xbm_size=100)
    found = estimate.estimate_training(work)
    # Embeddings of 1,024 numbers, labels of 8 bytes and a count; four centres.
    assert found["memory_bytes"]["states"] == 100 * (4 * 1024 + 8) + 8 + 4 * 4 * 1024
    assert found["time"]["timed_batch_size"] == 8


def test_activations_are_what_autograd_saves(splits, tmp_path):
    work = job(splits, tmp_path, backbone="resnet18", width=64)
    network = models.build(work.spec, seed=0).train()
    images = torch.zeros(8, 3, 64, 64)
    network(images)
    known = [*network.parameters(), *network.buffers(), *memory_state(network).values()]
    apart = {tensor.untyped_storage().data_ptr() for tensor in known}
    saved = {}

    def note(tensor):
        if tensor.untyped_storage().data_ptr() not in apart:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = network(images)
    for state in memory_state(network).values():  # the new ones, besides the old ones that backward needs
        note(state)
    # To 1%: the network's output is alive too.
    expected = sum(storage.nbytes() for storage in saved.values())
    assert estimate.estimate_bytes(work, FLOAT32)["activations"] == pytest.approx(expected, rel=0.01)
    del output


def test_mixed_precision_reduces_activations_only(splits, tmp_path):
    work = job(splits, tmp_path, backbone="resnet18", height=256, width=128, ptl=False)
    full, half = (
        estimate.estimate_bytes(work, Precision(dtype, channels_last=False)) for dtype in (None, torch.bfloat16)
    )
    assert half["activations"] < 0.85 * full["activations"]
    for name in ("weights", "gradients", "optimizer"):
        assert half[name] == full[name]


def test_time_covers_all_batches_of_all_epochs(splits, tmp_path, monkeypatch):
    work = job(splits, tmp_path, epochs=10**6)
    found = estimate.estimate_time(work, torch.device("cpu"), FLOAT32)
    assert found["timed_batch_size"] == 8
    # 16 images make 2 batches an epoch, and there are a million epochs.
    assert found["hours"] == pytest.approx(2e6 * found["seconds_per_batch"] / 3600, rel=0.02)
    assert found["images_per_second"] == pytest.approx(8 / found["seconds_per_batch"], rel=0.02)
    monkeypatch.setattr(estimate, "_SECONDS", 0.0)
    assert estimate.estimate_time(work, torch.device("cpu"), FLOAT32)["timed_batch_size"] == 2


def test_a_dry_run_leaves_the_global_generator_and_the_disk_alone(splits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1)
    work = job(splits, tmp_path, backbone="tiny-dropout")
    before = torch.get_rng_state()
    plan = estimate.estimate_training(work)
    assert torch.equal(torch.get_rng_state(), before)
    assert plan["steps"] == 50 * 2
    assert list(tmp_path.iterdir()) == []


def test_an_update_that_does_not_fit_is_not_timed(ptlreid, market_folder, monkeypatch):
    monkeypatch.setattr(estimate, "_free_bytes", lambda device: 1000)
    monkeypatch.setattr(estimate, "estimate_time", None)
    command = (*TRAIN, "--dry-run", "--root", market_folder.parent)
    assert json.loads(ptlreid(*command, "--json")[1])["time"] is None
    assert "unknown: one batch needs more memory than is free" in ptlreid(*command)[1]


def test_the_dry_run_without_json_has_units(ptlreid, market_folder):
    code, out, err = ptlreid(*TRAIN, "--dry-run", "--root", market_folder.parent)
    assert code == 0, err
    assert "memory.peak = " in out
    assert " MiB" in out
    assert "time.seconds_per_batch = " in out


@pytest.mark.parametrize("load", [1.5, None])
def test_the_dry_run_says_that_its_times_are_of_this_moment(ptlreid, market_folder, monkeypatch, load):
    if load is None:
        monkeypatch.delattr("os.getloadavg", raising=False)
    else:
        monkeypatch.setattr("os.getloadavg", lambda: (load, 7.0, 8.0), raising=False)
    monkeypatch.setattr(estimate, "available_cores", lambda: 4)
    out = ptlreid(*TRAIN, "--dry-run", "--root", market_folder.parent)[1]
    shown = "" if load is None else " (load average 1.5 on 4 cores)"
    last = out.splitlines()[-1]
    assert last == f"The times were measured at this moment, under the machine's present load{shown}."
    time = json.loads(ptlreid(*TRAIN, "--dry-run", "--json", "--root", market_folder.parent)[1])["time"]
    assert (time["load_average"], time["cores"]) == (load, 4)
