"""The steps that measure matrix products, and training steps by precision."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from functools import partial
from math import isnan, nan
from typing import Any

import torch
import torchvision
from inputs import CLASSES, Size
from loops import bare_loop, our_loop, plain_loop
from record import Record

import ptlreid
from ptlreid.devices import float32_arithmetic, peak_bytes
from ptlreid.models.summary import summarize

# (amp, channels last) by name; `compiled` steps add torch.compile to the last one.
VARIANTS = {
    "fp32": ("off", False),
    "TF32": ("tf32", False),
    "bf16": ("bf16", False),
    "bf16 + channels_last": ("bf16", True),
}
FASTEST = "bf16 + channels_last"
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
    for name in ("fp32", *(amp.replace("tf32", "TF32") for amp in size.precisions if amp in ("tf32", "bf16"))):
        dtype, tf32 = types[name]
        one, other = (torch.randn(width, width, device=size.device, dtype=dtype) for _ in range(2))
        with float32_arithmetic(tf32=tf32):
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
    """Images per second of training in each precision, plain loops in the same process, and what is aimed at."""
    tflops = matrix_rates(size)
    rates: dict[bool, dict[str, float]] = {}
    for ptl in (False, True):
        name = f"{backbone}+PTL" if ptl else backbone
        batch = 4 if size.small else BATCH_SIZES.get(backbone, 32)
        operations = 2 * BACKWARD * summarize(backbone, ptl, CLASSES).macs
        rates[ptl] = {}
        for variant, loop in variants(size, backbone, ptl, batch, compile_network=compile_network).items():
            figures = measure(loop, size, batch)
            if "images_per_second" in figures:
                rate = rates[ptl][variant] = figures["images_per_second"]
                figures["of_matrix_rate"] = rate * operations / 1e12 / tflops[_unit(variant, tflops)]
                figures["of_plain_loop"] = rate / rates[ptl].get("plain loop", rate)
            record.row(network=name, variant=variant, batch_size=batch, **figures)
    if size.small:
        record.note("no aims with tiny networks")
    else:
        compare(record, backbone, rates)


def _unit(variant: str, tflops: dict[str, float]) -> str:
    """The precision of the matrix products to compare a variant with."""
    names = ["TF32" if variant == "plain loop" else variant, *variant.split(), "fp32"]
    return next(name for name in names if name in tflops)


def variants(
    size: Size, backbone: str, ptl: bool, batch: int, *, compile_network: bool
) -> dict[str, Callable[[], Callable[[], object]]]:
    """The variants by name: each makes a function that runs one update."""
    found: dict[str, Callable[[], Callable[[], object]]] = {}
    found["plain loop"] = partial(plain_loop, size, backbone, ptl, batch)
    chosen = {name: values for name, values in VARIANTS.items() if values[0] in size.precisions}
    if "bf16" not in size.precisions:
        chosen["fp32 + channels_last"] = ("off", True)
    *_, (last, values) = chosen.items()
    if compile_network:
        return found | {f"{last} + compile": partial(our_loop, size, backbone, ptl, batch, *values, True)}
    for name, values in chosen.items():
        found[name] = partial(our_loop, size, backbone, ptl, batch, *values, False)
    return found | {f"bare loop, {last}": partial(bare_loop, size, backbone, ptl, batch, *values)}


def compare(record: Record, backbone: str, rates: dict[bool, dict[str, float]]) -> None:
    """The project's aims for a GPU; one that is missed does not change the exit code."""
    for ptl, name in ((False, backbone), (True, f"{backbone}+PTL")):
        fastest = max((rate for variant, rate in rates[ptl].items() if variant.startswith("bf16")), default=nan)
        plain, bare = (rates[ptl].get(variant, nan) for variant in ("plain loop", f"bare loop, {FASTEST}"))
        if ptl:
            record.check(f"{name}, fastest in bf16 over the plain loop", fastest / plain, at_least=2.0)
        if not isnan(bare):
            record.check(f"{name}, {FASTEST}, over a bare loop", rates[ptl].get(FASTEST, nan) / bare, at_least=0.97)
    macs = summarize(backbone, True, CLASSES).macs / summarize(backbone, False, CLASSES).macs
    for variant in rates[True].keys() & rates[False].keys() & {"fp32", FASTEST}:
        record.check(
            f"{backbone}, {variant}: time of a PTL step over that of a plain one",
            rates[False][variant] / rates[True][variant],
            at_most=macs,
        )


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
