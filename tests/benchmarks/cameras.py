"""The speed of extraction with statistics of cameras, relative to extraction without.

    OMP_NUM_THREADS=1 python tests/benchmarks/cameras.py

Both compute the features of the same batch in memory, alternating in one process, with CPU time. Its images are of
eight cameras, in random order. The ratio is the median over pairs of turns.
"""

from __future__ import annotations

import argparse
import time
from statistics import median, quantiles

import numpy as np
import torch

from ptlreid import models
from ptlreid.features import Extractor
from ptlreid.models.camera_norm import find_norms
from ptlreid.models.camera_statistics import CameraStatistics
from ptlreid.network_types import NetworkSpec
from ptlreid.settings import EvaluateSettings
from ptlreid.views import EvalView

CAMERAS = 8


def made_up_statistics(network: torch.nn.Module, width: int) -> CameraStatistics:
    """Statistics near the network's own, different for each camera."""
    rng = np.random.default_rng(0)
    norms = {}
    for name, norm in find_norms(network).items():
        if "classifier" not in name:
            size = (CAMERAS, norm.num_features)
            norms[name] = rng.normal(0, 0.1, size).astype(np.float32), rng.uniform(0.5, 2, size).astype(np.float32)
    names = [("site", number) for number in range(CAMERAS)]
    return CameraStatistics(names, np.full(CAMERAS, 100), norms, np.zeros((2, CAMERAS + 1, width), np.float32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbones", nargs="*", default=["mobilenet-v2", "resnet50"])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--turns", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for backbone in options.backbones:
        for ptl in (False, True):
            spec = NetworkSpec(backbone, ptl, "slot", 10, options.height, options.width)
            network = models.build(spec, seed=0).eval()
            view = EvalView(options.height, options.width)
            plain = Extractor.from_network(network, view, EvaluateSettings(device="cpu"))
            cameras = made_up_statistics(network, network.feature_width)
            adapted = Extractor.from_network(network, view, EvaluateSettings(device="cpu"), cameras)
            rng = np.random.default_rng(0)
            size = (options.batch_size, options.height, options.width, 3)
            images = torch.from_numpy(rng.integers(0, 256, size, dtype=np.uint8))
            rows = rng.integers(0, CAMERAS, options.batch_size)
            ratios = []
            for turn in range(options.turns + 1):
                seconds = []
                for extractor, known in ((plain, None), (adapted, rows)):
                    began = time.process_time()
                    extractor._forward(images, known)
                    seconds.append(time.process_time() - began)
                if turn:  # the first one allocates
                    ratios.append(seconds[1] / seconds[0])
            low, _, high = quantiles(ratios, n=4)
            name = f"{backbone}{'+PTL' if ptl else ''}"
            print(f"{name}: time with cameras over without {median(ratios):.3f} (quartiles {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
