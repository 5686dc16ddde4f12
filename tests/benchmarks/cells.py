"""The cost of the cells: a PTL training step relative to the plain backbone's, next to the ratio of multiply-adds.

    python tests/benchmarks/cells.py --backbone resnet50 --batch-size 8

Steps of both networks alternate in one process, so that a drift in the machine's speed affects both; the ratio is that
of the medians. Images are random and in memory. On a GPU: bf16, channels_last, batch 32, with images per second and
peak memory.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from statistics import median
from types import MappingProxyType
from typing import Any

import torch
from torch.nn import functional as F

from ptlreid import models
from ptlreid.models.summary import summarize
from ptlreid.network_types import NetworkSpec

CLASSES = 751


def make_step(
    backbone: str,
    ptl: bool,
    batch_size: int,
    device: torch.device,
    *,
    size: tuple[int, int] | None = None,
    channels_last: bool = False,
    head: Mapping[str, Any] = MappingProxyType({}),
) -> Callable[[], float]:
    """A function that runs one training step and returns its seconds; `channels_last` on a GPU in any case.

    `head`: settings of the head, such as `last_stride`, where they are not the paper's.
    """
    height, width = size or models.find(backbone).input_size
    network = models.build(NetworkSpec(backbone, ptl, "slot", CLASSES, height, width, **head), seed=0).to(device)
    network.train()
    images = torch.randn(batch_size, 3, height, width, device=device)
    if channels_last or device.type == "cuda":
        network, images = network.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    labels = torch.arange(batch_size, device=device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9)

    def step() -> float:
        began = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            output = network(images)
            loss = torch.stack([F.cross_entropy(logits, labels) for logits in output.logits.values()]).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", nargs="+", default=["resnet50", "densenet161"])
    parser.add_argument("--batch-size", type=int, default=0, help="default: 8 on a CPU, 32 on a GPU")
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch_size = options.batch_size or (32 if device.type == "cuda" else 8)
    for backbone in options.backbone:
        steps = {ptl: make_step(backbone, ptl, batch_size, device) for ptl in (False, True)}
        for ptl in (False, True):
            for _ in range(3):
                steps[ptl]()
        seconds = {False: [], True: []}
        for _ in range(options.steps):
            for ptl in (False, True):
                seconds[ptl].append(steps[ptl]())
        plain, ptl = median(seconds[False]), median(seconds[True])
        macs = [summarize(backbone, ptl, CLASSES).macs for ptl in (False, True)]
        print(
            f"{backbone}: plain {plain:.3f} s, PTL {ptl:.3f} s per step of {batch_size} ({batch_size / plain:.1f} and "
            f"{batch_size / ptl:.1f} images/s): time ratio {ptl / plain:.3f}, multiply-adds {macs[1] / macs[0]:.3f}"
        )
        if device.type == "cuda":
            print(f"  peak memory of both {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
