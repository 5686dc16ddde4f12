"""The schemas of all JSON that the program reads: docs/file-formats.md describes the files.

Keys that are not required are missing in files of earlier versions. Numbers are finite unless stated otherwise.
"""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, Required

from pydantic import ConfigDict, Field, InstanceOf, with_config
from typing_extensions import TypedDict  # pydantic accepts that of `typing` from Python 3.12 on

Count = Annotated[int, Field(ge=0, lt=2**63)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1 + 1e-9, allow_inf_nan=False)]  # a mean may be rounded up
Pixels = Annotated[int, Field(ge=1, le=10_000)]

_STRICT = ConfigDict(strict=True, extra="forbid")
_OPEN = ConfigDict(strict=True, extra="allow")


# The CMC by rank, as `PRINTED_RANKS`.
Cmc = TypedDict("Cmc", {"1": Required[Fraction], "5": Fraction, "10": Fraction, "20": Fraction}, total=False)
with_config(_STRICT)(Cmc)


@with_config(_STRICT)
class Queries(TypedDict):
    """The numbers of queries."""

    total: Count
    valid: Count


@with_config(_STRICT)
class Gallery(TypedDict):
    """The numbers of gallery images."""

    total: Count
    junk: Count


@with_config(_STRICT)
class Summary(TypedDict, total=False):
    """`Scores.summary`."""

    protocol: str
    mAP: Fraction
    mINP: Fraction
    cmc: Cmc
    queries: Queries
    gallery: Gallery


ArithmeticName = Literal["float32", "tf32", "bf16", "fp16", "unknown"]  # the last: trained by version 0.1


@with_config(_STRICT)
class Precisions(TypedDict):
    """The precision of convolutions and matrix products, in training and for the features that were scored."""

    training: ArithmeticName
    extraction: ArithmeticName


@with_config(_STRICT)
class Facts(TypedDict):
    """What a run is trained with: see `ptlreid.environment`. `cuda`, `cudnn`: None on a CPU; `commit`: if known.

    `tf32`: None if version 0.1 trained, which recorded nothing.
    """

    device: str
    device_name: str
    precision: Precisions
    tf32: bool | None
    torch: str
    cuda: str | None
    cudnn: str | None
    processes: Count
    images_per_update: Count
    version: str
    commit: str | None


@with_config(_STRICT)
class Session(Facts):
    """Updates with the same facts, in a checkpoint: their number and the seconds that they took, None if unknown."""

    updates: Count
    seconds: Number | None


@with_config(_STRICT)
class SessionSpeed(Facts):
    """A session in `metrics.json`. `images_per_second`: None without an update or if `seconds` are unknown."""

    seconds: Number | None
    images_per_second: Number | None


@with_config(_STRICT)
class Environment(SessionSpeed):
    """`environment` in `metrics.json`. `sessions`: in order, where their facts differ."""

    sessions: NotRequired[list[SessionSpeed]]


@with_config(_STRICT)
class Metrics(Summary, total=False):
    """`metrics.json`. `weights_digest`, `averaged_digest`, `test_images`: digests of what the scores were made with.

    `averaged`: the scores of the averaged weights. `before`: those of the run that was adapted.
    """

    run: str
    data: str
    epochs: Required[Count]
    weights: Literal["last"]
    weights_digest: str
    averaged_digest: str
    test_images: str
    averaged: Summary
    before: Summary
    environment: Environment


@with_config(_STRICT)
class Manifest(TypedDict):
    """`data.json`. `depends`: digests of weights that the run builds on."""

    name: str
    images: Count
    identities: Count
    labels: str
    digest: str
    depends: NotRequired[dict[str, str]]


@with_config(_STRICT)
class StepLine(TypedDict, total=False):
    """A line of `history.jsonl` on an update. `memory`: the name of `memory_bytes` in version 0.1."""

    kind: Required[Literal["step"]]
    epoch: Required[Count]
    step: Required[Count]
    loss: Number
    terms: dict[str, Number]
    lr: Number
    images: Count
    images_per_second: Number
    wait: Number
    memory_bytes: Count
    memory: Count


@with_config(_STRICT)
class EpochLine(Summary, total=False):
    """A line of `history.jsonl` on an epoch. `cells`: statistics by cell; NaN or infinite if the state overflowed.

    `averaged`: the scores of the averaged weights.
    """

    kind: Required[Literal["epoch"]]
    epoch: Required[Count]
    averaged: Summary
    cells: dict[str, dict[str, float]]


@with_config(_STRICT)
class ClustersLine(TypedDict):
    """A line of `history.jsonl` on the clusters that an epoch is trained on: see `ClusterStatistics`."""

    kind: Literal["clusters"]
    epoch: Count
    images: Count
    outliers: Count
    cameras: Count
    clusters: Count
    smallest: Count
    median_size: Number
    largest: Count
    several_cameras: Fraction | None
    camera_purity: Fraction | None
    chance_purity: Fraction | None
    agreement: Number | None


@with_config(_OPEN)
class HistoryLine(TypedDict):
    """What all lines of `history.jsonl` have."""

    kind: Literal["step", "epoch", "clusters"]


@with_config(_STRICT)
class StageEntry(TypedDict):
    """A stage in `chain.json`. `weights`: the digest of its weights file."""

    run: str
    data: str
    method: NotRequired[str]
    weights: NotRequired[str]


@with_config(_STRICT)
class Cell(TypedDict):
    """The scores of a stage on a dataset."""

    mAP: Fraction
    cmc: Cmc


@with_config(_STRICT)
class Chain(TypedDict):
    """`chain.json`."""

    chain: list[str]
    stages: list[StageEntry]
    start: NotRequired[str]
    data: list[str]
    rows: list[str]
    scores: list[list[Cell | None]]
    forward_transfer: NotRequired[dict[str, Number | None]]
    forgetting: NotRequired[dict[str, Number | None]]


@with_config(_OPEN)
class Origin(TypedDict):
    """`prepared.json`: the source of a dataset, with the settings of the user's own images."""

    data: str
    source: InstanceOf[str]  # pydantic's own `str` refuses names of files that are not UTF-8
    digest: str


@with_config(_OPEN)
class Rules(TypedDict):
    """`rules.json` of the user's own images, with the settings by which they were split.

    `unlabelled`: whether the training images have no identities.
    """

    protocol: str
    images: NotRequired[Count]
    unlabelled: NotRequired[bool]


@with_config(_STRICT)
class NetworkDescription(TypedDict):
    """The network in the header of a weights file: the fields of `NetworkSpec`."""

    backbone: str
    ptl: bool
    memory: Literal["slot", "mean", "none"]
    num_classes: Annotated[int, Field(ge=1, le=10_000_000)]
    height: Pixels
    width: Pixels
    interpolation: NotRequired[Literal["bilinear", "bicubic"]]
    last_stride: NotRequired[Annotated[int, Field(ge=1, le=2)]]
    neck: NotRequired[Literal["none", "bn"]]
    pool: NotRequired[Literal["avg", "max", "gem", "token"]]
    classifier: NotRequired[Literal["mlp3", "linear"]]
    feature_width: NotRequired[Annotated[int, Field(ge=0, le=100_000)]]
    drop_path: NotRequired[Annotated[float, Field(ge=0, lt=1)]]


@with_config(_STRICT)
class ReadoutDescription(TypedDict, total=False):
    """How the network's features are read: the fields of `Readout`."""

    flip: bool
    normalize: bool
    amp: Literal["off", "tf32", "bf16", "fp16"]
    channels_last: bool


@with_config(_STRICT)
class WeightsDescription(TypedDict):
    """The description in the header of a weights file."""

    network: NetworkDescription
    readout: ReadoutDescription


@with_config(_STRICT)
class CameraName(TypedDict):
    """A camera: the name of its dataset, and its number there."""

    data: str
    camera: Annotated[int, Field(ge=-(2**63), lt=2**63)]


@with_config(_STRICT)
class CamerasDescription(TypedDict):
    """The description in the header of a file of camera statistics. `weights`: the digest of the weights file."""

    schema: Literal[1]
    weights: str
    cameras: Annotated[list[CameraName], Field(min_length=1)]
