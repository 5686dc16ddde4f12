"""The cost of each head: a training step over that with the paper's head, next to the ratio of multiply-adds.

    OMP_NUM_THREADS=1 python tests/benchmarks/heads.py

Steps of all heads take turns in one process; the ratio is that of the medians. Images are random and in memory, in
channels-last format.
"""

from __future__ import annotations

import argparse
from statistics import median
from typing import Any

import torch
from cells import CLASSES, make_step

from ptlreid import models
from ptlreid.models.summary import count_macs
from ptlreid.network_types import NetworkSpec

BOT = {"last_stride": 1, "neck": "bn", "classifier": "linear", "feature_width": 0}
HEADS: dict[str, dict[str, Any]] = {
    "paper": {},
    "neck": {"neck": "bn"},
    "max": {"pool": "max"},
    "gem": {"pool": "gem"},
    "linear": {"classifier": "linear"},
    "feature width 0": {"feature_width": 0},
    "last stride 1": {"last_stride": 1},
    "bot": BOT,
    "agw": BOT | {"pool": "gem"},
}


def count(spec: NetworkSpec) -> int:
    """Multiply-adds of the forward pass for one image."""
    with torch.device("meta"):
        network = models.build(spec, seed=0).train()
    return count_macs(network, spec)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", nargs="+", default=["resnet50", "mobilenet-v2"])
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=7)
    options = parser.parse_args()
    size = (options.height, options.width)
    for backbone in options.backbone:
        for ptl in (False, True):
            device = torch.device("cpu")
            steps = {
                name: make_step(backbone, ptl, options.batch_size, device, size=size, channels_last=True, head=head)
                for name, head in HEADS.items()
            }
            seconds: dict[str, list[float]] = {name: [] for name in HEADS}
            for number in range(options.steps + 1):
                for name, step in steps.items():
                    taken = step()
                    if number:  # the first is a warm-up
                        seconds[name].append(taken)
            macs = {
                name: count(NetworkSpec(backbone, ptl, "slot", CLASSES, *size, **head)) for name, head in HEADS.items()
            }
            print(f"{backbone}{'+PTL' if ptl else ''}, {options.batch_size} images of {size[0]}x{size[1]}")
            for name in HEADS:
                times = median(seconds[name]) / median(seconds["paper"])
                print(f"  {name}: time {times:.2f}, multiply-adds {macs[name] / macs['paper']:.2f}")


if __name__ == "__main__":
    main()
