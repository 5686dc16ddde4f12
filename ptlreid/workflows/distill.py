"""`ptlreid distill`: a dataset, a student and a teacher to a run folder (paper section 4)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptlreid.errors import OptionError
from ptlreid.models.weights import WeightsFile, read_weights_header
from ptlreid.network_types import NetworkSpec
from ptlreid.progress import Progress
from ptlreid.records import Splits
from ptlreid.runs import RunFolder, find_newest_ptl, find_run, init_digests
from ptlreid.settings import DistillSettings, FinetuneSettings
from ptlreid.workflows.finetune import finetune

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ptlreid.engine.fit import Objective
    from ptlreid.network_types import Output


def distill(config: DistillSettings, splits: Splits, run: RunFolder, progress: Progress) -> dict[str, Any]:
    """The metrics of the finished run, which are in `run.metrics` too; `config` is a `completed` one.

    Everything that holds for `finetune` holds here: λ = 0 is that very fine-tuning, and no teacher is run. Raises
    `OptionError` where teacher and student cannot be compared.
    """
    runs = run.path.parent
    objective = None
    if config.lambda_:
        objective = _objective(config, read_teacher(config, runs))
        if not run.finished:
            check_widths(config, runs)
    return finetune(config, splits, run, progress, objective=objective, depends=dependency_digests(config, runs))


def complete_settings(config: DistillSettings, runs: Path, progress: Progress) -> DistillSettings:
    """The settings with what was not given taken from the teacher: dataset, backbone and image size.

    The teacher itself is the newest finished PTL run below `runs` where none is named, and `progress` is told.
    Raises `CheckpointError` when there is no such run, `OptionError` for another image size than the teacher's.
    """
    teacher = find_run(runs, config.teacher) if config.teacher else find_newest_ptl(runs)
    if not config.teacher:
        progress.note(f"teacher: {teacher.path}, the PTL run that was finished last")
    spec = read_weights_header(teacher.weights()).spec
    values = {"data": teacher.settings().data, "backbone": spec.backbone, "height": spec.height, "width": spec.width}
    left = {name: value for name, value in values.items() if name not in config.model_fields_set}
    full = config.model_copy(update={**left, "teacher": config.teacher or teacher.path.name})
    if (full.height, full.width) != (spec.height, spec.width):
        raise OptionError(
            f"The student would see images of {full.height}×{full.width}, and its teacher {teacher.path.name} sees "
            f"{spec.height}×{spec.width}: both see the same images. Leave out --height and --width, or name another "
            "--teacher."
        )
    return full


def dependency_digests(config: FinetuneSettings, runs: Path) -> dict[str, str]:
    """Digests of the weights that a run with these settings starts from and learns from, where there are any."""
    digests = init_digests(config.init, runs)
    if isinstance(config, DistillSettings) and config.lambda_:
        digests["teacher"] = read_teacher(config, runs).digest
    return digests


def read_teacher(config: DistillSettings, runs: Path) -> WeightsFile:
    """The teacher's weights, which are the last of its run; torch is not imported."""
    assert config.teacher is not None, "completed before"
    return read_weights_header(find_run(runs, config.teacher).weights())


def check_widths(config: DistillSettings, runs: Path) -> None:
    """Raise `OptionError` unless the student's features are as wide as its teacher's; λ = 0 compares nothing."""
    if not config.lambda_:
        return
    teacher = read_teacher(config, runs)
    student = NetworkSpec(config.backbone, config.ptl, config.memory, 2, teacher.spec.height, teacher.spec.width)
    ours, theirs = _feature_width(student), _feature_width(teacher.spec)
    if ours != theirs:
        raise OptionError(
            f"Features of {config.backbone} are {ours} wide, those of the teacher ({teacher.spec.backbone}) {theirs}: "
            f"Eq. 4 compares them one by one. Choose --backbone {teacher.spec.backbone}, a --teacher whose features "
            f"are {ours} wide, or `ptlreid finetune` to learn without a teacher."
        )


def _feature_width(spec: NetworkSpec) -> int:
    import torch

    from ptlreid import models

    with torch.device("meta"):  # described, not allocated
        return models.build(spec).feature_width


def _objective(config: DistillSettings, teacher: WeightsFile) -> Callable[[torch.device], Objective]:
    """Makes Eq. 4 on a device, with the teacher there in eval mode: no gradient and no state of its own."""

    def make(device: torch.device) -> Objective:
        import torch

        from ptlreid import losses
        from ptlreid.losses._std import std

        layout = torch.channels_last if config.channels_last else torch.preserve_format
        network = teacher.build().requires_grad_(False).to(device).to(memory_format=layout)
        loss = losses.find(config.loss, config.model_dump())

        def objective(output: Output, labels: Tensor, images: Tensor) -> dict[str, Tensor]:
            with torch.no_grad():
                features = network(images).embedding
            return std(loss(output, labels), output.embedding, features, config.lambda_)

        return objective

    return make
