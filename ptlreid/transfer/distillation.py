"""Student-teacher distillation (paper section 4): the settings that a student shares with its teacher, and Eq. 4."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ptlreid.errors import OptionError
from ptlreid.models.pretrained import init_digests
from ptlreid.models.weights import WeightsFile, read_weights_header
from ptlreid.network_types import NetworkSpec
from ptlreid.progress import Progress
from ptlreid.runs import find_newest_ptl, find_run
from ptlreid.settings import DistillSettings, FinetuneSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ptlreid.engine.fit import Objective
    from ptlreid.network_types import Output


class Resolve(Protocol):
    """Resolves the settings that were given, with more values and with notes: see `Settings.resolve`."""

    def __call__(self, *, progress: Progress | None = None, **more: Any) -> DistillSettings: ...


def resolve_settings(resolve: Resolve, runs: Path, progress: Progress) -> DistillSettings:
    """The settings with those that were not given taken from the teacher: dataset, backbone and images.

    Without a teacher, takes the newest finished PTL run below `runs` and notes it in `progress`. If the teacher's
    backbone has a recipe, it applies. Raises `CheckpointError` if there is no such run, `OptionError` for other images
    than the teacher's.
    """
    given = resolve()
    teacher = find_run(runs, given.teacher) if given.teacher else find_newest_ptl(runs)
    if not given.teacher:
        progress.note(f"teacher run: {teacher.path}, the newest finished PTL run")
    spec = read_weights_header(teacher.weights()).spec
    size = {"height": spec.height, "width": spec.width, "interpolation": spec.interpolation}
    values = {"data": teacher.settings().data, "backbone": spec.backbone, **size}
    missing = {name: value for name, value in values.items() if name not in given.model_fields_set}
    settings = resolve(progress=progress, **missing, teacher=given.teacher or teacher.path.name)
    if (settings.height, settings.width, settings.interpolation) != tuple(size.values()):
        raise OptionError(
            f"Image size {settings.height}×{settings.width} ({settings.interpolation}): expected {spec.height}×"
            f"{spec.width} ({spec.interpolation}), the size of the teacher {teacher.path.name}, as both see the same "
            "images. Leave out --height, --width and --interpolation, or choose another --teacher."
        )
    return settings


def dependency_digests(settings: FinetuneSettings, runs: Path) -> dict[str, str]:
    """Digests of the initial weights (`init`) and of the teacher's weights (`teacher`), if they are used."""
    digests = init_digests(settings.init, runs)
    if isinstance(settings, DistillSettings) and settings.lambda_:
        digests["teacher"] = read_teacher(settings, runs).digest
    return digests


def read_teacher(settings: DistillSettings, runs: Path) -> WeightsFile:
    """The weights of the teacher run's last epoch, not loaded; does not import torch."""
    assert settings.teacher is not None, "set by resolve_settings"
    return read_weights_header(find_run(runs, settings.teacher).weights())


def check_widths(settings: DistillSettings, runs: Path) -> None:
    """Raise `OptionError` unless student and teacher have features of one width; λ = 0 needs no check."""
    if not settings.lambda_:
        return
    teacher = read_teacher(settings, runs)
    student = NetworkSpec(settings.backbone, settings.ptl, settings.memory, 2, teacher.spec.height, teacher.spec.width)
    ours, theirs = _feature_width(student), _feature_width(teacher.spec)
    if ours != theirs:
        raise OptionError(
            f"Features of {settings.backbone} have width {ours}: expected {theirs}, the width of the teacher "
            f"({teacher.spec.backbone}), as Eq. 4 compares them element by element. Choose --backbone "
            f"{teacher.spec.backbone}, a --teacher with features of width {ours}, or `ptlreid finetune` without a "
            "teacher."
        )


def _feature_width(spec: NetworkSpec) -> int:
    import torch

    from ptlreid import models

    with torch.device("meta"):  # no memory is allocated
        return models.build(spec, seed=0).feature_width


def distillation_objective(settings: DistillSettings, teacher: WeightsFile) -> Callable[[torch.device], Objective]:
    """A function that builds the objective of Eq. 4 on a device; the teacher runs there in eval mode, without gradient.

    Loads the teacher when the objective is built.
    """

    def make(device: torch.device) -> Objective:
        import torch

        from ptlreid import losses
        from ptlreid.losses._std import std

        layout = torch.channels_last if settings.channels_last else torch.preserve_format
        network = teacher.build().requires_grad_(False).to(device).to(memory_format=layout)
        loss = losses.find(settings.loss, settings.model_dump())

        def objective(output: Output, labels: Tensor, images: Tensor) -> dict[str, Tensor]:
            with torch.no_grad():
                features = network(images).embedding
            return std(loss(output, labels), output.embedding, features, settings.lambda_)

        return objective

    return make
