"""The steps that measure: matrix products, training steps by precision, and extraction from files and from a pack."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import inputs
import numpy as np
import torch
import torchvision
from inputs import CLASSES, Size
from record import Record
from torch.nn import functional as F

import ptlreid
from ptlreid import datasets, models
from ptlreid.devices import peak_bytes
from ptlreid.features import Extractor
from ptlreid.models.summary import summarize
from ptlreid.network_types import NetworkSpec
from ptlreid.progress import Silent
from ptlreid.settings import EvaluateSettings
from ptlreid.settings.prepare import PackSettings
from ptlreid.views import EvalView, standardize
from ptlreid.workflows.pack import pack

# (amp, TF32, channels last) by name; `compiled` steps add torch.compile to the last one.
VARIANTS = {
    "fp32": ("off", False, False),
    "TF32": ("off", True, False),
    "bf16": ("bf16", False, False),
    "bf16 + channels_last": ("bf16", False, True),
}
BATCH_SIZES = {"mgn": 16}  # of the paper; the others 32
BACKWARD = 3  # multiply-adds of an update over those of its forward pass


def machine(size: Size, record: Record) -> None:
    """The versions, the device, and the rate of its matrix products in each precision."""
    gpu = torch.cuda.get_device_properties(0) if size.cuda else None
    record.row(
        ptlreid=ptlreid.__version__,
        torch=torch.__version__,
        torchvision=torchvision.__version__,
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version(),
        device=gpu.name if gpu else "cpu",
        capability=f"{gpu.major}.{gpu.minor}" if gpu else None,
        gpu_bytes=gpu.total_memory if gpu else None,
        tflops=matrix_rates(size),
    )


def matrix_rates(size: Size) -> dict[str, float]:
    """The TFLOP/s of a large matrix product of random numbers, by precision."""
    types = {"fp32": (torch.float32, False), "TF32": (torch.float32, True), "bf16": (torch.bfloat16, False)}
    width = 256 if size.small else 8192
    rates = {}
    for name, (dtype, tf32) in types.items() if size.cuda else [("fp32", types["fp32"])]:
        one, other = (torch.randn(width, width, device=size.device, dtype=dtype) for _ in range(2))
        with inputs.tf32(tf32):
            seconds = time_calls(lambda one=one, other=other: one @ other, size, least=0.3)
        rates[name] = 2 * width**3 / seconds["median"] / 1e12
    return rates


def time_calls(call: Callable[[], object], size: Size, *, least: float) -> dict[str, float]:
    """Seconds of the first call, and those of one of the others: in groups, for `least` seconds in all.

    Each group waits for the GPU once, so that calls overlap with its work as they do in training. `low` and `high` are
    those of the fastest and the slowest group.
    """
    seconds = []
    for count in (1, 2, 5):  # the first, those that warm up, and one group to see how long they take
        seconds.append(time_group(call, size, count))
    groups = []
    began = time.perf_counter()
    while len(groups) < 4 or (time.perf_counter() - began < least and len(groups) < 100):
        groups.append(time_group(call, size, 1 if size.small else 5))
    groups.sort()
    return {"first": seconds[0], "median": groups[len(groups) // 2], "low": groups[0], "high": groups[-1]}


def time_group(call: Callable[[], object], size: Size, count: int) -> float:
    """The mean seconds of `count` calls."""
    wait(size)
    began = time.perf_counter()
    for _ in range(count):
        call()
    wait(size)
    return (time.perf_counter() - began) / count


def wait(size: Size) -> None:
    """Until the GPU has finished."""
    if size.cuda:
        torch.cuda.synchronize()


def training(size: Size, record: Record, backbone: str, *, compile_network: bool = False) -> None:
    """Images per second of training, in each precision, with a plain loop in the same process."""
    torch.backends.cudnn.benchmark = True
    rates = matrix_rates(size)
    for ptl in (False, True):
        name = f"{backbone}+PTL" if ptl else backbone
        batch = 4 if size.small else BATCH_SIZES.get(backbone, 32)
        flops = 2 * BACKWARD * batch * summarize(backbone, ptl, CLASSES).macs
        loops = {"plain loop": lambda ptl=ptl, batch=batch: plain_loop(size, backbone, ptl, batch)}
        for variant, (amp, tf32, last) in variants(size, compile_network=compile_network).items():
            changed = {"ptl": ptl, "amp": amp, "channels_last": last}
            loops[variant] = lambda changed=changed, tf32=tf32, batch=batch: our_loop(
                size, backbone, batch, changed, tf32=tf32, compile_network=compile_network
            )
        plain = None
        for variant, loop in loops.items():
            figures = measure(loop, size, batch)
            plain = plain or figures.get("images_per_second")
            rate = figures.get("images_per_second", 0.0)
            peak = rates.get("TF32" if variant == "plain loop" else variant.split(" ")[0]) or rates["fp32"]
            if rate and plain:
                figures |= {"of_matrix_rate": rate / batch * flops / 1e12 / peak, "of_plain_loop": rate / plain}
            record.row(network=name, variant=variant, batch_size=batch, **figures)
    if not size.cuda:
        record.note("TF32 and bf16 were left out: they need a GPU")


def variants(size: Size, *, compile_network: bool) -> dict[str, tuple[str, bool, bool]]:
    """The variants to measure."""
    chosen = VARIANTS if size.cuda else {"fp32": VARIANTS["fp32"], "fp32 + channels_last": ("off", False, True)}
    if not compile_network:
        return chosen
    *_, (name, values) = chosen.items()
    return {f"{name} + compile": values}


def measure(make_step: Callable[[], Callable[[], object]], size: Size, batch: int) -> dict[str, Any]:
    """Images per second and peak memory of a step; the error, if it ends in one."""
    gc.collect()
    if size.cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        seconds = time_calls(make_step(), size, least=0.0 if size.small else 1.5)
    except Exception as error:  # noqa: BLE001 - recorded, and the other variants are measured
        return {"error": f"{type(error).__name__}: {error}"[:300]}
    return {
        "images_per_second": batch / seconds["median"],
        "lowest": batch / seconds["high"],
        "highest": batch / seconds["low"],
        "first_step_seconds": seconds["first"],
        "peak_bytes": peak_bytes(torch.device(size.device)),
    }


def plain_loop(size: Size, backbone: str, ptl: bool, batch: int) -> Callable[[], float]:
    """A step as in torchreid: float32 images, TF32 as torch has it, the loss read after each update.

    The images are on the device already, which is to its advantage.
    """
    job = inputs.make_job(backbone, device=size.device, batch_size=batch, ptl=ptl)
    network = models.build(job.spec, seed=0).to(size.device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    images = [standardize(one.images.to(size.device)) for one in inputs.make_batches(job, 4)]
    source, labels = cycle(images), torch.arange(batch, device=size.device)

    def step() -> float:
        output = network(next(source))
        loss = torch.stack([F.cross_entropy(logits, labels) for logits in output.logits.values()]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def our_loop(
    size: Size, backbone: str, batch: int, changed: dict[str, Any], *, tf32: bool, compile_network: bool
) -> Callable[[], object]:
    """A step of the project's loop, from uint8 images in page-locked memory; losses are read ten at a time."""
    job = inputs.make_job(backbone, device=size.device, batch_size=batch, **changed)
    state = inputs.start(job)
    forward = None
    if compile_network:
        forward = torch.compile(state.network, backend="inductor" if size.cuda else "eager")
    steps = inputs.updates(job, state, cycle(inputs.make_batches(job, 4)), forward)
    pending: list[torch.Tensor] = []

    def step() -> None:
        with inputs.tf32(tf32):
            pending.append(torch.stack(list(next(steps).values())))
        if len(pending) == 10:
            torch.stack(pending).tolist()
            pending.clear()

    return step


def extraction(size: Size, record: Record) -> None:
    """Images per second of extraction from files and from a pack, next to the rate of the network alone."""
    count, rows = (4, 24) if size.small else (512, 16_384)
    folder = inputs.write_dataset(size.folder / "files", train=2, test=count, height=128, width=64)
    dataset = datasets.find(str(folder))
    paths = np.resize(dataset.read(folder).gallery.paths, rows)  # the same files many times, each decoded every time
    height, width = (64, 32) if size.small else (256, 128)
    for source in ("files", "pack"):
        if source == "pack":
            pack(dataset, folder, PackSettings(height=height, width=width), Silent())
        for amp in ("off", "bf16") if size.cuda else ("off",):
            extractor = make_extractor(size, amp, (height, width))
            alone, found = network_rate(size, extractor), stream_rate(extractor, paths)
            share = found["images_per_second"] / alone
            record.row(network=f"{size.network}+PTL", source=source, amp=amp, **found, network_alone=alone, share=share)


def make_extractor(size: Size, amp: str, shape: tuple[int, int]) -> Extractor:
    """The extractor of a network with cells."""
    network = models.build(NetworkSpec(size.network, True, "slot", CLASSES, *shape), seed=0)
    settings = EvaluateSettings.resolve(None, device=size.device, amp=amp, batch_size=4 if size.small else 64)
    return Extractor.from_network(network, EvalView(*shape), settings)


def network_rate(size: Size, extractor: Extractor) -> float:
    """Images per second of the network on a batch that is on the device."""
    rng = np.random.default_rng(0)
    view, batch = extractor.view, extractor.batch_size
    images = torch.from_numpy(inputs.random_images(rng, batch, view.height, view.width)).to(size.device)
    network = extractor.network.eval()
    with torch.inference_mode():
        seconds = time_calls(
            lambda: network.features(standardize(images), extractor.readout), size, least=0.0 if size.small else 1.0
        )
    return batch / seconds["median"]


def stream_rate(extractor: Extractor, paths: np.ndarray) -> dict[str, float]:
    """Images per second after the first batch, and the seconds until it."""
    began = time.perf_counter()
    done = times(extractor.stream(paths))
    first_rows, first = next(done)
    *_, (rows, last) = done
    return {"images_per_second": (rows - first_rows) / (last - first), "first_batch_seconds": first - began}


def times(steps: Iterator[np.ndarray]) -> Iterator[tuple[int, float]]:
    """The rows so far and the time, after each step."""
    rows = 0
    for step in steps:
        rows += len(step)
        yield rows, time.perf_counter()
