"""`ptlreid distill`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptlreid.cli import console, options
from ptlreid.errors import OptionError
from ptlreid.settings import DistillSettings

if TYPE_CHECKING:
    from ptlreid.runs import RunFolder

_OF_TEACHER = "the teacher's"


def distill(
    teacher: Annotated[str | None, options.option(DistillSettings, "teacher")] = None,
    lambda_: Annotated[float | None, options.option(DistillSettings, "lambda_", "--lambda")] = None,
    sweep: Annotated[str | None, typer.Option(metavar="λ,λ,...", help="A run for each λ, and one table.")] = None,
    data: Annotated[str | None, typer.Option(help="Dataset to train on.", show_default=_OF_TEACHER)] = None,
    backbone: Annotated[str | None, typer.Option(help="The student's backbone.", show_default=_OF_TEACHER)] = None,
    init: options.Init = None,
    recipe: options.Recipe = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    seed: options.Seed = None,
    name: options.Name = None,
    config: options.ConfigFile = None,
    root: options.Root = None,
    runs: options.Runs = Path("runs"),
    device: options.Device = None,
    workers: options.Workers = None,
    json: options.Json = False,
    dry_run: options.DryRun = False,
) -> None:
    """Teach a plain backbone the features of a finished run (student-teacher distillation).

    The loss is (1 - λ) times the student's own and λ times the mean difference of its features from the teacher's. The
    same command again continues a run that was stopped, and reuses one that is finished.
    """
    given = locals()
    shares = [lambda_] if sweep is None else _shares(sweep, lambda_)
    chosen = [options.settings(DistillSettings, {**given, "lambda_": share}) for share in shares]

    from ptlreid import datasets
    from ptlreid.distributed import process_group
    from ptlreid.transfer.distillation import check_widths, complete_settings
    from ptlreid.workflows import distill as workflow

    progress = console.Reporter()
    full = complete_settings(chosen[0], runs, progress)
    same = {field: getattr(full, field) for field in ("teacher", "data", "backbone", "height", "width")}
    settings = [one.model_copy(update=same) for one in chosen]
    splits = datasets.load(full.data, Path(full.root))
    folders = [_folder(runs, name, one, several=sweep is not None) for one in settings]
    if dry_run:
        plans = [workflow.dry_run(one, splits, run) for one, run in zip(settings, folders, strict=True)]
        _show_plans(plans, as_json=json)
        return
    for one, run in zip(settings, folders, strict=True):
        if not run.finished:  # of a sweep, all before the first is trained
            check_widths(one, runs)
    with process_group(full.device):
        found = [workflow.distill(one, splits, run, progress) for one, run in zip(settings, folders, strict=True)]
    if json and sweep is None:
        console.show_json(found[0])
    elif json:
        rows = [{"lambda": one.lambda_, **metrics} for one, metrics in zip(settings, found, strict=True)]
        console.show_json({"teacher": full.teacher, "runs": rows})
    else:
        title = f"{full.backbone} taught by {full.teacher}, on {splits.name} (protocol {splits.protocol})"
        scores = {f"λ = {one.lambda_:g}": _scores(metrics) for one, metrics in zip(settings, found, strict=True)}
        console.show_scores(title, scores)
        for run in folders:
            console.say(f"Run folder: {run.path}")


def _shares(sweep: str, lambda_: float | None) -> list[float | None]:
    """The values of λ in `--sweep`; `OptionError` where one is no number, or --lambda is given too."""
    if lambda_ is not None:
        raise OptionError("--sweep and --lambda both say what λ is. Give one of them.")
    try:
        return [float(share) for share in sweep.split(",")]
    except ValueError:
        raise OptionError(
            f"--sweep {sweep}: not numbers with commas between. Such as --sweep 0,0.3,0.5,0.8,1."
        ) from None


def _folder(runs: Path, name: str | None, settings: DistillSettings, *, several: bool) -> RunFolder:
    from ptlreid.runs import RunFolder

    if name is None:
        return RunFolder(runs / settings.default_name)
    return RunFolder(runs / (f"{name}-{settings.lambda_:g}" if several else name))


def _show_plans(plans: list[dict[str, Any]], *, as_json: bool) -> None:
    if len(plans) == 1:
        console.show_plan(plans[0], as_json=as_json)
    elif as_json:
        console.show_json({"runs": plans})
    else:
        for plan in plans:
            console.show_plan(plan, as_json=False)


def _scores(metrics: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return metrics if "mAP" in metrics else None
