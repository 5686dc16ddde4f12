"""`ptlreid demo`: a model of one camera site is taken to another, without labels and with them, on synthetic images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ptlreid import datasets
from ptlreid.adapt.source import resolve_settings
from ptlreid.calibrations import EQUAL_ERROR, name_far, name_open_set
from ptlreid.models.pretrained import init_digests
from ptlreid.progress import Progress
from ptlreid.records import Splits
from ptlreid.reports.page import write_page
from ptlreid.reports.search_page import make_search_page
from ptlreid.runs import RunFolder
from ptlreid.settings import (
    AdaptSettings,
    CalibrateSettings,
    DemoSettings,
    EvaluateSettings,
    FinetuneSettings,
    SearchSettings,
    SyntheticSettings,
)
from ptlreid.settings.report import ReportSettings
from ptlreid.workflows.adapt import adapt
from ptlreid.workflows.calibrate import calibrate_run
from ptlreid.workflows.evaluate import Tables, evaluate_run
from ptlreid.workflows.finetune import finetune
from ptlreid.workflows.report import report
from ptlreid.workflows.search import search_run

SOURCE, TARGET = "synthetic-a", "synthetic-b"
_RESAMPLES = 1000
# One in ten searches for people who are not there may get an answer. The next ones are for sites of few people.
_THRESHOLDS = (name_open_set(0.1), name_far(0.01), EQUAL_ERROR)
# Small enough for three minutes on two cores, next to the recipe `small`.
_TRAINING = {"height": 64, "width": 32, "batch_size": 32, "lr": 1e-3}


@dataclass(frozen=True)
class Demo:
    """What the demo found. `scores`: of each network on site B, with 95% intervals, by name.

    `calibration`: the thresholds of the fine-tuned network, as `calibrate_run` returns them. `search`: the answers to
    a search with it for all test people, by an image of each, as `search_run` returns them. `num_right`: of how many
    people the nearest image was accepted, and is theirs. `page`: the answers with pictures.
    """

    scores: dict[str, dict[str, Any]]
    calibration: dict[str, Any]
    search: dict[str, Any]
    num_right: int
    page: Path


def run_demo(settings: DemoSettings, runs: Path, progress: Progress) -> Demo:
    """Train a network on site A, take it to site B as it is, adapted and fine-tuned, and search people there.

    Makes three run folders below `runs`; finished runs with the same settings are reused.
    """
    source_site, site = (_prepare(name, settings, progress) for name in (SOURCE, TARGET))
    source, adapted, tuned = (RunFolder(runs / f"demo-{name}") for name in ("source", "adapted", "finetuned"))
    _train(source, settings, source_site, progress, init="none")
    _adapt(adapted, source, settings, site, progress)
    _train(tuned, settings, site, progress, init=source.path.name)
    score = partial(_score, settings=settings, site=site, progress=progress)
    scores = {"as it is": score(source), "adapted without labels": score(adapted), "fine-tuned": score(tuned)}
    where: dict[str, Any] = {"root": settings.root, "device": settings.device}
    calibration = calibrate_run(tuned, site, CalibrateSettings.resolve(None, **where), progress)
    report([tuned.path.name], runs, ReportSettings.resolve(None, **where), progress)  # with the thresholds
    _, first = np.unique(site.query.pids, return_index=True)
    queries, gallery = [str(site.query.paths[row]) for row in first], str(Path(site.gallery.paths[0]).parent)
    points = calibration["open_set"] + calibration["operating_points"]
    measured = [one["name"] for one in points if one["threshold"] is not None]
    threshold = next(name for name in _THRESHOLDS if name in measured)
    chosen = SearchSettings.resolve(None, threshold=threshold, exclude_same_camera=True, **where)
    search = search_run(queries, tuned, gallery, chosen, progress, listed=b"")
    page = tuned.path / "search.html"
    write_page(make_search_page(search), page)
    return Demo(scores, calibration, search, _count_right(search, site), page)


def _count_right(search: dict[str, Any], site: Splits) -> int:
    pid_of = {
        Path(path): int(pid)
        for part in (site.query, site.gallery)
        for path, pid in zip(part.paths, part.pids, strict=True)
    }
    nearest = [(one["paths"][0], hit) for one in search["queries"] for hit in one["hits"][:1]]
    return sum(hit["accepted"] and pid_of.get(Path(hit["path"])) == pid_of[Path(path)] for path, hit in nearest)


def _prepare(name: str, settings: DemoSettings, progress: Progress) -> Splits:
    """A synthetic site, rendered if needed; an existing one is reused unless a number of identities is given."""
    dataset = datasets.find(name)
    folder = dataset.folders(Path(settings.root))[0]
    if settings.identities is None and folder.is_dir():
        progress.note(f"{folder}: reused")
    else:
        drawn = SyntheticSettings.resolve(None, identities=settings.identities or 96, cameras=4)
        if not dataset.module.prepare(folder, dataset.variant, drawn, progress):
            progress.note(f"{folder}: reused")
    return datasets.load(name, Path(settings.root))


def _train(run: RunFolder, settings: DemoSettings, site: Splits, progress: Progress, *, init: str) -> None:
    """Train a small PTL network on a site, from scratch or from another run."""
    given = _TRAINING | _common(settings, site)
    chosen = FinetuneSettings.resolve(None, recipe="small", init=init, report=False, **given)
    finetune(chosen, site, run, progress, depends=init_digests(init, run.path.parent))


def _adapt(run: RunFolder, source: RunFolder, settings: DemoSettings, site: Splits, progress: Progress) -> None:
    """Adapt a run to the cameras of a site, whose identities are not read."""
    resolve = partial(AdaptSettings.resolve, None, run=source.path.name, method_="cameras")
    common = {name: value for name, value in _common(settings, site).items() if name != "epochs"}
    adapt(resolve_settings(partial(resolve, **common), run.path.parent), site, run, progress)


def _score(run: RunFolder, settings: DemoSettings, site: Splits, progress: Progress) -> dict[str, Any]:
    chosen = EvaluateSettings.resolve(None, root=settings.root, device=settings.device, bootstrap=_RESAMPLES)
    return evaluate_run(run, site, chosen, progress, Tables())


def _common(settings: DemoSettings, site: Splits) -> dict[str, Any]:
    shared = {name: getattr(settings, name) for name in ("root", "device", "seed", "epochs")}
    return shared | {"data": site.name}
