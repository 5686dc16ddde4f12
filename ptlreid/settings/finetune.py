"""Settings of fine-tuning; the defaults are the paper's (section 5.2)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from ptlreid.errors import OptionError
from ptlreid.network_types import Memory
from ptlreid.settings.base import DataSettings

# Losses that compare images of one person with those of others, within a batch.
_COMPARING = {"triplet", "ce-triplet"}


class FinetuneSettings(DataSettings):
    """Fine-tuning one network on one dataset."""

    MACHINE: ClassVar[frozenset[str]] = DataSettings.MACHINE | {"checkpoint_minutes", "tensorboard", "report"}

    data: str = Field("market", description="Dataset, by name (see `ptlreid prepare --list`) or by folder.")
    backbone: str = Field("resnet50", description="Backbone network, such as resnet18, resnet50 or densenet161.")
    ptl: bool = Field(True, description="Train with BConv-Cells (PTL), or the plain backbone.")
    memory: Memory = Field(
        "slot", description="Latent state of the cells: one per batch slot, the batch mean, or none carried."
    )
    init: str = Field("imagenet", description="Where the weights start: imagenet, none, a run, or a file of weights.")
    epochs: int = Field(50, ge=0, description="Passes over the training images; 0 evaluates the start.")
    batch_size: int = Field(32, ge=2, description="Images per training step of each process.")
    accumulate: int = Field(1, ge=1, description="Batches whose gradients are summed up for one update.")
    height: int | None = Field(None, ge=32, description="Image height in pixels; 256, and 384 for mgn.")
    width: int | None = Field(None, ge=32, description="Image width in pixels; 128.")

    loss: str = Field("ce", description="Loss: ce, triplet or ce-triplet.")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of the label that is spread over all classes.")
    margin: float = Field(0.3, ge=0, description="Margin of the triplet loss.")
    images_per_identity: int = Field(
        0, ge=0, description="Images of each person in a batch (P×K batches); 0 shuffles all images."
    )

    optimizer: Literal["sgd", "adam", "adamw"] = Field("sgd", description="SGD with momentum, Adam or AdamW.")
    lr: float = Field(0.01, gt=0, description="Learning rate at the start.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD.")
    weight_decay: float = Field(5e-4, ge=0, description="Weight decay (L2).")
    amsgrad: bool = Field(False, description="Adam and AdamW with the largest second moment so far.")
    new_lr_factor: float = Field(1.0, gt=0, description="Rate of all but the backbone, as a multiple of `lr`.")
    freeze_epochs: int = Field(0, ge=0, description="First epochs in which the backbone's weights stay as they are.")
    schedule: Literal["step", "cosine"] = Field("step", description="How the rate falls: in steps, or as a cosine.")
    warmup_epochs: int = Field(0, ge=0, description="First epochs in which the rate rises from near zero.")
    decay_every: int = Field(10, ge=1, description="Epochs between two falls of the learning rate.")
    decay_at: list[int] = Field([], description="Epochs after which the rate falls, in place of decay_every.")
    decay_factor: float = Field(0.1, gt=0, le=1, description="What the learning rate is multiplied by at each fall.")

    flip: float = Field(0.5, ge=0, le=1, description="Chance that a training image is mirrored.")
    pad: int = Field(0, ge=0, description="Pixels of black around a training image before a random crop.")
    erase: float = Field(0.0, ge=0, le=1, description="Chance that a part of a training image is erased.")

    amp: Literal["auto", "off", "bf16", "fp16"] = Field(
        "auto", description="Number format of the network in training; auto is bf16 on CUDA, off elsewhere."
    )
    channels_last: bool = Field(False, description="Keep maps with channels last; faster on many GPUs with --amp.")
    compile: bool = Field(False, description="Compile the network with torch.compile; slower start, faster steps.")
    evaluate_every: int = Field(10, ge=0, description="Epochs between two evaluations; 0 evaluates at the end only.")
    patience: int = Field(0, ge=0, description="Evaluations without a better mAP before training stops; 0: never.")
    checkpoint_minutes: float = Field(
        10.0, ge=0, description="Minutes between two checkpoints within an epoch; 0 after every update."
    )
    tensorboard: bool = Field(False, description="Write TensorBoard events into the run folder, too.")
    report: bool = Field(True, description="Write the run's report.html at its end.")
    seed: int = Field(0, ge=0, description="Seed of every random choice.")

    @model_validator(mode="after")
    def _people_to_compare(self) -> Self:
        """`OptionError`, which pydantic lets through, for batches in which a loss would find no triplet."""
        if self.loss in _COMPARING and not 2 <= self.images_per_identity <= self.batch_size // 2:
            raise OptionError(
                f"loss = {self.loss!r} compares people within a batch, which needs two people or more with two images "
                f"or more each: images_per_identity = {self.images_per_identity} in a batch of {self.batch_size} "
                "cannot give that. Use images_per_identity = 4 with --batch-size 16 or more, or loss = 'ce'."
            )
        return self

    @property
    def method(self) -> str:
        """`ptl`, `ptl-mean`, `ptl-none` or `baseline`."""
        if not self.ptl:
            return "baseline"
        return "ptl" if self.memory == "slot" else f"ptl-{self.memory}"

    @property
    def default_name(self) -> str:
        """The name of the run folder when none is given: never a clock."""
        data = Path(self.data).name.replace(":", "-")
        return f"{data}-{self.backbone}-{self.method}-s{self.seed}"
