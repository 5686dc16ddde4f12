"""The page of clusters that `ptlreid report` writes next to the page of an adapted run."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import numpy as np

from ptlreid import datasets
from ptlreid.adapt.cluster_files import find_epochs, read_clusters
from ptlreid.errors import DataError, OptionError
from ptlreid.progress import Progress
from ptlreid.records import Records, Splits
from ptlreid.reports.cluster_page import make_cluster_page
from ptlreid.reports.cluster_rows import ClusteredImages
from ptlreid.reports.elements import name_cameras
from ptlreid.reports.page import write_page
from ptlreid.runs import RunFolder
from ptlreid.settings.report import ReportSettings


def write_clusters_page(
    run: RunFolder, report: Path, settings: ReportSettings, progress: Progress, splits: Splits | None
) -> tuple[list[Path], list[str]]:
    """The page of the run's last clusters, written next to `report`; none for a run without clusters.

    `splits`: the dataset that the run adapted to, if already loaded. If it is missing, or not as it was, there is no
    page, and a note says why.
    """
    epochs = find_epochs(run)
    if not epochs:
        return [], []
    page = report.with_name(f"{report.stem}-clusters.html")
    data = run.settings().data
    try:
        records = (splits or datasets.load(data, Path(settings.root))).train
        subtitle = f"Clusters of epoch {epochs[-1] + 1} · training images of {data}"
        title, images = run.path.resolve().name, _read(run, epochs, records)
        write_page(make_cluster_page(title, subtitle, images, report_url=quote(report.name)), page)
    except (DataError, OptionError) as error:
        progress.note(f"{run.path.name} has no page of clusters: {error}")
        return [], [f"No page of clusters. {error}"]
    return [page], []


def _read(run: RunFolder, epochs: list[int], records: Records) -> ClusteredImages:
    """The clusters of the last epoch, with those of the epoch before if they are there."""
    last = epochs[-1]
    labels, similarities = read_clusters(run.clusters(last), records)
    previous = read_clusters(run.clusters(last - 1), records)[0] if last - 1 in epochs else None
    cameras = records.cameras()
    names = sorted(set(cameras))
    numbers = {camera: number for number, camera in enumerate(names)}
    rows = np.array([numbers[camera] for camera in cameras], dtype=np.int64)
    return ClusteredImages(labels, similarities, rows, name_cameras(names), records.paths, previous)
