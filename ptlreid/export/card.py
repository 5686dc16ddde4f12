"""The card of an exported graph: what a program needs to use it, and what a person needs to trust it.

docs/file-formats.md describes `<stem>.json`. `card_page` makes a page of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ptlreid
from ptlreid.card_schema import CameraInput, FeatureOutput, ImageInput
from ptlreid.errors import PtlreidError
from ptlreid.export import formats
from ptlreid.export.graph import CAMERA, FEATURES, IMAGES
from ptlreid.features import Extractor
from ptlreid.models.weights import WeightsFile
from ptlreid.network_types import NetworkSpec, Readout
from ptlreid.runs import RunFolder
from ptlreid.settings import ExportSettings, FinetuneSettings
from ptlreid.thresholds_schema import Calibration
from ptlreid.views import MEAN, STD

SCHEMA = 1
USE = (
    "Retrieval of one person among crops of people, each crop the box of one detection: distances between features say "
    "which crops are likely of one identity. Other objects only if the network was trained on them."
)
LIMITS = (
    "Scores and thresholds hold for the cameras of the dataset they are of, and may be far off at other ones: measure "
    "with `ptlreid evaluate --model` and `ptlreid calibrate --model` on images of yours. A match is a likelihood, not "
    "a proof of identity."
)


def describe_input(spec: NetworkSpec, settings: ExportSettings) -> ImageInput:
    """The images that the graph of a network takes."""
    pixels = settings.with_preprocessing and not settings.planar
    return {
        "name": IMAGES,
        "layout": "NHWC" if pixels else "NCHW",
        "dtype": "uint8" if pixels else "float32",
        "height": spec.height,
        "width": spec.width,
        "color": "RGB",
        "mean": list(MEAN),
        "std": list(STD),
        "interpolation": spec.interpolation,
        "preprocessing": "graph" if settings.with_preprocessing else "caller",
    }


def describe_output(readout: Readout, width: int) -> FeatureOutput:
    """The features that the graph returns."""
    return {"name": FEATURES, "width": width, "flip": readout.flip, "normalize": readout.normalize}


def describe_cameras(names: list[tuple[str, int]]) -> CameraInput | None:
    """The second input of a graph that has statistics of these cameras; None for none."""
    return {"input": CAMERA, "names": [{"data": data, "camera": camera} for data, camera in names]} if names else None


def describe_origin(run: RunFolder, weights: WeightsFile, settings: ExportSettings) -> dict[str, Any]:
    """What the graph was made from and how: network, weights, training and licence."""
    return {
        "run": run.path.name,
        "weights": {"digest": weights.digest, "which": settings.weights, "licence": find_licence(run)},
        "network": weights.spec.describe(),
        "precision": "float16" if settings.half else "float32",
        "camera": settings.camera,
        "metric": settings.metric,
        "training": _describe_training(run),
        "opset": formats.OPSET,
        "version": ptlreid.__version__,
        "use": USE,
        "limits": LIMITS,
    }


def own_thresholds(calibration: Calibration | None) -> dict[str, float]:
    """The thresholds that were measurable, by name."""
    if calibration is None:
        return {}
    points = [*calibration["operating_points"], *calibration["open_set"]]
    return {point["name"]: point["threshold"] for point in points if point["threshold"] is not None}


def readout_of(extractor: Extractor) -> Readout:
    """How the graph reads features: as the run does, in the precision of the graph."""
    return replace(extractor.readout, amp="off", channels_last=False)


def last_names(text: str) -> str:
    """A name, or several joined by +, without the folders that they may be in on this machine."""
    return "+".join(Path(name).name for name in text.split("+"))


def find_licence(run: RunFolder) -> str:
    """What is known about the licence of the weights that the run began with, followed from run to run."""
    for _ in range(20):  # runs on runs; a chain may be long, and a damaged one go round
        settings = run.settings()
        init = getattr(settings, "run", None) or settings.init
        if init == "none":
            return "trained from random weights: no other weights are part of it"
        if init == "imagenet":
            return _describe_imagenet(settings)
        name = Path(init)
        before = next((one for one in (run.path.parent / name, name) if (one / "config.toml").is_file()), None)
        if before is None:
            return f"not known: trained from {name.name}, whose licence holds for these weights as well"
        run = RunFolder(before)
    return "not known: it follows from too many runs"


def _describe_imagenet(settings: FinetuneSettings) -> str:
    if not settings.backbone.startswith("timm:"):
        return "trained from torchvision's ImageNet weights (torchvision: BSD-3-Clause; ImageNet: for research)"
    import timm

    name = settings.backbone.removeprefix("timm:")
    config = timm.models.get_pretrained_cfg(name)
    licence = getattr(config, "license", None) or "not stated by timm"
    return f"trained from timm's weights of {name} (licence: {licence})"


def _describe_training(run: RunFolder) -> dict[str, Any]:
    settings = run.settings()
    try:
        manifest: Mapping[str, Any] = run.read_manifest()
    except PtlreidError:  # a run that a bundle brought, or of an earlier version
        manifest = {}
    return {
        "method": settings.method,
        "data": last_names(settings.data),
        "init": last_names(settings.init),
        "epochs": settings.epochs,
        "loss": settings.loss,
        "seed": settings.seed,
        "images": manifest.get("images"),
        "identities": manifest.get("identities"),
        "digest": manifest.get("digest"),
    }
