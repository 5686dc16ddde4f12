"""`ptlreid distill`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptlreid.cli import console
from ptlreid.cli.options import DryRun, Given, Json, Runs, from_settings
from ptlreid.errors import OptionError
from ptlreid.settings import DistillSettings

if TYPE_CHECKING:
    from ptlreid.runs import RunFolder


@from_settings(DistillSettings, recipe=True)
def distill(
    given: Given,
    *,
    sweep: Annotated[
        str | None, typer.Option("--sweep", metavar="λ,λ,...", help="One run per λ, and one table.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Run folder.", show_default="data-backbone-std-λ-seed")
    ] = None,
    runs: Runs = Path("runs"),
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Distil a finished run into a plain backbone (student-teacher distillation).

    The loss is (1 - λ) times the student's own loss and λ times the mean absolute difference between the features of
    student and teacher. Dataset, backbone and image size default to the teacher's. The same command again
    resumes an interrupted run, and reuses a finished one.

    Examples:
      ptlreid distill --lambda 0.8
      ptlreid distill --teacher market-densenet161-ptl-s0 --data market
      ptlreid distill --sweep 0,0.3,0.5,0.8,1
    """
    from ptlreid import datasets
    from ptlreid.distributed import process_group
    from ptlreid.transfer.distillation import check_widths, resolve_settings
    from ptlreid.workflows import distill as workflow

    progress = console.Reporter()
    full = resolve_settings(partial(given.resolve, DistillSettings), runs, progress)
    students = [full] if sweep is None else _sweep(full, sweep, given="lambda_" in full.model_fields_set)
    folders = _folders(runs, name, students, sweep)
    splits = datasets.load(full.data, Path(full.root))
    if dry_run:
        plans = [workflow.dry_run(one, splits, run) for one, run in zip(students, folders, strict=True)]
        return _show_plans(plans, as_json=json)
    for one, run in zip(students, folders, strict=True):
        if not run.finished:  # all runs of a sweep are checked before the first is trained
            check_widths(one, runs)
    with process_group(full.device):
        results = [workflow.distill(one, splits, run, progress) for one, run in zip(students, folders, strict=True)]
    if json and sweep is None:
        console.show_json(results[0])
    elif json:
        rows = [{"lambda": one.lambda_, **metrics} for one, metrics in zip(students, results, strict=True)]
        console.show_json({"teacher": full.teacher, "runs": rows})
    else:
        title = f"{full.backbone}, distilled from {full.teacher}, on {splits.name} (protocol {splits.protocol})"
        _show(title, students, results, folders)


def _show(
    title: str,
    students: Sequence[DistillSettings],
    results: Sequence[Mapping[str, Any]],
    folders: Sequence[RunFolder],
) -> None:
    values = (f"λ = {one.lambda_:g}" for one in students)
    console.show_scores(title, {value: _scores(metrics) for value, metrics in zip(values, results, strict=True)})
    for run in folders:
        console.say(f"Run folder: {run.path}")


def _sweep(settings: DistillSettings, sweep: str, *, given: bool) -> list[DistillSettings]:
    """The settings for each λ in `--sweep`; `OptionError` for an invalid λ, or if --lambda is `given` as well."""
    if given:
        raise OptionError("--sweep and --lambda both set λ. Give one of them.")
    try:
        values = [float(value) for value in sweep.split(",")]
    except ValueError:
        raise OptionError(
            f"--sweep {sweep}: expected comma-separated numbers, such as --sweep 0,0.3,0.5,0.8,1."
        ) from None
    origins = {"lambda_": f"--sweep {sweep}"}
    checked = [DistillSettings.resolve(None, lambda_=value, origins=origins) for value in values]
    return [settings.model_copy(update={"lambda_": one.lambda_}) for one in checked]


def _folders(runs: Path, name: str | None, students: Sequence[DistillSettings], sweep: str | None) -> list[RunFolder]:
    """The folder of each run; `OptionError` for two runs of a sweep in one, as names have six digits of λ."""
    from ptlreid.runs import name_run

    folders = [name_run(runs, f"{name}-{one.lambda_:g}" if name and sweep else name, one) for one in students]
    paths = [run.path for run in folders]
    if twice := next((path.name for path in paths if paths.count(path) > 1), None):
        raise OptionError(
            f"--sweep {sweep}: two of its runs would be called {twice}: expected each λ once, different in its first "
            "six digits. Leave one out."
        )
    return folders


def _show_plans(plans: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    if len(plans) == 1:
        console.show_plan(plans[0], as_json=as_json)
    elif as_json:
        console.show_json({"runs": plans})
    else:
        for plan in plans:
            console.show_plan(plan, as_json=False)


def _scores(metrics: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return metrics if "mAP" in metrics else None
