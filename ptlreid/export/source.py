"""A run that is exported, with its features on the test images that a graph is compared on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ptlreid.calibrations import FeatureOrigin, match_calibration
from ptlreid.errors import OptionError
from ptlreid.export import card as cards
from ptlreid.features import Extractor
from ptlreid.models.camera_statistics import CameraStatistics
from ptlreid.models.weights import WeightsFile
from ptlreid.progress import Progress
from ptlreid.records import UNKNOWN_CAMERA, Records, Splits
from ptlreid.retrieval.protocols import find_protocol
from ptlreid.retrieval.types import Features, Retrieval
from ptlreid.runs import RunFolder
from ptlreid.settings import ExportSettings
from ptlreid.thresholds_schema import Calibration

SITE = "site"  # the camera of images whose camera is not known


@dataclass(frozen=True)
class Source:
    """A run that is exported. `camera`: the row of the only camera that the graph is for, None for all.

    `calibration`: that of its features; None for one camera, whose features of other cameras' images differ.
    """

    run: RunFolder
    splits: Splits
    settings: ExportSettings
    extractor: Extractor
    weights: WeightsFile
    camera: int | None
    calibration: Calibration | None

    @classmethod
    def of(cls, run: RunFolder, splits: Splits, settings: ExportSettings) -> Source:
        """The run with its thresholds, if it is calibrated; `OptionError` for a camera that it does not know."""
        extractor = Extractor.from_run(run, settings)
        assert isinstance(extractor.model, WeightsFile)
        camera = _find_camera(extractor.cameras, settings.camera)
        origin = FeatureOrigin.of(extractor, settings.metric)
        calibration = match_calibration(run, origin) if camera is None else None
        return cls(run, splits.require_test(), settings, extractor, extractor.model, camera, calibration)

    @property
    def statistics(self) -> CameraStatistics | None:
        """The statistics of cameras that the graph needs."""
        cameras = self.extractor.cameras
        return cameras if isinstance(cameras, CameraStatistics) else None

    def describe(self) -> dict[str, Any]:
        """The part of the card that is known before there is a graph."""
        spec, readout = self.weights.spec, cards.readout_of(self.extractor)
        names = self.statistics.names if self.statistics and self.camera is None else []
        return {
            "input": cards.describe_input(spec, self.settings),
            "output": cards.describe_output(readout, self.extractor.network.feature_width),
            "cameras": cards.describe_cameras(names),
            **cards.describe_origin(self.run, self.weights, self.settings),
            "thresholds": self.calibration,
        }

    def extract(self, extractor: Extractor, sample: Splits, progress: Progress) -> Retrieval:
        """The features of a part of the test set by this extractor, with the cameras of the dataset."""

        def features(part: Records) -> Features:
            return replace(extractor.extract(self.place(part), progress=progress), camids=part.camids)

        protocol = find_protocol(self.settings.protocol or sample.protocol)
        return Retrieval(features(sample.query), features(sample.gallery), protocol)

    def place(self, part: Records) -> Records:
        """The images as taken by the only camera that the graph is for."""
        if self.camera is None or self.statistics is None:
            return part
        names = self.statistics.names
        data, number = names[self.camera] if self.camera < len(names) else ("", UNKNOWN_CAMERA)
        sources = np.full(len(part), data, dtype=object)
        return replace(part, sources=sources, camids=np.full_like(part.camids, number))


def _find_camera(cameras: object, name: str | None) -> int | None:
    """The row of the camera called `name`; None for all."""
    if name is None:
        return None
    if not isinstance(cameras, CameraStatistics):
        raise OptionError(f"--camera {name}: the run has no statistics of cameras, expected none. Leave it out.")
    known = [str(number) for _, number in cameras.names]
    names = {f"{data}:{number}": row for row, (data, number) in enumerate(cameras.names)}
    names |= {number: row for row, number in enumerate(known) if known.count(number) == 1}
    names[SITE] = len(cameras.names)
    if name not in names:
        raise OptionError(
            f"--camera {name}: no such camera: expected one of {', '.join(names)}. Choose one, or leave it out."
        )
    return names[name]
