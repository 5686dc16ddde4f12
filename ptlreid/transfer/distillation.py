"""Student-teacher distillation (paper section 4): the settings that a student shares with its teacher, and Eq. 4."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ptlreid import datasets
from ptlreid.errors import OptionError
from ptlreid.files import file_digest
from ptlreid.models.camera_statistics import cameras_file, read_cameras
from ptlreid.models.pretrained import init_digests
from ptlreid.models.weights import WeightsFile, read_weights_header
from ptlreid.network_types import HEAD, NetworkSpec
from ptlreid.progress import Progress
from ptlreid.records import Records, Splits
from ptlreid.runs import find_newest_ptl, find_run
from ptlreid.settings import AdaptSettings, DistillSettings, FinetuneSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ptlreid.engine.fit import Objective
    from ptlreid.losses import Loss
    from ptlreid.models.network import Network
    from ptlreid.network_types import Output


class Resolve(Protocol):
    """Resolves the settings that were given, with more values and with notes: see `Settings.resolve`."""

    def __call__(self, *, progress: Progress | None = None, **more: Any) -> DistillSettings: ...


def resolve_settings(resolve: Resolve, runs: Path, progress: Progress) -> DistillSettings:
    """The settings with those that were not given taken from the teacher: dataset, backbone, head and images.

    Without a teacher, takes the newest finished PTL run below `runs` and notes it in `progress`. If the teacher's
    backbone has a recipe, it applies. The dataset of an adapted teacher is taken without its identities, as it was
    taken then; for a dataset that is named as unlabelled, λ is 1 unless it is given. Raises `CheckpointError` if there
    is no such run, `OptionError` for other images than the teacher's.
    """
    given = resolve()
    teacher = find_run(runs, given.teacher) if given.teacher else find_newest_ptl(runs)
    if not given.teacher:
        progress.note(f"teacher run: {teacher.path}, the newest finished PTL run")
    spec = read_weights_header(teacher.weights()).spec
    size = {"height": spec.height, "width": spec.width, "interpolation": spec.interpolation}
    head = {name: getattr(spec, name) for name in HEAD}
    values: dict[str, Any] = {"data": _training_data(teacher.settings()), "backbone": spec.backbone, **size, **head}
    if (given.data if "data" in given.model_fields_set else values["data"]).endswith(datasets.UNLABELLED):
        values["lambda_"] = 1.0
    missing = {name: value for name, value in values.items() if name not in given.model_fields_set}
    settings = resolve(progress=progress, **missing, teacher=given.teacher or teacher.path.name)
    if (settings.height, settings.width, settings.interpolation) != tuple(size.values()):
        raise OptionError(
            f"Image size {settings.height}×{settings.width} ({settings.interpolation}): expected {spec.height}×"
            f"{spec.width} ({spec.interpolation}), the size of the teacher {teacher.path.name}, as both see the same "
            "images. Leave out --height, --width and --interpolation, or choose another --teacher."
        )
    return settings


def _training_data(teacher: FinetuneSettings) -> str:
    """The dataset as the teacher's training took it: adaptation reads no identities."""
    adapted = isinstance(teacher, AdaptSettings) and not teacher.data.endswith(datasets.UNLABELLED)
    return teacher.data + datasets.UNLABELLED if adapted else teacher.data


def dependency_digests(settings: FinetuneSettings, runs: Path) -> dict[str, str]:
    """Digests of the initial weights (`init`), and of the teacher's weights and camera statistics (`teacher`,
    `teacher_cameras`), if they are used."""
    digests = init_digests(settings.init, runs)
    if isinstance(settings, DistillSettings) and settings.lambda_:
        teacher = read_teacher(settings, runs)
        digests["teacher"] = teacher.digest
        if (cameras := cameras_file(teacher.path)).is_file():
            digests["teacher_cameras"] = file_digest(cameras)
    return digests


def read_teacher(settings: DistillSettings, runs: Path) -> WeightsFile:
    """The weights of the teacher run's last epoch, not loaded; does not import torch."""
    assert settings.teacher is not None, "set by resolve_settings"
    return read_weights_header(find_run(runs, settings.teacher).weights())


def check_labels(settings: DistillSettings, splits: Splits) -> None:
    """Raise `OptionError` unless the student learns from features alone where the images have no identities."""
    if splits.unlabelled and settings.lambda_ != 1:
        raise OptionError(
            f"{splits.name}: its training images have no identities, from which a student learns with λ = "
            f"{settings.lambda_:g}: expected λ = 1, the teacher's features alone. Give --lambda 1, or a labelled "
            "dataset with --data."
        )


def describe_unknown_cameras(settings: DistillSettings, train: Records, runs: Path) -> str | None:
    """A note on images of cameras of which an adapted teacher has no statistics; None if there are none."""
    teacher = read_teacher(settings, runs)
    cameras = read_cameras(teacher.path, teacher.digest)
    return cameras.describe_unknown(train.sources, train.camids) if cameras else None


def check_widths(settings: DistillSettings, runs: Path) -> None:
    """Raise `OptionError` unless student and teacher have features of one width; λ = 0 needs no check."""
    if not settings.lambda_:
        return
    teacher = read_teacher(settings, runs)
    ours, theirs = _feature_width(settings.network(2)), _feature_width(teacher.spec)
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


def distillation_objective(
    settings: DistillSettings, teacher: WeightsFile, train: Records
) -> Callable[[torch.device, Loss], Objective]:
    """A function that builds the objective of Eq. 4 on a device, from the student's own loss.

    The teacher runs there in eval mode, without gradient. The objective takes rows of `train`. An adapted teacher's
    features are those of the statistics of each image's camera, less the mean feature of the camera: the student learns
    to give them from the image alone. Without identities, there is the feature term alone. Loads the teacher when the
    objective is built.
    """

    def make(device: torch.device, loss: Loss) -> Objective:
        import torch

        from ptlreid.losses._std import std

        layout = torch.channels_last if settings.channels_last else torch.preserve_format
        network = teacher.build().requires_grad_(False)
        read = _camera_reader(network, teacher, train, settings.flip, device)
        network.to(device).to(memory_format=layout)
        labels = torch.from_numpy(train.labels()).to(device)

        def objective(output: Output, rows: Tensor, images: Tensor) -> dict[str, Tensor]:
            with torch.no_grad():
                features = read(images, rows)
            own = loss(output, labels[rows]) if train.num_identities else {}
            return std(own, output.embedding, features, settings.lambda_)

        return objective

    return make


def _camera_reader(
    network: Network, teacher: WeightsFile, train: Records, flip: float, device: torch.device
) -> Callable[[Tensor, Tensor], Tensor]:
    """Reads the features of (B, 3, H, W) images at (B,) rows of `train`, with the statistics of cameras, if any.

    `flip`: the share of images that are mirrored, as which of them are is not known here.
    """
    import torch

    from ptlreid.models.camera_norm import CameraNorms

    cameras = read_cameras(teacher.path, teacher.digest)
    if cameras is None:
        return lambda images, rows: network(images).embedding
    norms = CameraNorms.of(network, cameras, device)
    known = torch.from_numpy(cameras.find_rows(train.sources, train.camids)).to(device)

    def read(images: Tensor, rows: Tensor) -> Tensor:
        with norms.select(network, known[rows]) as centres:
            features: Tensor = network(images).embedding.float()
            return features - torch.lerp(centres[0], centres[1], flip)

    return read
