"""`ptlreid distill`: fine-tune a student towards the features of a teacher run (paper section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ptlreid import distributed
from ptlreid.engine.job import build_sampler
from ptlreid.progress import Progress
from ptlreid.records import Splits
from ptlreid.runs import RunFolder
from ptlreid.settings import DistillSettings
from ptlreid.transfer.distillation import (
    check_widths,
    dependency_digests,
    distillation_objective,
    read_teacher,
)
from ptlreid.workflows.finetune import finetune


def distill(settings: DistillSettings, splits: Splits, run: RunFolder, progress: Progress) -> dict[str, Any]:
    """The metrics of the finished run, also written to `run.metrics`; `settings` come from `resolve_settings`.

    As `finetune`, and the same as it for λ = 0, when the teacher is not run. Raises `OptionError` if the features of
    teacher and student differ in width.
    """
    runs = run.path.parent
    objective = None
    if settings.lambda_:
        objective = distillation_objective(settings, read_teacher(settings, runs))
        if not run.finished:
            check_widths(settings, runs)
    return finetune(settings, splits, run, progress, objective=objective, depends=dependency_digests(settings, runs))


def check_all(pairs: Sequence[tuple[DistillSettings, RunFolder]], splits: Splits) -> None:
    """Raise the errors that `distill` would raise before its first update, for all of several runs before the first."""

    def check() -> None:
        for settings, run in pairs:
            runs = run.path.parent
            run.check(settings, splits, dependency_digests(settings, runs))
            if not run.finished:
                check_widths(settings, runs)

    distributed.run_on_main(check)


def dry_run(settings: DistillSettings, splits: Splits, run: RunFolder) -> dict[str, Any]:
    """The planned training, for JSON; raises the errors that `distill` would raise before its first update."""
    runs = run.path.parent
    run.check(settings, splits, dependency_digests(settings, runs))
    check_widths(settings, runs)
    return {
        "run": str(run.path),
        "settings": settings.model_dump(by_alias=True),
        "train": {"images": len(splits.train), "identities": splits.train.num_identities},
        "steps": settings.epochs * len(build_sampler(settings, splits)) // settings.accumulate,
    }
