"""What an adaptation starts from, without torch: the settings that it takes from its run, digests, and images."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from ptlreid import datasets
from ptlreid.errors import OptionError
from ptlreid.files import file_digest
from ptlreid.models.camera_statistics import cameras_file
from ptlreid.models.weights import WeightsFile, read_weights_header
from ptlreid.network_types import HEAD
from ptlreid.records import Splits
from ptlreid.runs import RunFolder, find_run
from ptlreid.settings import AdaptSettings


class Resolve(Protocol):
    """Resolves the settings that were given, with more values: see `Settings.resolve`."""

    def __call__(self, **more: Any) -> AdaptSettings: ...


def resolve_settings(resolve: Resolve, runs: Path) -> AdaptSettings:
    """The settings with those that were not given taken from the run: backbone, cells and images.

    Raises `OptionError` without a run or a dataset, and for a network that the run's weights do not fit.
    """
    given = resolve()
    if given.run is None:
        raise OptionError("No run given: expected a finished run to adapt. Name it with --run.")
    if "data" not in given.model_fields_set:
        raise OptionError("No dataset given: expected one of the cameras to adapt to. Name it with --data.")
    spec = read_weights_header(find_run(runs, given.run).weights()).spec
    values = {name: getattr(spec, name) for name in ("ptl", "memory", "height", "width", "interpolation", *HEAD)}
    missing = {name: value for name, value in values.items() if name not in given.model_fields_set}
    epochs = {"epochs": 0} if given.method_ == "cameras" else {}
    settings = resolve(**missing, **epochs, backbone=spec.backbone, init=given.run)
    for name in ("backbone", *HEAD):
        if name in given.model_fields_set and getattr(given, name) != getattr(spec, name):
            raise OptionError(
                f"{name} = {getattr(given, name)!r}: expected {getattr(spec, name)!r}, as the run {given.run}. "
                f"Leave {name} out."
            )
    if spec.ptl and not settings.ptl:
        raise OptionError(
            f"--no-ptl: expected cells, as the run {given.run} has them. Leave --no-ptl out, and distil the adapted "
            "run into a plain backbone with `ptlreid distill`."
        )
    if settings.ptl and not spec.ptl and not settings.epochs:
        raise OptionError(
            f"--ptl: adds cells to the run {given.run}, which nothing trains: expected epochs of training. Leave --ptl "
            "out, or use --method cluster."
        )
    return settings


def find_source(settings: AdaptSettings, runs: Path) -> RunFolder:
    """The run that is adapted."""
    assert settings.run is not None, "set by resolve_settings"
    return find_run(runs, settings.run)


def read_source(settings: AdaptSettings, runs: Path) -> WeightsFile:
    """The weights of the run that is adapted, not loaded."""
    return read_weights_header(find_source(settings, runs).weights())


def source_digests(settings: AdaptSettings, runs: Path) -> dict[str, str]:
    """Digests of the run's weights (`run`), and of its own camera statistics (`cameras`), if it has any."""
    weights = read_source(settings, runs)
    cameras = cameras_file(weights.path)
    return {"run": weights.digest} | ({"cameras": file_digest(cameras)} if cameras.is_file() else {})


def training_images(settings: AdaptSettings, splits: Splits) -> Splits:
    """The splits that are trained on: without identities, and with the images of the dataset that is trained along.

    Raises `OptionError` if the two share images.
    """
    site = splits.without_identities()
    if settings.with_ is None:
        return site
    labelled = datasets.load(settings.with_, Path(settings.root)).require_train().train
    if set(labelled.paths) & set(site.train.paths):
        raise OptionError(
            f"--with {settings.with_}: has images of {splits.name}: expected another dataset, as the site's identities "
            "are not used. Leave --with out, or name the dataset that the run was trained on."
        )
    train = site.train.join(labelled)
    return Splits(site.name, train, site.query, site.gallery, site.protocol)
