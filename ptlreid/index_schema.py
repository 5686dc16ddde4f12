"""The schema of `index.json` in the folder of an index: docs/file-formats.md describes it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic accepts that of `typing` from Python 3.12 on

from ptlreid.schemas import Count
from ptlreid.shards_schema import Digest, Positive

_STRICT = ConfigDict(strict=True, extra="forbid")

KIND = "ptlreid index"

Share = Annotated[float, Field(ge=0, le=1)]
FileName = Annotated[str, Field(pattern=r"^[a-z]+-\d+\.[a-z]+$")]


@with_config(_STRICT)
class IndexSource(TypedDict):
    """A folder of shards, relative to that of the index, and the digest of its manifest when it was indexed."""

    folder: str
    manifest: Digest
    rows: Positive


@with_config(_STRICT)
class Recall(TypedDict):
    """The share of the nearest `at` images that a search of the index finds, over so many `queries`.

    `low`, `high`: its 95% interval. `target`: what was asked for.
    """

    at: Positive
    mean: Share
    low: Share
    high: Share
    queries: Positive
    target: Share


@with_config(_STRICT)
class IndexManifest(TypedDict):
    """What an index is. `factory`: what faiss calls it. `effort`: how much of it a search visits.

    `rows`: of all sources, those `removed` included. `graph`, `arrays`: the names of its two files, with the digests of
    their bytes.
    """

    kind: Literal["ptlreid index"]
    schema: Literal[1]
    structure: Literal["ivfpq", "hnsw", "flat"]
    factory: str
    faiss: str
    metric: Literal["euclidean", "cosine"]
    width: Positive
    rows: Positive
    removed: Count
    effort: Positive
    seed: Count
    sources: list[IndexSource]
    recall: Recall
    graph: FileName
    graph_digest: Digest
    arrays: FileName
    arrays_digest: Digest
