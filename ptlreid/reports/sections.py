"""The sections of a page, from accounts of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ptlreid.errors import DataError
from ptlreid.reports import curves, ranklists
from ptlreid.reports.cells import cells
from ptlreid.reports.cmc import cmc
from ptlreid.reports.distances import distances, thresholds
from ptlreid.reports.heat import heat_map
from ptlreid.reports.pictures import Picture, Section, Table, number, percent
from ptlreid.reports.run_summary import Account, Retrieval
from ptlreid.reports.thresholds import count_pairs
from ptlreid.retrieval.cameras import camera_scores
from ptlreid.retrieval.distance import blocks
from ptlreid.retrieval.ranking_keys import Metric

_THRESHOLDS = (
    "Taken for the same person where the distance is below a threshold, the pairs of a query and the gallery images "
    "that the protocol leaves to it give these operating points:"
)
_CAMERAS = ("camera of the query", "camera of the gallery")


def tiles(scores: Mapping[str, Any] | None) -> dict[str, str]:
    """The headline numbers in percent, by name: those that there are, as older versions wrote fewer."""
    scores = scores or {}
    ranks = {f"CMC-{rank}": (scores.get("cmc") or {}).get(rank) for rank in ("1", "5", "10")}
    found = {"mAP": scores.get("mAP"), **ranks, "mINP": scores.get("mINP")}
    return {name: percent(share) for name, share in found.items() if isinstance(share, int | float)}


def summary(account: Account, found: Retrieval | None) -> Section:
    """What was trained, on what, and how it was evaluated; all settings on demand."""
    settings, data = account.settings, account.data
    facts = [["Network", f"{settings['backbone']} · {account.method} · start: {settings['init']}"]]
    if {"name", "images", "identities"} <= set(data):
        facts.append(["Trained on", f"{data['name']}: {data['images']:,} images of {data['identities']:,} people"])
    facts.append(["Training", _training(account)])
    if found:
        facts += _evaluation(account.evaluated_on, found)
    every = Table(("setting", "value"), [[key, str(value)] for key, value in settings.items()])
    return Section("summary", "Summary", facts=[Table(("", ""), facts)], more={"All settings": every})


def comparison(accounts: Sequence[Account]) -> Section:
    """Several runs beside one another: their scores, CMC, losses, and scores over epochs."""
    evaluated = {account.name: account.scores.cmc for account in accounts if account.scores}
    pictures = [cmc(evaluated)] if evaluated else []
    pictures += training(accounts)
    return Section(
        "comparison",
        "Comparison",
        facts=[scores(accounts)],
        pictures=[replace(picture, name=f"all-{picture.name}") for picture in pictures],
    )


def scores(accounts: Sequence[Account]) -> Table:
    """A row a run: what it is, and its scores in percent."""
    rows = []
    for account in accounts:
        shown = tiles(account.summary)
        epochs = str((account.metrics or {}).get("epochs", "–"))
        values = [shown.get(name, "–") for name in ("mAP", "CMC-1", "CMC-5", "CMC-10", "mINP")]
        rows.append(
            [account.name, account.evaluated_on, str(account.settings["backbone"]), account.method, epochs, *values]
        )
    return Table(("run", "data", "network", "method", "epochs", "mAP", "CMC-1", "CMC-5", "CMC-10", "mINP"), rows)


def training(accounts: Sequence[Account]) -> list[Picture]:
    """Loss, rate and scores over epochs, as far as there is a history."""
    runs = {account.name: account.steps for account in accounts if len(account.steps)}
    evaluated = {account.name: account.evaluations for account in accounts if account.evaluations}
    pictures = [curves.loss(runs), curves.rate(runs)] if runs else []
    return [*pictures, curves.scores(evaluated)] if evaluated else pictures


def memory(account: Account) -> Section:
    """Latent states and gates."""
    text = "The BConv-Cells at the end of each epoch of training. A gate at 0 is shut, at 1 open."
    return Section("cells", "Latent state and gates", [text], pictures=cells(account.history))


def retrieval(account: Account, found: Retrieval, *, rates: Sequence[float], metric: Metric) -> Section:
    """CMC, distances with thresholds, and cameras."""
    curve, by_camera = cmc({account.name: found.scores.cmc}), cameras(found, metric=metric)
    try:
        counts = count_pairs(found.query, found.gallery, found.protocol, metric=metric)
    except DataError as error:  # one person only, say
        return Section("retrieval", "Retrieval", [f"No thresholds. {error}"], pictures=[curve, *by_camera])
    pictures = [curve, distances(counts, rates), *by_camera]
    return Section("retrieval", "Retrieval", [_THRESHOLDS], facts=[thresholds(counts, rates)], pictures=pictures)


def cameras(found: Retrieval, *, metric: Metric) -> list[Picture]:
    """Heat maps of mAP and CMC-1 by camera of the query, where one camera's part of the gallery is all there is."""
    source = blocks(found.query, found.gallery, metric=metric)
    pairs = camera_scores(source, found.query, found.gallery, found.protocol)
    rows, columns = (list(map(str, side.tolist())) for side in (pairs.query_cameras, pairs.gallery_cameras))
    note = "Only the gallery images of one camera are searched. –: no query has a true match there."
    return [
        replace(heat_map(name, title, values, rows=rows, columns=columns, axes_of=_CAMERAS), note=note)
        for name, title, values in (
            ("cameras-map", "mAP by cameras", pairs.mean_ap),
            ("cameras-cmc", "CMC-1 by cameras", pairs.cmc1),
        )
    ]


def lists(found: Retrieval, *, count: int, places: int, seed: int, metric: Metric) -> Section:
    """Rank lists: the worst queries, and as many others drawn by lot."""
    worst = ranklists.worst(found.scores, count)
    drawn = ranklists.sample(found.scores, count, seed=seed, without=worst)
    groups = {
        title: ranklists.shown(
            found.query, found.gallery, found.protocol, found.scores, chosen, places=places, metric=metric
        )
        for title, chosen in (("Worst first", worst), ("Drawn by lot", drawn))
        if len(chosen)
    }
    text = (
        f"Each query with its first {places} places. Solid frame and ✓: the same person. Dashed frame and ✗: another. "
        "The number is the distance. A first match that comes later stands at the end."
    )
    return Section("ranklists", "Rank lists", [text], lists=groups)


def _evaluation(data: str, found: Retrieval) -> list[list[str]]:
    scores = found.scores
    junk = f", {scores.num_junk:,} of them junk" if scores.num_junk else ""
    return [
        ["Evaluated on", ", ".join(filter(None, [data, f"protocol {scores.protocol}", found.how]))],
        ["Queries", f"{scores.num_queries:,}, {scores.num_valid:,} of them with a true match"],
        ["Gallery", f"{scores.num_gallery:,} images{junk}"],
        ["Features", f"{found.query.width:,} numbers for each image"],
    ]


def _training(account: Account) -> str:
    """How far training came and how fast it was, as far as the history tells."""
    steps = account.steps
    if not len(steps):
        return "none: the weights are as they started" if account.metrics else "not begun"
    # How many steps an epoch has is known when one is whole.
    done = "first epoch" if account.in_first_epoch else number(steps.epochs[-1])
    told = f"{done} of {account.settings['epochs']}{'' if account.in_first_epoch else ' epochs'}, {len(steps):,} steps"
    speed, wait = (steps.values[name][np.isfinite(steps.values[name])] for name in ("images_per_second", "wait"))
    told += f", {number(float(np.median(speed)))} images a second" if len(speed) else ""
    return told + (f", {percent(float(wait.mean()))}% of the time waiting for images" if len(wait) else "")
