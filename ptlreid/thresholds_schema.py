"""The schema of `thresholds.json`: docs/file-formats.md describes the file."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic accepts that of `typing` from Python 3.12 on

from ptlreid.schemas import Count, Fraction, Number, ReadoutDescription

_STRICT = ConfigDict(strict=True, extra="forbid")

Ends = Annotated[list[Fraction], Field(min_length=2, max_length=2)]  # of a 95% confidence interval
Point = Annotated[list[Fraction], Field(min_length=2, max_length=2)]  # of a curve


@with_config(_STRICT)
class PairPoint(TypedDict):
    """An operating point of pairs. All None with a `note` where it is not measurable."""

    name: str
    threshold: Number | None
    far: Fraction | None
    far_interval: Ends | None
    tar: Fraction | None
    tar_interval: Ends | None
    note: NotRequired[str]


@with_config(_STRICT)
class SearchPoint(TypedDict):
    """An operating point of searches. All None with a `note` where it is not measurable."""

    name: str
    threshold: Number | None
    far: Fraction | None
    far_interval: Ends | None
    dir: Fraction | None
    dir_interval: Ends | None
    note: NotRequired[str]


@with_config(_STRICT)
class PairNumbers(TypedDict):
    """The numbers of same-identity and of different-identity pairs."""

    same: Count
    different: Count


@with_config(_STRICT)
class CameraNumbers(TypedDict):
    """Ascending camera numbers."""

    query: list[int]
    gallery: list[int]


@with_config(_STRICT)
class OpenSetQueries(TypedDict):
    """The numbers of queries and of their identities, in the gallery or not."""

    queries: Count
    identities: Count


@with_config(_STRICT)
class OpenSetSplit(TypedDict):
    """The queries behind the points of searches."""

    enrolled: OpenSetQueries
    absent: OpenSetQueries


@with_config(_STRICT)
class Curves(TypedDict):
    """`roc`: FAR and TAR of pairs; `open_set`: FAR and DIR of searches; ascending."""

    roc: list[Point]
    open_set: list[Point]


@with_config(_STRICT)
class CameraPair(TypedDict):
    """The operating points of queries from one camera and gallery images from another.

    None and empty where one kind of pairs is missing, as for a camera with itself under many protocols.
    """

    query: int
    gallery: int
    pairs: PairNumbers | None
    operating_points: list[PairPoint]


@with_config(_STRICT)
class Calibration(TypedDict):
    """The thresholds of a run, and what they were measured on. `camera_statistics`: digest, "" for none.

    `test_images`: the digest of the test set, as in `metrics.json`. `open_set_split`: None with too few identities.
    """

    weights_digest: str
    readout: ReadoutDescription
    camera_statistics: str
    metric: Literal["euclidean", "cosine"]
    data: str
    test_images: str
    protocol: str
    cameras: CameraNumbers
    pairs: PairNumbers
    operating_points: list[PairPoint]
    open_set: list[SearchPoint]
    open_set_split: OpenSetSplit | None
    curves: Curves
    camera_pairs: NotRequired[list[CameraPair]]
    bootstrap: Count
    seed: Count


@with_config(_STRICT)
class Thresholds(TypedDict):
    """`thresholds.json`: one calibration for each combination of weights, readout, statistics of cameras and metric."""

    calibrations: list[Calibration]
