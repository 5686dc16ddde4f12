"""`ptlreid reproduce`: the runs behind the paper's tables, measured vs. published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from ptlreid import datasets, distributed
from ptlreid.distributed import process_group
from ptlreid.evaluation import evaluate_run
from ptlreid.progress import Progress, Silent
from ptlreid.settings import default_evaluation
from ptlreid.settings.reproduce import ReproduceSettings, Row, Scale, Table
from ptlreid.transfer.stages import Stage, StageRunner, missing_datasets, plan_stages
from ptlreid.workflows.chain import train_stage

# The cost of a training step in forward passes: gradients of activations and of weights cost one each.
_PASSES = 3


def reproduce(
    table: Table, settings: ReproduceSettings, runs: Path, scale: Scale, progress: Progress
) -> dict[str, Any]:
    """Measured and published figures of each row of the table, in percent; rows with missing datasets list them.

    Finished runs are reused, and interrupted ones resume. At a scale other than the paper's, rows are labelled,
    published figures are left out, and runs have a separate folder.
    """
    settings, runs = _own_folders(settings, runs, scale)
    stages = StageRunner(runs, progress)
    rows = []
    with process_group(settings.device):
        distributed.run_on_main(lambda: _prepare_sites(table, settings, scale, progress))
        for row in _rows(table, scale):
            stage = _last_stage(row, settings, scale)
            missing = _missing(stage, settings) if stage else []
            measured = _measure(row, stage, stages) if stage and not missing else None
            rows.append(_compare(row, measured, missing, scale))
    return {**_describe(table, scale), "units": "percent", "rows": rows}


def dry_run(table: Table, settings: ReproduceSettings, runs: Path, scale: Scale) -> dict[str, Any]:
    """The plan of the table: the training runs and missing datasets of each row, and the total cost."""
    settings, runs = _own_folders(settings, runs, scale)
    stages = StageRunner(runs, Silent())
    rows, trainings = [], dict[str, Stage]()
    for row in _rows(table, scale):
        entry: dict[str, Any] = {"row": row.name, **({"setting": scale.label} if scale.label else {})}
        rows.append(entry)
        stage = _last_stage(row, settings, scale)
        if stage is None:
            entry["cited"] = row.cited
            continue
        missing = _missing(stage, settings)
        run = None if missing else stages.find(stage)
        trainings |= stage.dependencies()
        entry["trainings"] = _training_lines(stage)
        entry |= {"finished": bool(run and run.finished), "missing": [] if scale.sites else missing}
    return {**_describe(table, scale), "rows": rows, "trainings": len(trainings), "cost": _cost(trainings.values())}


def _rows(table: Table, scale: Scale) -> list[Row]:
    """The rows to show: cited rows only at the paper's scale."""
    return [row for row in table.rows if row.plan or not scale.label]


def _last_stage(row: Row, settings: ReproduceSettings, scale: Scale) -> Stage | None:
    """The stage whose scores are those of `row`; None for a cited row."""
    return plan_stages(scale.chain(row, settings))[-1] if row.plan else None


def _training_lines(stage: Stage) -> list[str]:
    """The training runs of a row, a line for each network: its backbone, its method, and its datasets in order."""
    lines = _training_lines(stage.teacher) if stage.teacher else []
    chain = [stage]
    while chain[0].init:
        chain.insert(0, chain[0].init)
    network = f"{stage.settings.backbone} {stage.settings.method}: "
    if stage.teacher and stage.init:
        return [*lines, *_training_lines(stage.init), network + stage.settings.data]
    return [*lines, network + " → ".join(one.settings.data for one in chain)]


def _missing(stage: Stage, settings: ReproduceSettings) -> list[str]:
    """The missing datasets of the stage and of those that it builds on, sorted."""
    stages = stage.dependencies().values()
    return sorted({name for one in stages for name in missing_datasets(one.settings.data, Path(settings.root))})


def _own_folders(settings: ReproduceSettings, runs: Path, scale: Scale) -> tuple[ReproduceSettings, Path]:
    """The settings and the runs folder, with separate folders at a scale other than the paper's."""
    if not scale.label:
        return settings, runs
    return settings.model_copy(update={"root": str(Path(settings.root) / "tiny")}), runs / "tiny"


def _prepare_sites(table: Table, settings: ReproduceSettings, scale: Scale, progress: Progress) -> None:
    """Render the synthetic datasets that replace the table's, if they are missing."""
    stages = [_last_stage(row, settings, scale) for row in table.rows if scale.sites]
    for name in sorted({name for stage in stages if stage for name in _missing(stage, settings)}):
        dataset = datasets.find(name)
        dataset.module.prepare(dataset.folders(Path(settings.root))[0], dataset.variant, scale.sites, progress)


def _describe(table: Table, scale: Scale) -> dict[str, Any]:
    return {"table": table.number, "title": table.title, "setting": scale.label or "paper"}


def _paper_ap(row: Row) -> Literal["step", "trapezoid"]:
    """The definition of AP by which the paper scored `row`: that of the dataset of its last stage."""
    return datasets.find(row.plan["chain"][-1]).info.paper_ap


def _measure(row: Row, stage: Stage, stages: StageRunner) -> dict[str, Any]:
    """The run of `stage`, trained if it is not finished, and its scores in percent, with the paper's AP."""
    run, ap = stages.run(stage, train_stage), _paper_ap(row)
    metrics = run.read_metrics()
    mean_ap = metrics["mAP"]
    if ap != "step":  # as runs are scored; this takes their cached features
        settings = default_evaluation(stage.settings).model_copy(update={"ap": ap})
        splits = stages.splits(stage.settings.data, stage.settings.root)
        mean_ap = evaluate_run(run, splits, settings, stages.progress).mean_ap
    measured = {"mAP": 100 * mean_ap, "mAP_step": 100 * metrics["mAP"], "cmc1": 100 * metrics["cmc"]["1"]}
    return {"run": metrics["run"], "measured": measured}


def _compare(row: Row, found: Mapping[str, Any] | None, missing: list[str], scale: Scale) -> dict[str, Any]:
    """A row for JSON: published and measured figures, their difference, and the missing datasets."""
    published = {"mAP": row.mean_ap, "cmc1": row.cmc1}
    result: dict[str, Any] = {"row": row.name, "setting": scale.label or "paper"}
    if row.cited:
        return {**result, "cited": row.cited, "published": published}
    result |= {"ap": _paper_ap(row), "missing": missing, **(found or {"run": None, "measured": None})}
    if not scale.label:
        result["published"] = published
        result["difference"] = found and {name: found["measured"][name] - value for name, value in published.items()}
    return result


def _cost(stages: Iterable[Stage]) -> dict[str, Any] | None:
    """Training images and multiply-adds of all training runs; None if the size of a dataset is unknown."""
    images, macs = 0, 0.0
    for stage in stages:
        trained = _training_images(stage)
        if trained is None:
            return None
        teacher = stage.teacher if getattr(stage.settings, "lambda_", 0) else None
        each = _PASSES * _macs(stage) + (_macs(teacher) if teacher else 0)
        images, macs = images + trained, macs + trained * each
    return {"images": images, "macs": macs}


def _training_images(stage: Stage) -> int | None:
    """Images over all epochs of a training run, from the published counts if the dataset is missing."""
    settings, images, identities = stage.settings, 0, 0
    for name in settings.data.split("+"):
        dataset = datasets.find(name, Path(settings.root))
        if missing_datasets(name, Path(settings.root)):
            numbers = {what: dataset.counts.get(f"train_{what}", 0) for what in ("images", "identities")}
        else:
            numbers = datasets.load(name, Path(settings.root)).train.count()
        if not numbers["images"]:
            return None
        images, identities = images + numbers["images"], identities + numbers["identities"]
    per_epoch = identities * settings.images_per_identity if settings.images_per_identity else images
    return settings.epochs * per_epoch


def _macs(stage: Stage) -> float:
    """Multiply-adds of the forward pass for one image, in proportion to its area."""
    settings = stage.settings
    macs, (height, width) = _macs_and_size(settings.backbone, settings.ptl)
    return macs * (settings.height or height) * (settings.width or width) / (height * width)


@cache
def _macs_and_size(backbone: str, ptl: bool) -> tuple[int, tuple[int, int]]:
    """The multiply-adds of a network at its own image size, and that size."""
    from ptlreid.models.summary import summarize

    network = summarize(backbone, ptl, 1000)
    return network.macs, network.input_size
