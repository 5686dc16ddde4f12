"""`ptlreid distill`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptlreid.cli import console
from ptlreid.cli.options import DryRun, Given, Json, Runs, from_settings
from ptlreid.cli.plans import show_training_plan
from ptlreid.cli.seeds import Seeds, add_seeds, name_of_seed, seed_values, show_seeds
from ptlreid.errors import OptionError
from ptlreid.progress import Progress, Silent
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
    seeds: Seeds = None,
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
    resumes an interrupted run, and reuses a finished one. With --seeds, a * in --teacher stands for the seed. The
    student of an adapted run needs no camera statistics, and learns from images without identities (λ = 1).

    Examples:
      ptlreid distill --lambda 0.8
      ptlreid distill --teacher market-densenet161-ptl-s0 --data market
      ptlreid distill --teacher lobby-densenet161-ptl-adapt-s0
      ptlreid distill --teacher 'market-densenet161-ptl-s*' --seeds 0-2
      ptlreid distill --sweep 0,0.3,0.5,0.8,1
    """
    from ptlreid import datasets
    from ptlreid.distributed import process_group
    from ptlreid.workflows import distill as workflow

    progress = console.Reporter()
    full, teacher = _resolve(given, seeds, runs, progress)
    students = full if sweep is None else _sweep(full, sweep, given.resolve(DistillSettings))
    folders = _folders(runs, name, students, sweep, seeds)
    pairs = list(zip(students, folders, strict=True))
    splits = datasets.load(full[0].data, Path(full[0].root))
    if dry_run:
        return _show_plans(workflow.dry_run_all(pairs, splits, progress), as_json=json)
    with process_group(full[0].device):
        workflow.check_all(pairs, splits)
        results = [workflow.distill(one, splits, run, progress) for one, run in pairs]
    if json:
        _show_json(students, results, teacher, sweep=sweep is not None, seeds=seeds is not None)
    else:
        title = f"{full[0].backbone}, distilled from {teacher}, on {splits.name} (protocol {splits.protocol})"
        _show(title, students, results, seeds=seeds is not None)
        console.show_folders(run.path for run in folders)


def _resolve(given: Given, seeds: str | None, runs: Path, progress: Progress) -> tuple[list[DistillSettings], str]:
    """The settings of each seed, completed from its teacher, and the name of the teacher, which may have a `*`.

    Raises `OptionError` for teachers that were trained on different datasets.
    """
    from ptlreid.transfer.distillation import resolve_settings

    full: list[DistillSettings] = []
    name = ""
    for values in seed_values(given, seeds):
        name = name or given.resolve(DistillSettings, **values).teacher or ""
        teacher: dict[str, Any] = {"teacher": name.replace("*", str(values["seed"]))} if seeds and name else {}
        resolve = partial(given.resolve, DistillSettings, **values, **teacher)
        full.append(resolve_settings(resolve, runs, Silent() if full else progress))
        name = name or full[0].teacher or ""
    if len(data := dict.fromkeys(one.data for one in full)) > 1:
        raise OptionError(
            f"--teacher {name}: trained on different datasets: {', '.join(data)}, expected one. Choose one with --data."
        )
    return full, name


def _group(labels: Sequence[str], runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The seeds' runs with mean and standard deviation, by label."""
    from ptlreid.retrieval.seeds import summarize_seeds

    by_label: dict[str, list[Mapping[str, Any]]] = {}
    for label, run in zip(labels, runs, strict=True):
        by_label.setdefault(label, []).append(run)
    return {label: summarize_seeds(group) for label, group in by_label.items()}


def _show(
    title: str, students: Sequence[DistillSettings], results: Sequence[Mapping[str, Any]], *, seeds: bool
) -> None:
    labels = [f"λ = {one.lambda_:g}" for one in students]
    if seeds:
        show_seeds(title, _group(labels, add_seeds(students, results)))
    else:
        console.show_scores(title, dict(zip(labels, results, strict=True)))


def _show_json(
    students: Sequence[DistillSettings],
    results: Sequence[Mapping[str, Any]],
    teacher: str | None,
    *,
    sweep: bool,
    seeds: bool,
) -> None:
    """Print the metrics of the run; with `sweep` or `seeds` those of all, by λ if there are both."""
    values = [one.lambda_ for one in students]
    if not (sweep or seeds):
        found = results[0]
    elif not seeds:
        rows = [{"lambda": value, **metrics} for value, metrics in zip(values, results, strict=True)]
        found = {"teacher": teacher, "runs": rows}
    else:
        groups = _group(list(map(str, values)), add_seeds(students, results))
        summaries = [{"lambda": float(value), **runs} for value, runs in groups.items()]
        found = {"teacher": teacher, **({"sweep": summaries} if sweep else summaries[0])}
    console.show_json(found)


def _sweep(every: Sequence[DistillSettings], sweep: str, given: DistillSettings) -> list[DistillSettings]:
    """The settings for each λ in `--sweep` and each seed; `OptionError` for a bad λ, or if --lambda is in `given`."""
    if "lambda_" in given.model_fields_set:
        raise OptionError("--sweep and --lambda both set λ. Give one of them.")
    try:
        values = [float(value) for value in sweep.split(",")]
    except ValueError:
        raise OptionError(
            f"--sweep {sweep}: expected comma-separated numbers, such as --sweep 0,0.3,0.5,0.8,1."
        ) from None
    origins = {"lambda_": f"--sweep {sweep}"}
    checked = [DistillSettings.resolve(None, lambda_=value, origins=origins) for value in values]
    return [one.model_copy(update={"lambda_": value.lambda_}) for value in checked for one in every]


def _folders(
    runs: Path, name: str | None, students: Sequence[DistillSettings], sweep: str | None, seeds: str | None
) -> list[RunFolder]:
    """The folder of each run; `OptionError` for two runs of a sweep in one, as names have six digits of λ."""
    from ptlreid.runs import name_run

    folders = []
    for one in students:
        of_sweep = f"{name}-{one.lambda_:g}" if name and sweep else name
        folders.append(name_run(runs, name_of_seed(of_sweep, seeds, one.seed), one))
    paths = [run.path for run in folders]
    if twice := next((path.name for path in paths if paths.count(path) > 1), None):
        raise OptionError(
            f"--sweep {sweep}: two of its runs would be called {twice}: expected each λ once, different in its first "
            "six digits. Leave one out."
        )
    return folders


def _show_plans(plans: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        return console.show_json(plans[0] if len(plans) == 1 else {"runs": plans})
    for plan in plans:
        show_training_plan(plan)
