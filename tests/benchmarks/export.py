"""Exported ONNX graphs of all networks: agreement with torch on real crops, size, and speed in onnxruntime.

    OMP_NUM_THREADS=1 python tests/benchmarks/export.py CROPS
    OMP_NUM_THREADS=1 python tests/benchmarks/export.py CROPS --backbone all --height 96 --width 64 --images 64

CROPS is a folder with images in it or below.

Weights are random, and batch norm has the statistics of the crops. Features are read as the network's own readout says,
MGN's flipped and normalised. Speed is that of batches of 32, the fastest of three rounds in which both take turns.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from ptlreid import models
from ptlreid.export import formats
from ptlreid.export.card import describe_input, describe_output
from ptlreid.export.gate import FeatureGap
from ptlreid.export.graph import FeatureGraph, trace
from ptlreid.export.runtimes import digest, open_exported
from ptlreid.export.speed import measure_speed
from ptlreid.features import Extractor
from ptlreid.json_files import write_json
from ptlreid.network_types import NetworkSpec
from ptlreid.plugins import names
from ptlreid.progress import Silent
from ptlreid.settings import EvaluateSettings, ExportSettings
from ptlreid.views import EvalView, decode, resize, standardize

PAPER = ["resnet50", "densenet161", "mgn", "osnet-x1-0", "osnet-x0-25"]


def settle(network: torch.nn.Module, pixels: np.ndarray) -> None:
    """Give batch norm the statistics of the crops, without which deep maps are of extreme sizes."""
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None  # a plain mean over batches
    with torch.no_grad():
        network.train()(standardize(torch.from_numpy(pixels)))
    network.eval()


def measure(backbone: str, ptl: bool, paths: list[Path], options: argparse.Namespace) -> str:
    """A row of the table."""
    height, width = (options.height, options.width) if options.height else models.find(backbone).input_size
    spec = NetworkSpec(backbone, ptl, "none", 100, height, width)
    network, view = models.build(spec, seed=0), EvalView(height, width)
    settle(network, resize([decode(path) for path in paths[:32]], view))
    settings, chosen = EvaluateSettings.make(device="cpu", workers=0), ExportSettings.make()
    run = Extractor.from_network(network, view, settings)
    before = run.extract(paths).matrix
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        image = describe_input(spec, chosen)
        start = time.perf_counter()
        copy = models.build(spec, seed=0)
        copy.load_state_dict(network.state_dict())
        graph = FeatureGraph(copy, network.readout, norms=None, centres=None, image=image, half=False)
        formats.write(trace(graph), file, {}, half=False)
        seconds = time.perf_counter() - start
        output = describe_output(network.readout, network.feature_width)
        card = {"digest": digest(file), "input": image, "output": output, "cameras": None}
        write_json(file.with_suffix(".json"), card)
        exported = Extractor.from_graph(open_exported(file, card, Silent(), half=False), settings)
        gap = FeatureGap.between(before, exported.extract(paths).matrix)
        pixels = resize([decode(path) for path in paths[:32]], view)
        speed = measure_speed({"graph": exported.run_batch, "torch": run.run_batch}, pixels)[-1]
        megabytes = file.stat().st_size / 1e6
    name = f"{backbone}{' + PTL' if ptl else ''}"
    figures = f"{1 - gap.min_cosine:.1e} | {gap.max_relative:.1e} | {megabytes:.0f} | {seconds:.0f}"
    rates = f"{speed['graph']:.1f} | {speed['torch']:.1f} | {speed['graph'] / speed['torch']:.2f}"
    return f"| {name} | {height}×{width} | {figures} | {rates} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", nargs="+", default=PAPER, help="all for every one.")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--height", type=int, default=None)
    parser.add_argument("--width", type=int, default=None)
    parser.add_argument("--ptl", choices=["both", "on", "off"], default="both")
    options = parser.parse_args()
    paths = sorted(options.folder.glob("**/*.jpg"))
    paths = [paths[row] for row in np.random.default_rng(0).permutation(len(paths))[: options.images]]
    chosen = names(models.backbones) if options.backbone == ["all"] else options.backbone
    print("| network | images | 1 - cosine | relative | MB | seconds | graph | torch | ratio |")
    for backbone in chosen:
        for ptl in {"both": (False, True), "on": (True,), "off": (False,)}[options.ptl]:
            print(measure(backbone, ptl, paths, options), flush=True)


if __name__ == "__main__":
    main()
