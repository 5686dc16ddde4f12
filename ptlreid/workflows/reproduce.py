"""`ptlreid reproduce`: the runs behind the paper's tables, measured vs. published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from ptlreid import datasets, distributed, models
from ptlreid.distributed import process_group
from ptlreid.engine.job import resolve_size
from ptlreid.evaluation import evaluate_run
from ptlreid.progress import Progress, Silent
from ptlreid.retrieval.seeds import mean_and_sd
from ptlreid.settings import default_evaluation
from ptlreid.settings.reproduce import ReproduceSettings, Row, Scale, Table
from ptlreid.transfer.stages import Stage, StageRunner, missing_datasets, plan_stages
from ptlreid.workflows.chain import train_stage

# The cost of a training step in forward passes: gradients of activations and of weights cost one each.
_PASSES = 3


def reproduce(
    table: Table, every: Sequence[ReproduceSettings], runs: Path, scale: Scale, progress: Progress
) -> dict[str, Any]:
    """Measured and published figures of each row of the table, in percent; rows with missing datasets list them.

    `every`: the settings of each seed; figures are means over seeds. Finished runs are reused, and interrupted ones
    resume. At a scale other than the paper's, rows are labelled, published figures are left out, and runs have a
    separate folder.
    """
    every, runs = _own_folders(every, runs, scale)
    stages = StageRunner(runs, progress)
    rows = []
    with process_group(every[0].device):
        distributed.run_on_main(lambda: _prepare_sites(table, every[0], scale, progress))
        for row in _rows(table, scale):
            planned = _last_stages(row, every, scale)
            missing = _missing(planned[0], every[0]) if planned else []
            measured = [] if missing else [_measure(row, stage, stages) for stage in planned]
            rows.append(_compare(row, measured, missing, scale))
    return {**_describe(table, scale), "units": "percent", "rows": rows}


def dry_run(selected: Sequence[Table], every: Sequence[ReproduceSettings], runs: Path, scale: Scale) -> dict[str, Any]:
    """The plans of tables: training runs and missing datasets of each row, and the cost of each table and of all."""
    every, runs = _own_folders(every, runs, scale)
    stages = StageRunner(runs, Silent())
    plans, all_trainings = [], dict[str, Stage]()
    for table in selected:
        rows, trainings = [], dict[str, Stage]()
        for row in _rows(table, scale):
            planned = _last_stages(row, every, scale)
            trainings |= {key: one for stage in planned for key, one in stage.dependencies().items()}
            rows.append(_plan(row, planned, every[0], stages, scale))
        totals = {"trainings": len(trainings), "cost": _cost(trainings.values(), stages)}
        plans.append({**_describe(table, scale), "rows": rows, **totals})
        all_trainings |= trainings
    return {"tables": plans, "trainings": len(all_trainings), "cost": _cost(all_trainings.values(), stages)}


def check(selected: Sequence[Table], every: Sequence[ReproduceSettings], scale: Scale) -> None:
    """Raise `OptionError` for settings with which a row of the tables cannot be trained, before anything runs."""
    for row in (row for table in selected for row in _rows(table, scale)):
        for stage in _last_stages(row, every, scale):
            for one in stage.dependencies().values():
                sized = resolve_size(one.settings)
                assert sized.height is not None and sized.width is not None, "set by resolve_size"
                models.check_size(sized.backbone, sized.height, sized.width)


def _plan(
    row: Row, planned: Sequence[Stage], settings: ReproduceSettings, stages: StageRunner, scale: Scale
) -> dict[str, Any]:
    """The plan of a row, whose stages for each seed are `planned`, for JSON."""
    if not planned:
        return {"row": row.name, "cited": row.cited}
    missing = _missing(planned[0], settings)
    found = [None if missing else stages.find(stage) for stage in planned]
    return {
        "row": row.name,
        **({} if scale.setting == "paper" else {"setting": scale.setting}),
        "trainings": _training_lines(planned[0]),
        "finished": all(run is not None and run.finished for run in found),
        "missing": [] if scale.sites else missing,
    }


def _rows(table: Table, scale: Scale) -> list[Row]:
    """The rows to show: cited rows only at the paper's scale."""
    return [row for row in table.rows if row.plan or not scale.label]


def _last_stages(row: Row, every: Sequence[ReproduceSettings], scale: Scale) -> list[Stage]:
    """The stage of each seed whose scores are those of `row`; none for a cited row."""
    return [plan_stages(scale.chain(row, settings))[-1] for settings in every] if row.plan else []


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


def _own_folders(
    every: Sequence[ReproduceSettings], runs: Path, scale: Scale
) -> tuple[Sequence[ReproduceSettings], Path]:
    """The settings and the runs folder, with separate folders at a scale other than the paper's."""
    if not scale.label:
        return every, runs
    return [one.model_copy(update={"root": str(Path(one.root) / "tiny")}) for one in every], runs / "tiny"


def _prepare_sites(table: Table, settings: ReproduceSettings, scale: Scale, progress: Progress) -> None:
    """Render the synthetic datasets that replace the table's, if they are missing."""
    stages = [stage for row in table.rows if scale.sites for stage in _last_stages(row, [settings], scale)]
    for name in sorted({name for stage in stages for name in _missing(stage, settings)}):
        dataset = datasets.find(name)
        dataset.module.prepare(dataset.folders(Path(settings.root))[0], dataset.variant, scale.sites, progress)


def _describe(table: Table, scale: Scale) -> dict[str, Any]:
    return {"table": table.number, "title": table.title, "setting": scale.setting}


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
    about = {"seed": stage.settings.seed, "run": metrics["run"], "environment": metrics.get("environment")}
    return {**about, "measured": measured}


def _compare(row: Row, runs: Sequence[Mapping[str, Any]], missing: list[str], scale: Scale) -> dict[str, Any]:
    """A row for JSON: published figures, those of each seed's run, their mean, and its difference from the former.

    `run`: the run of a single seed.
    """
    published = {"mAP": row.mean_ap, "cmc1": row.cmc1}
    if row.cited:
        return {"row": row.name, "setting": "paper", "cited": row.cited, "published": published}
    mean, sd = mean_and_sd([one["measured"] for one in runs]) if runs else (None, None)
    result: dict[str, Any] = {
        "row": row.name,
        "setting": scale.setting,
        "ap": _paper_ap(row),
        "missing": missing,
        "run": runs[0]["run"] if len(runs) == 1 else None,
        "runs": list(runs),
        "measured": mean,
        "sd": sd,
    }
    if not scale.label:
        result["published"] = published
        result["difference"] = mean and {name: mean[name] - value for name, value in published.items()}
    return result


def _cost(trainings: Iterable[Stage], stages: StageRunner) -> dict[str, Any] | None:
    """Training images and multiply-adds of all training runs; None if the size of a dataset is unknown."""
    images, macs = 0, 0.0
    for stage in trainings:
        trained = _training_images(stage, stages)
        if trained is None:
            return None
        teacher = stage.teacher if getattr(stage.settings, "lambda_", 0) else None
        each = _PASSES * _macs(stage) + (_macs(teacher) if teacher else 0)
        images, macs = images + trained, macs + trained * each
    return {"images": images, "macs": macs}


def _training_images(stage: Stage, stages: StageRunner) -> int | None:
    """Images over all epochs of a training run, from the published counts if the dataset is missing."""
    settings, images, identities = stage.settings, 0, 0
    for name in settings.data.split("+"):
        dataset = datasets.find(name, Path(settings.root))
        if missing_datasets(name, Path(settings.root)):
            numbers = {what: dataset.counts.get(f"train_{what}", 0) for what in ("images", "identities")}
        else:
            numbers = stages.splits(name, settings.root).train.count()
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
