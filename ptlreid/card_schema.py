"""The schema of a graph's card, `<stem>.json` next to `<stem>.onnx`: docs/file-formats.md describes it."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic accepts that of `typing` from Python 3.12 on

from ptlreid.schemas import CameraName, Pixels
from ptlreid.thresholds_schema import Calibration

_STRICT = ConfigDict(strict=True, extra="forbid")
_OPEN = ConfigDict(strict=True, extra="allow")

Layout = Literal["NCHW", "NHWC"]
Dtype = Literal["float32", "float16", "uint8"]
Mean = Annotated[float, Field(ge=0, le=1)]
Std = Annotated[float, Field(gt=0, le=10)]
Name = Annotated[str, Field(min_length=1, max_length=1000)]


@with_config(_STRICT)
class ImageInput(TypedDict):
    """The images that a graph takes.

    `mean`, `std`: of values from 0 to 1, in the order red, green, blue, whatever `color` is. `preprocessing`: who
    standardises, the caller, or the graph itself, which then takes pixels from 0 to 255.
    """

    name: Name
    layout: Layout
    dtype: Dtype
    height: Pixels
    width: Pixels
    color: Literal["RGB", "BGR"]
    mean: Annotated[list[Mean], Field(min_length=3, max_length=3)]
    std: Annotated[list[Std], Field(min_length=3, max_length=3)]
    interpolation: Literal["bilinear", "bicubic"]
    preprocessing: Literal["caller", "graph"]


@with_config(_STRICT)
class FeatureOutput(TypedDict):
    """The features that a graph returns. `flip`, `normalize`: whether it does so itself."""

    name: Name
    width: Annotated[int, Field(ge=1, le=100_000)]
    flip: bool
    normalize: bool


@with_config(_STRICT)
class CameraInput(TypedDict):
    """The second input of a graph with the statistics of cameras: int64 rows of `names`, their number for unknown."""

    input: Name
    names: Annotated[list[CameraName], Field(min_length=1)]


@with_config(_OPEN)
class Card(TypedDict):
    """What a program has to know to use the graph. `digest`: of the graph, as `graph_checks.digest_graph` gives it.

    `thresholds`: the calibration of the run that it was made from, for the same features.
    """

    digest: str
    input: ImageInput
    output: FeatureOutput
    cameras: CameraInput | None
    thresholds: NotRequired[Calibration | None]
