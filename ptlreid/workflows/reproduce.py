"""`ptlreid reproduce`: the runs behind the paper's tables, and what they measured beside what was published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ptlreid import datasets, distributed, files
from ptlreid.progress import Progress, Silent
from ptlreid.settings.reproduce import ReproduceSettings, Row, Scale, Table
from ptlreid.workflows.chain import plan
from ptlreid.workflows.stage_runner import Stage, StageRunner, missing_datasets

# Work for one image in training against one pass forward: the gradients of maps and of weights cost a pass each.
_PASSES = 3


def reproduce(table: Table, config: ReproduceSettings, runs: Path, scale: Scale, progress: Progress) -> dict[str, Any]:
    """What each row of the table measured, its datasets permitting, beside what was published, in percent.

    Runs that are there are reused, those that were stopped go on. At another scale than the paper's its rows are
    labelled so, nothing published is shown, and its runs lie in a folder of their own.
    """
    config, runs = _place(config, runs, scale)
    stages = StageRunner(runs, progress)
    rows = []
    with distributed.process_group(config.device):
        distributed.run_on_main(lambda: _draw(table, config, scale, progress))
        for row in _rows(table, scale):
            stage = _last(row, config, scale)
            absent = _missing(stage, config) if stage else []
            metrics = files.read_json(stages.run(stage).metrics) if stage and not absent else None
            rows.append(_compared(row, metrics, absent, scale))
    return {**_about(table, scale), "units": "percent", "rows": rows}


def dry_run(table: Table, config: ReproduceSettings, runs: Path, scale: Scale) -> dict[str, Any]:
    """The plan of the table: for each row its trainings and the datasets not there, and what all of it costs."""
    config, runs = _place(config, runs, scale)
    stages = StageRunner(runs, Silent())
    rows, trainings = [], dict[str, Stage]()
    for row in _rows(table, scale):
        shown: dict[str, Any] = {"row": row.name, **({"setting": scale.label} if scale.label else {})}
        rows.append(shown)
        stage = _last(row, config, scale)
        if stage is None:
            shown["cited"] = row.cited
            continue
        absent = _missing(stage, config)
        run = None if absent else stages.find(stage)
        trainings |= stage.trainings()
        shown["trainings"] = _paths(stage)
        shown |= {"finished": bool(run and run.finished), "missing": [] if scale.sites else absent}
    return {**_about(table, scale), "rows": rows, "trainings": len(trainings), "cost": _cost(trainings.values())}


def _rows(table: Table, scale: Scale) -> list[Row]:
    """The rows to show: what others published has no place beside another scale than the paper's."""
    return [row for row in table.rows if row.plan or not scale.label]


def _last(row: Row, config: ReproduceSettings, scale: Scale) -> Stage | None:
    """The training that makes `row`, with all that it builds on; None for a row that is cited."""
    return plan(scale.chain(row, config))[-1] if row.plan else None


def _paths(stage: Stage) -> list[str]:
    """The trainings of a row, a line for each network: its backbone, its method, and its datasets in order."""
    paths = _paths(stage.teacher) if stage.teacher else []
    row = [stage]
    while row[0].start:
        row.insert(0, row[0].start)
    named = f"{stage.config.backbone} {stage.config.method}: "
    if stage.teacher and stage.start:
        return [*paths, *_paths(stage.start), named + stage.config.data]
    return [*paths, named + " → ".join(one.config.data for one in row)]


def _missing(stage: Stage, config: ReproduceSettings) -> list[str]:
    return sorted(
        {name for one in stage.trainings().values() for name in missing_datasets(one.config.data, Path(config.root))}
    )


def _place(config: ReproduceSettings, runs: Path, scale: Scale) -> tuple[ReproduceSettings, Path]:
    """Where datasets and runs are: those of another scale keep to folders of their own."""
    if not scale.label:
        return config, runs
    return config.model_copy(update={"root": str(Path(config.root) / "tiny")}), runs / "tiny"


def _draw(table: Table, config: ReproduceSettings, scale: Scale, progress: Progress) -> None:
    """Draw the sites that stand in for the table's datasets, where they are not there."""
    stages = [_last(row, config, scale) for row in table.rows if scale.sites]
    for name in sorted({name for stage in stages if stage for name in _missing(stage, config)}):
        found = datasets.find(name)
        found.module.prepare(found.folders(Path(config.root))[0], found.variant, scale.sites, progress)


def _about(table: Table, scale: Scale) -> dict[str, Any]:
    about: dict[str, Any] = {"table": table.number, "title": table.title}
    return {**about, "setting": scale.label or "paper"}


def _compared(row: Row, metrics: Mapping[str, Any] | None, absent: list[str], scale: Scale) -> dict[str, Any]:
    """One row: what was published, what was measured, the difference, and what is missing."""
    published = {"mAP": row.mean_ap, "cmc1": row.cmc1}
    measured = metrics and {"mAP": 100 * metrics["mAP"], "cmc1": 100 * metrics["cmc"]["1"]}
    found: dict[str, Any] = {"row": row.name, "setting": scale.label or "paper"}
    if row.cited:
        return {**found, "cited": row.cited, "published": published}
    found |= {"run": metrics and metrics["run"], "missing": absent, "measured": measured}
    if not scale.label:
        found["published"] = published
        found["difference"] = measured and {name: measured[name] - value for name, value in published.items()}
    return found


def _cost(stages: Iterable[Stage]) -> dict[str, Any] | None:
    """Images trained on and multiply-adds of all trainings; None where a dataset's size is not known."""
    images, macs = 0, 0.0
    for stage in stages:
        shown = _images_shown(stage)
        if shown is None:
            return None
        teaches = stage.teacher if getattr(stage.config, "lambda_", 0) else None
        each = _PASSES * _macs(stage) + (_macs(teaches) if teaches else 0)
        images, macs = images + shown, macs + shown * each
    return {"images": images, "macs": macs}


def _images_shown(stage: Stage) -> int | None:
    """Images that the training sees in all its epochs, by the published counts where the dataset is not there."""
    config, images, people = stage.config, 0, 0
    for name in config.data.split("+"):
        found = datasets.find(name, Path(config.root))
        if missing_datasets(name, Path(config.root)):
            numbers = {what: found.counts.get(f"train_{what}", 0) for what in ("images", "identities")}
        else:
            numbers = datasets.load(name, Path(config.root)).train.numbers()
        if not numbers["images"]:
            return None
        images, people = images + numbers["images"], people + numbers["identities"]
    return config.epochs * (people * config.images_per_identity if config.images_per_identity else images)


def _macs(stage: Stage) -> float:
    """Multiply-adds of one image going forward, which grow with its area."""
    config = stage.config
    macs, (height, width) = _summary(config.backbone, config.ptl)
    return macs * (config.height or height) * (config.width or width) / (height * width)


@cache
def _summary(backbone: str, ptl: bool) -> tuple[int, tuple[int, int]]:
    """Multiply-adds and image size of a network."""
    from ptlreid.models.summary import summarize

    network = summarize(backbone, ptl, 1000)
    return network.macs, network.input_size
