"""The thresholds of a run on disk: saved by `ptlreid calibrate`, and found by name for the features they belong to.

    origin = FeatureOrigin.of(extractor, "euclidean")
    threshold = find_threshold(run, "far=0.001", origin)  # a pair is accepted if its distance is below

A distance depends on weights, readout, statistics of cameras and metric, so a threshold does, too: each combination has
a calibration of its own, and for another one there is an error that says what differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ptlreid.errors import DataError, OptionError
from ptlreid.features import Extractor
from ptlreid.json_files import read_json, write_json
from ptlreid.locks import wait_for_lock
from ptlreid.network_types import Readout
from ptlreid.progress import Progress
from ptlreid.retrieval.centring import Metric
from ptlreid.runs import RunFolder
from ptlreid.thresholds_schema import Calibration, Thresholds

EQUAL_ERROR = "eer"


@dataclass(frozen=True)
class FeatureOrigin:
    """What distances depend on besides the images. `camera_statistics`: the digest of their file, "" for none.

    Not whether features are rounded to float16, which changes distances by a few millionths: docs/thresholds.md.
    """

    weights_digest: str
    readout: Readout
    camera_statistics: str
    metric: Metric

    @classmethod
    def of(cls, extractor: Extractor, metric: Metric) -> FeatureOrigin:
        """The origin of the features of a weights file or a graph."""
        cameras = extractor.cameras.digest if extractor.cameras else ""
        return cls(extractor.digest, extractor.readout, cameras, metric)

    def describe(self) -> dict[str, Any]:
        """The keys of a calibration that have to be equal."""
        return {
            "weights_digest": self.weights_digest,
            "readout": self.readout.describe(),
            "camera_statistics": self.camera_statistics,
            "metric": self.metric,
        }


def name_far(rate: float) -> str:
    """The name of the operating point of pairs with this false accept rate: `far=0.001`."""
    return f"far={rate:g}"


def name_open_set(rate: float) -> str:
    """The name of the operating point of searches with this false alarm rate: `open-set=0.01`."""
    return f"open-set={rate:g}"


def find_threshold(run: RunFolder, name: str, origin: FeatureOrigin) -> float:
    """The threshold called `name`, for features of this origin: a pair is accepted if its distance is below it.

    `name`: `eer`, `far=RATE` (of pairs) or `open-set=RATE` (of searches), with a rate that was calibrated, such as
    `far=1e-3`. Raises `OptionError` for any other, for one that is not measurable, and as `find_calibration`.
    """
    calibration = find_calibration(run, origin)
    points = {point["name"]: point for point in (*calibration["operating_points"], *calibration["open_set"])}
    point = points.get(_normalise(name))
    if point is None:
        raise OptionError(
            f"threshold {name}: expected one of {', '.join(points)}. Calibrate {run.path} with another rate in "
            "--false-accept-rates or --open-set-rates."
        )
    if point["threshold"] is None:
        raise OptionError(
            f"threshold {name}: {point.get('note', 'not measurable')} of {calibration['data']}. Choose a higher rate, "
            f"or calibrate {run.path} on a larger dataset."
        )
    return point["threshold"]


def find_calibration(run: RunFolder, origin: FeatureOrigin) -> Calibration:
    """The calibration of a run for features of this origin.

    Raises `OptionError` if there is none, naming what differs from the latest; `DataError` if the file is damaged.
    """
    calibrations = read_calibrations(run)
    if not calibrations:
        raise OptionError(
            f"{run.thresholds}: no such file, expected the thresholds of this run. Measure them with "
            f"`ptlreid calibrate {run.option}`."
        )
    if found := match_calibration(run, origin):
        return found
    differences = _describe_differences(_origin_of(calibrations[-1]), origin.describe())
    raise OptionError(
        f"{run.thresholds}: its thresholds are of other features ({'; '.join(differences)}): expected the same. "
        "Calibrate again with the settings that the features are used with."
    )


def match_calibration(run: RunFolder, origin: FeatureOrigin) -> Calibration | None:
    """The calibration of a run for features of this origin, None without one; `DataError` if the file is damaged."""
    wanted = origin.describe()
    return next((one for one in reversed(read_calibrations(run)) if _origin_of(one) == wanted), None)


def read_calibrations(run: RunFolder) -> list[Calibration]:
    """All calibrations of a run, the latest last; `DataError` if the file is damaged or edited."""
    measured = read_json(run.thresholds, Thresholds, _REMEDY)["calibrations"] if run.thresholds.exists() else []
    return [*run.issued_calibrations, *measured]


def save_calibration(run: RunFolder, calibration: Calibration, progress: Progress) -> str | None:
    """Add a calibration to those of the run, in place of one of the same origin; the dataset of that one, if any.

    A damaged file is replaced. One process at a time adds its own.
    """
    with wait_for_lock(run.thresholds, progress, command="ptlreid calibrate"):
        try:
            previous = read_calibrations(run)
        except DataError:
            previous = []
        origin = _origin_of(calibration)
        replaced = next((one["data"] for one in previous if _origin_of(one) == origin), None)
        others = [one for one in previous if _origin_of(one) != origin]
        write_json(run.thresholds, {"calibrations": [*others, calibration]})
    return replaced


_REMEDY = "Remove it and run `ptlreid calibrate` again."
_WORDS = {
    "weights_digest": "weights",
    "camera_statistics": "statistics of cameras",
}


def _origin_of(calibration: Calibration) -> dict[str, Any]:
    keys = ("weights_digest", "readout", "camera_statistics", "metric")
    return {key: calibration[key] for key in keys}  # type: ignore[literal-required]


def _describe_differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """What differs, such as `flip: False -> True`: there -> here. Digests are not shown."""
    before, after = ({**one, **one["readout"]} for one in (found, wanted))
    return [
        f"other {_WORDS[key]}" if key in _WORDS else f"{key}: {before.get(key)} -> {value}"
        for key, value in after.items()
        if key != "readout" and before.get(key) != value
    ]


def _normalise(name: str) -> str:
    """The name as calibrations have it: `far=1e-3` is `far=0.001`; any other text stays."""
    kind, _, rate = name.strip().lower().partition("=")
    try:
        value = float(rate)
    except ValueError:
        return name.strip().lower()
    return {"far": name_far, "open-set": name_open_set}.get(kind, lambda _: name)(value)
