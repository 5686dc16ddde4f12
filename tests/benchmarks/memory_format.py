"""A training step on a CPU in channels-last memory format, over the same step in contiguous format.

    OMP_NUM_THREADS=1 python tests/benchmarks/memory_format.py

Steps of both formats alternate in one process; the ratio is that of the medians. Images are random and in memory.
"""

from __future__ import annotations

import argparse
from statistics import median

import torch
from cells import make_step

# Backbone, batch size, image height and width.
CASES = (
    ("mobilenet-v2", 32, (128, 64)),
    ("mobilenet-v3-small", 16, (128, 64)),
    ("osnet-x0-25", 16, (128, 64)),
    ("resnet18", 16, (128, 64)),
    ("densenet121", 8, (256, 128)),
    ("convnext-tiny", 8, (256, 128)),
    ("resnet50", 8, (256, 128)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    for backbone, batch_size, size in CASES:
        ratios = []
        for ptl in (False, True):
            device = torch.device("cpu")
            steps = [
                make_step(backbone, ptl, batch_size, device, size=size, channels_last=last) for last in (False, True)
            ]
            seconds: list[list[float]] = [[], []]
            for number in range(options.steps + 1):
                for step, times in zip(steps, seconds, strict=True):
                    taken = step()
                    if number:  # the first is a warm-up
                        times.append(taken)
            ratios.append(median(seconds[1]) / median(seconds[0]))
        print(f"{backbone}, {batch_size} images of {size[0]}x{size[1]}: plain {ratios[0]:.2f}, PTL {ratios[1]:.2f}")


if __name__ == "__main__":
    main()
