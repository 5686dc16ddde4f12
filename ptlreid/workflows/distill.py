"""`ptlreid distill`: fine-tune a student towards the features of a teacher run (paper section 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ptlreid import distributed
from ptlreid.precision import resolve_precision
from ptlreid.progress import Progress
from ptlreid.records import Splits
from ptlreid.runs import RunFolder
from ptlreid.settings import DistillSettings
from ptlreid.transfer.distillation import (
    check_labels,
    check_widths,
    dependency_digests,
    describe_unknown_cameras,
    distillation_objective,
    read_teacher,
)
from ptlreid.workflows import finetune as workflow

if TYPE_CHECKING:
    import torch

    from ptlreid.engine.fit import Objective
    from ptlreid.losses import Loss


def distill(settings: DistillSettings, splits: Splits, run: RunFolder, progress: Progress) -> dict[str, Any]:
    """The metrics of the finished run, also written to `run.metrics`; `settings` come from `resolve_settings`.

    As `finetune`, and the same as it for λ = 0, when the teacher is not run. Images without identities will do for
    λ = 1. Raises `OptionError` if the features of teacher and student differ in width.
    """
    runs = run.path.parent
    check_labels(settings, splits)
    objective = _build_objective(settings, splits, run)
    if objective and not run.finished:
        check_widths(settings, runs)
        if note := describe_unknown_cameras(settings, splits.train, runs):
            progress.note(note)
    depends = dependency_digests(settings, runs)
    return workflow.finetune(settings, splits, run, progress, objective=objective, depends=depends)


def check_all(pairs: Sequence[tuple[DistillSettings, RunFolder]], splits: Splits) -> None:
    """Raise the errors that `distill` would raise before its first update, for all of several runs before the first."""

    resolved = [(resolve_precision(settings), run) for settings, run in pairs]

    def check() -> None:
        for settings, run in resolved:
            runs = run.path.parent
            check_labels(settings, splits)
            run.check(settings, splits, dependency_digests(settings, runs))
            if not run.finished:
                check_widths(settings, runs)

    distributed.run_on_main(check)


def dry_run_all(
    pairs: Sequence[tuple[DistillSettings, RunFolder]], splits: Splits, progress: Progress
) -> list[dict[str, Any]]:
    """The plans of runs that differ in λ, seed and teacher only, as of `finetune`.

    Estimated once with a teacher and once for λ = 0, which needs none. Raises the errors of `check_all`.
    """
    check_all(pairs, splits)
    plans: dict[bool, dict[str, Any]] = {}
    found = []
    for settings, run in pairs:
        objective = _build_objective(settings, splits, run)
        key = objective is not None
        if key not in plans:
            depends = dependency_digests(settings, run.path.parent)
            plans[key] = workflow.dry_run(settings, splits, run, progress, objective=objective, depends=depends)
        own = settings.model_dump(by_alias=True, include={"lambda_", "seed", "teacher"})
        found.append(plans[key] | {"run": str(run.path), "settings": plans[key]["settings"] | own})
    return found


def _build_objective(
    settings: DistillSettings, splits: Splits, run: RunFolder
) -> Callable[[torch.device, Loss], Objective] | None:
    """A function that builds the objective on a device; None for λ = 0, when the teacher is not run."""
    if not settings.lambda_:
        return None
    return distillation_objective(resolve_precision(settings), read_teacher(settings, run.path.parent), splits.train)
