"""The schema of `manifest.json` in a folder of shards: docs/file-formats.md describes it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic accepts that of `typing` from Python 3.12 on

from ptlreid.schemas import Count, ReadoutDescription

_STRICT = ConfigDict(strict=True, extra="forbid")

KIND = "ptlreid shards"

Digest = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Positive = Annotated[int, Field(ge=1, lt=2**63)]


@with_config(_STRICT)
class Skipped(TypedDict):
    """An image that cannot be read, and the reason."""

    path: str
    reason: str


@with_config(_STRICT)
class ShardEntry(TypedDict):
    """A complete shard. `number`: of its files. `rows`: its images, without those `skipped`, which may be all.

    `matrix`, `columns`: digests of the two files. `images`: that of the bytes of its images.
    """

    number: Count
    rows: Count
    matrix: Digest
    columns: Digest
    images: Digest
    skipped: list[Skipped]


@with_config(_STRICT)
class ImageList(TypedDict):
    """The images that were listed, with those that may be skipped. `digest`: of their paths, labels and cameras."""

    images: Positive
    digest: Digest


@with_config(_STRICT)
class Manifest(TypedDict):
    """What all shards have in common, and the `shards` that are complete, by number.

    `weights`: their digest. `cameras`: the digest of the statistics of cameras, "" for none. `rows_per_shard`: listed
    images of each shard but the last. `names`: further columns of text. `rows`: of all complete shards.
    """

    kind: Literal["ptlreid shards"]
    schema: Literal[1]
    weights: str
    network: dict[str, Any]
    readout: ReadoutDescription
    view: dict[str, Any]
    cameras: str
    dtype: Literal["float32", "float16"]
    width: Annotated[int, Field(ge=1, le=1_000_000)]
    rows_per_shard: Positive
    list: ImageList
    names: list[Literal["identities", "cameras"]]
    rows: Count
    shards: list[ShardEntry]
