"""What the steps share: the size of the check, networks with their training state, batches, and a dataset of JPEGs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ptlreid.devices import fixed_sizes, float32_arithmetic
from ptlreid.engine.checkpoint import Training
from ptlreid.engine.epochs import build_objective
from ptlreid.engine.fit import Precision, train_epoch
from ptlreid.engine.job import TrainingJob, build_sampler, resolve_size
from ptlreid.engine.training_run import choose_precision, prepare_training
from ptlreid.images import Batch
from ptlreid.models import backbones
from ptlreid.progress import Silent
from ptlreid.records import Records, Splits
from ptlreid.runs import RunFolder
from ptlreid.settings import FinetuneSettings

PARTS = Path(__file__).resolve().parents[1] / "parts"
CLASSES = 751  # of Market-1501


@dataclass(frozen=True)
class Size:
    """How large the check is. `device`: cpu or cuda. `small`: tiny networks. `folder`: for temporary files."""

    device: str
    small: bool
    folder: Path

    @property
    def cuda(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def precisions(self) -> tuple[str, ...]:
        """The choices of `amp` that the device has."""
        if not self.cuda:
            return ("off",)
        return ("off", "tf32", "bf16", "fp16") if torch.cuda.get_device_capability() >= (8, 0) else ("off", "fp16")

    @property
    def networks(self) -> list[str]:
        """The backbones whose results are compared."""
        return ["tiny"] if self.small else ["resnet50", "densenet161", "mgn"]

    @property
    def network(self) -> str:
        """The backbone of the steps that need one only."""
        return self.networks[0]

    @property
    def batch_size(self) -> int:
        return 4 if self.small else 16


def register_tiny_backbones() -> None:
    """Make the tests' tiny networks backbones like any other, in this process."""
    if str(PARTS) not in backbones.__path__:
        backbones.__path__.append(str(PARTS))


def make_job(backbone: str, *, device: str, batch_size: int, **changed: Any) -> TrainingJob:
    """A job that trains on random images: 8 of each of 751 identities, of which no file exists."""
    settings = {"backbone": backbone, "device": device, "batch_size": batch_size, "init": "none", "amp": "off"}
    settings |= {"recipe": "mgn"} if backbone == "mgn" else {"lr": 1e-3}  # high for random weights, otherwise
    resolved = resolve_size(FinetuneSettings.resolve(None, **{**settings, "channels_last": False, **changed}))
    pids = [pid for pid in range(CLASSES) for _ in range(8)]
    none = Records.make([], [], [], "random")
    train = Records.make([Path(f"{row}.jpg") for row in range(len(pids))], pids, [1] * len(pids), "random")
    splits = Splits("random", train, none, none, "market")
    return TrainingJob(resolved, splits, build_sampler(resolved, splits), RunFolder(Path(os.devnull) / "run"), Silent())


def make_batches(job: TrainingJob, count: int) -> list[Batch]:
    """The first batches of an epoch, of random images: in page-locked memory where there is a GPU, as the loader's."""
    rng = np.random.default_rng(0)
    rows = job.sampler.epoch(0)[:count]
    batches = [
        Batch(torch.from_numpy(random_images(rng, len(one), job.spec.height, job.spec.width)), torch.from_numpy(one))
        for one in rows
    ]
    return [batch.pin_memory() for batch in batches] if torch.cuda.is_available() else batches


def random_images(rng: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    """(count, height, width, 3) uint8: blocks of colour with some noise, for JPEGs as large as those of photographs."""
    blocks = rng.integers(40, 216, size=(count, 16, 8, 3)).repeat(height // 16, axis=1).repeat(width // 8, axis=2)
    return np.asarray(blocks + rng.integers(-20, 21, size=blocks.shape), dtype=np.uint8)


def precision_of(job: TrainingJob) -> Precision:
    """The precision of the job's settings, as a run chooses it."""
    return choose_precision(job.settings, torch.device(job.settings.device))


@contextmanager
def arithmetic_of(job: TrainingJob) -> Iterator[None]:
    """The float32 arithmetic and the choice of algorithms of a run with the job's settings, for the block."""
    with float32_arithmetic(tf32=job.settings.amp == "tf32"), fixed_sizes(torch.device(job.settings.device)):
        yield


def start(job: TrainingJob) -> Training:
    """The training state before the first update."""
    return prepare_training(job, torch.device(job.settings.device), precision_of(job))


def updates(
    job: TrainingJob, training: Training, batches: Iterator[Batch] | list[Batch], forward: Any = None
) -> Iterator[dict[str, torch.Tensor]]:
    """The terms of the loss of each update of the project's training loop."""
    device = torch.device(job.settings.device)
    steps = train_epoch(
        training,
        batches,
        torch.from_numpy(job.splits.train.labels()).to(device),
        build_objective(job, training, device),
        forward=forward,
        precision=precision_of(job),
        accumulate=1,
        clip_grad=job.settings.clip_grad,
    )
    return (step.terms for step in steps)


def losses(job: TrainingJob, training: Training, count: int, forward: Any = None) -> list[float]:
    """The losses of the next `count` updates."""
    return [total(terms) for terms in updates(job, training, make_batches(job, count), forward)]


def total(terms: dict[str, torch.Tensor]) -> float:
    """The loss, as a number: waits for a GPU."""
    return float(torch.stack(list(terms.values())).sum())


def distance(value: Any, reference: Any) -> float:
    """‖value − reference‖ / ‖reference‖, of two tensors or arrays, in float64."""
    one, other = (torch.as_tensor(array).detach().cpu().double() for array in (value, reference))
    return float((one - other).norm() / other.norm())


def write_dataset(folder: Path, *, train: int, test: int, height: int, width: int) -> Path:
    """JPEGs in Market-1501's layout: `train` and `test` identities, two cameras with two images each."""
    rng = np.random.default_rng(0)
    for part, pids in (
        ("bounding_box_train", range(1, train + 1)),
        ("bounding_box_test", range(train + 1, train + test + 1)),
    ):
        for pid in pids:
            images = random_images(rng, 4, height, width)
            for image, (camid, shot) in zip(images, ((1, 1), (1, 2), (2, 1), (2, 2)), strict=True):
                place = "query" if part.endswith("test") and shot == 1 else part
                path = folder / place / f"{pid:04d}_c{camid}s1_{shot:06d}_00.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path, quality=90)
    return folder
