"""The page of a search: pictures of each query and of its hits, framed by verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ptlreid.attention import Agreement
from ptlreid.reports.crops import embed_spotlight
from ptlreid.reports.elements import CropRow, Frame, Section, ShownImage, Table, format_number
from ptlreid.reports.page import Page

SHOWN_QUERIES = 200  # a page of more would take hundreds of megabytes


def make_search_page(document: Mapping[str, Any], agreements: Sequence[Sequence[Agreement]] = ()) -> Page:
    """The page of the answers in `document`, which has the form of `ptlreid search --json`.

    `agreements`: of each shown query, those of its hits; without them, that part is left out.
    Of more than `SHOWN_QUERIES`, the first are shown, with a note. A picture whose file cannot be read is a grey box.
    """
    queries, threshold, settings = document["queries"], document["threshold"], document["settings"]
    found = sum(one["verdict"] == "match" for one in queries)
    limit = "" if threshold is None else f" below {format_number(threshold)}"
    people = f"{len(queries):,} {'query' if len(queries) == 1 else 'queries'}: {found:,} with a match{limit}"
    rows = [_make_row(one, settings, threshold) for one in queries[:SHOWN_QUERIES]]
    notes = [text] if (text := describe_recall(document)) else []
    if len(queries) > SHOWN_QUERIES:
        notes.append(f"Shown are the first {SHOWN_QUERIES} of {len(queries):,} queries.")
    sections = [Section("results", "Results", [_explain(threshold)], crop_rows=rows)]
    if agreements:
        pairs = [_make_pairs(row, found) for row, found in zip(rows, agreements, strict=True)]
        sections.append(Section("agreement", "Where query and hit agree", [_AGREEMENT], crop_rows=pairs))
    sections.append(Section("settings", "Settings", tables=[_describe(settings)]))
    return Page(f"Search in {settings['gallery']}", people, sections, notes=notes, incomplete=True)


def describe_recall(document: Mapping[str, Any]) -> str:
    """How much the index finds that gave the answers in words; empty for an exact search."""
    if "index" not in document or document["index"]["exact"]:
        return ""
    recall = document["index"]["recall"]
    low, mean, high = (f"{100 * recall[name]:.1f}" for name in ("low", "mean", "high"))
    return (
        f"By the index, which finds {mean}% of the nearest {recall['at']} images (95% interval {low} to {high}, "
        f"{recall['queries']:,} queries without filters)."
    )


def _explain(threshold: float | None) -> str:
    if threshold is None:
        return (
            "The nearest images of the gallery, nearest first, with their distances. No threshold was chosen, so that "
            "even a person who is not in the gallery has nearest images. No distance makes a match certain."
        )
    return (
        f"The nearest images of the gallery, nearest first, with their distances. ✓ and a solid frame: a match, at a "
        f"distance below {format_number(threshold)}. ✗ and a dashed frame: too far. No threshold makes a match "
        "certain."
    )


def _make_row(one: Mapping[str, Any], settings: Mapping[str, Any], threshold: float | None) -> CropRow:
    names = ", ".join(Path(path).name for path in one["paths"])
    images = [ShownImage(Path(path), ["query"], f"Query: {path}", frame="query") for path in one["paths"]]
    for hit in one["hits"]:
        distance = format_number(hit["distance"])
        sign = "" if threshold is None else "✓ " if hit["accepted"] else "✗ "
        alt = f"Rank {hit['rank']}, distance {distance}{_word(hit, threshold)}: {hit['path']}"
        frame: Frame = "" if threshold is None else "match" if hit["accepted"] else "mismatch"
        images.append(ShownImage(Path(hit["path"]), [f"{sign}{distance}"], alt, frame=frame))
    table = Table(
        ("rank", "path", "distance", "verdict"),
        [
            [str(hit["rank"]), hit["path"], format_number(hit["distance"]), _word(hit, threshold).removeprefix(", ")]
            for hit in one["hits"]
        ],
    )
    return CropRow(names, describe_verdict(one, threshold), images, table)


_AGREEMENT = (
    "Each pair is a query image and a hit. The brighter a place, the larger its share in the inner product of the two "
    "features; dark places add nothing, or take away. Each image is relative to its own largest share, so that its "
    "brightness says nothing of the distance. What is bright is what the network compared, and not why."
)


def _make_pairs(row: CropRow, agreements: Sequence[Agreement]) -> CropRow:
    """The hits of a row, each next to the query image, with the places where both agree."""
    hits = {image.path: image for image in row.images if image.frame != "query"}
    images = []
    for one in agreements:
        hit = hits[one.hit]
        text = f"where it agrees with rank {one.rank}"
        overlay = embed_spotlight(one.query_map)
        images.append(ShownImage(one.query, ["query"], f"Query: {one.query}, {text}", frame="query", overlay=overlay))
        alt, lines = f"{hit.alt}, where it agrees with the query", [f"rank {one.rank}", *hit.lines]
        images.append(replace(hit, lines=lines, alt=alt, overlay=embed_spotlight(one.hit_map)))
    left_out = len(hits) - len(agreements)
    missing = f"; {left_out} without pictures, as files cannot be read" if left_out else ""
    return CropRow(row.title, f"{len(agreements)} pairs{missing}", images, row.table, pairs=True)


def describe_verdict(one: Mapping[str, Any], threshold: float | None) -> str:
    """The verdict on a query in words."""
    if not one["hits"]:
        return "no gallery image is left to search"
    if threshold is None:
        return f"{len(one['hits'])} nearest images"
    accepted = sum(hit["accepted"] for hit in one["hits"])
    if not accepted:
        return f"nobody below {format_number(threshold)}"
    return f"match: {accepted} of {len(one['hits'])} images below {format_number(threshold)}"


def _word(hit: Mapping[str, Any], threshold: float | None) -> str:
    if threshold is None:
        return ""
    return ", match" if hit["accepted"] else ", too far"


def _describe(settings: Mapping[str, Any]) -> Table:
    names = ("run", "features", "gallery", "metric", "threshold", "together", "combine", "rerank", "flip", "normalize")
    more = ("exclude_same_camera", "exclude_query", "camera", "glob")
    rows = [
        [name.replace("_", " "), ", ".join(value) if isinstance(value, list) else str(value)]
        for name in (*names, *more)
        if (value := settings.get(name)) not in (None, False, [], "")
    ]
    return Table(("", ""), rows)
