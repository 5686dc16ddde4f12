"""Settings of fine-tuning; the defaults are the paper's (section 5.2)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import AfterValidator, Field, model_validator

from ptlreid.errors import OptionError
from ptlreid.network_types import HEAD, TIMM, Classifier, Interpolation, Memory, Neck, NetworkSpec, Pool
from ptlreid.settings import recipes
from ptlreid.settings.base import DataSettings
from ptlreid.settings.fields import COMMON, MACHINE, MAX_BATCH, MAX_EPOCHS, MAX_PIXELS, MAX_SEED, Option
from ptlreid.settings.losses import LOSSES, check_loss, loss_names, name_sum, unused_settings, with_loss_settings


@with_loss_settings
class FinetuneSettings(DataSettings):
    """Fine-tuning one network on one dataset."""

    data: Annotated[str, COMMON] = Field("market", description="Dataset: its name or folder.")
    backbone: Annotated[str, Option(common=True, parts="ptlreid.models.backbones", prefixes=(TIMM,))] = Field(
        "resnet50", description="Backbone: see `ptlreid models`, or timm:NAME."
    )
    ptl: Annotated[bool, COMMON] = Field(True, description="Add BConv-Cells (PTL) to the backbone.")
    memory: Annotated[Memory, COMMON] = Field("slot", description="Latent state: slot, batch mean or none.")
    init: Annotated[str, COMMON] = Field("imagenet", description="imagenet, none, a run or a file.")
    epochs: Annotated[int, COMMON] = Field(
        50, ge=0, le=MAX_EPOCHS, description="Epochs; 0 evaluates the initial weights."
    )
    batch_size: Annotated[int, COMMON] = Field(
        32, ge=2, le=MAX_BATCH, description="Images per batch, over all processes."
    )
    accumulate: int = Field(1, ge=1, le=10_000, description="Batches per update (gradient accumulation).")
    height: Annotated[int | None, Option(common=True, default="256; mgn: 384")] = Field(
        None, ge=32, le=MAX_PIXELS, description="Image height in pixels."
    )
    width: Annotated[int | None, Option(common=True, default="128")] = Field(
        None, ge=32, le=MAX_PIXELS, description="Image width in pixels."
    )
    interpolation: Interpolation = Field("bilinear", description="Interpolation when images are resized.")

    last_stride: int = Field(2, ge=1, le=2, description="Stride of the last Conv-block; 1 keeps the size of its map.")
    neck: Neck = Field("none", description="Batch norm between the feature and the classifier (BNNeck): none or bn.")
    pool: Pool = Field("avg", description="Pooling: avg, max, gem (generalised mean) or token (class token of a ViT).")
    classifier: Classifier = Field("mlp3", description="mlp3, three layers as in the paper, or linear without bias.")
    feature_width: Annotated[int | None, Option(default="1024; mgn: 2048")] = Field(
        None, ge=0, le=100_000, description="Width of the feature; 0: the backbone's own, without reduction."
    )
    drop_path: float = Field(0.0, ge=0, lt=1, description="Probability of skipping the last block (stochastic depth).")

    loss: Annotated[str, AfterValidator(name_sum), Option(common=True, parts=LOSSES, sums=True)] = Field(
        "ce", description=f"Training loss: {', '.join(loss_names())}, or a sum such as ce+triplet."
    )
    images_per_identity: int = Field(0, ge=0, le=1000, description="Images per identity in a batch (P×K); 0: any.")

    optimizer: Literal["sgd", "adam", "adamw"] = Field("sgd", description="Optimiser.")
    lr: Annotated[float, COMMON] = Field(0.01, gt=0, le=1000, description="Initial learning rate.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD.")
    nesterov: bool = Field(False, description="Nesterov momentum of SGD.")
    weight_decay: float = Field(5e-4, ge=0, le=1000, description="Weight decay.")
    amsgrad: bool = Field(False, description="AMSGrad variant of Adam and AdamW.")
    new_lr_factor: float = Field(
        1.0, gt=0, le=1000, description="Learning-rate factor of new layers (all but the backbone)."
    )
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="Learning-rate factor from each layer of the backbone to the one before it."
    )
    clip_grad: float = Field(
        0.0, ge=0, le=1_000_000, description="Largest norm of the gradient of an update; 0: no limit."
    )
    ema_decay: float = Field(
        0.0, ge=0, lt=1, description="Decay of the moving average of the weights (EMA), such as 0.999; 0: none."
    )
    freeze_epochs: int = Field(0, ge=0, le=MAX_EPOCHS, description="Initial epochs with a frozen backbone.")
    schedule: Literal["step", "cosine"] = Field("step", description="Learning-rate schedule.")
    warmup_epochs: int = Field(0, ge=0, le=MAX_EPOCHS, description="Initial epochs of learning-rate warm-up.")
    decay_every: int = Field(10, ge=1, le=MAX_EPOCHS, description="Epochs between decays (step schedule).")
    decay_at: list[Annotated[int, Field(ge=0, le=MAX_EPOCHS)]] = Field(
        [], description="Epochs of the decays; replaces decay-every."
    )
    decay_factor: float = Field(0.1, gt=0, le=1, description="Learning-rate factor of each decay.")

    crop: float = Field(
        0.0, ge=0, le=1, description="Probability of a random rectangle crop (open-reid's) before resizing."
    )
    flip: float = Field(0.5, ge=0, le=1, description="Probability of a horizontal flip.")
    pad: int = Field(0, ge=0, le=MAX_PIXELS, description="Padding in pixels for a random crop; 0: none.")
    erase: float = Field(0.0, ge=0, le=1, description="Random-erasing probability.")

    amp: Annotated[Literal["auto", "off", "tf32", "bf16", "fp16"], COMMON] = Field(
        "auto", description="Precision; off: float32, auto: bf16 on CUDA, fp16 on older GPUs."
    )
    channels_last: Annotated[bool | None, Option(default="on CPUs, and with bf16 and fp16 on CUDA")] = Field(
        None, description="Channels-last memory format."
    )
    compile: bool = Field(False, description="Use torch.compile.")
    sync_bn: bool = Field(False, description="Batch norm over the images of all processes (CUDA).")
    evaluate_every: int = Field(10, ge=0, le=MAX_EPOCHS, description="Epochs between evaluations; 0: only at the end.")
    patience: int = Field(
        0, ge=0, le=MAX_EPOCHS, description="Early stopping: evaluations without a better mAP; 0: off."
    )
    checkpoint_minutes: Annotated[float, MACHINE] = Field(
        10.0, ge=0, le=10_000, description="Minutes between checkpoints; 0: every update."
    )
    tensorboard: Annotated[bool, MACHINE] = Field(False, description="Write TensorBoard events.")
    report: Annotated[bool, MACHINE] = Field(True, description="Write the run's report.html at the end.")
    seed: Annotated[int, COMMON] = Field(0, ge=0, le=MAX_SEED, description="Random seed.")

    @classmethod
    def own_recipe(cls, values: Mapping[str, Any]) -> str | None:
        """That of the backbone, if it has one."""
        return recipes.of_backbone(values.get("backbone"))

    @classmethod
    def overlay(cls, below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
        """As for other settings; a loss in `above` drops the settings of other losses from `below`."""
        if isinstance(above.get("loss"), str):
            unused = unused_settings(above["loss"], below)
            below = {key: value for key, value in below.items() if key not in unused}
        return {**below, **above}

    @classmethod
    def translate(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """As for other settings; version 0.1 also wrote the settings of losses that were not chosen."""
        values = super().translate(values)
        unused = unused_settings(values.get("loss", cls.model_fields["loss"].default), values)
        return {key: value for key, value in values.items() if key not in unused}

    def differences(self, other: Self, same: Collection[str] = ()) -> list[str]:
        """As for other settings. `amp = auto` is of version 0.1, where the precision that was used is unknown."""
        return super().differences(other, [*same, "amp", "channels_last"] if self.amp == "auto" else same)

    def to_toml(self) -> str:
        """As for other settings, without those of losses that are not chosen."""
        unused = unused_settings(self.loss, type(self).model_fields)
        return tomli_w.dumps(self.model_dump(exclude_none=True, by_alias=True, exclude=unused))

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """`OptionError`, which pydantic lets through, for settings that optimiser or loss cannot use."""
        if self.nesterov and not self.momentum:
            raise OptionError(
                "nesterov = True with momentum = 0: expected a momentum above 0. Set --momentum 0.9, or leave out "
                "--nesterov."
            )
        check_loss(self.loss, self.model_fields_set, self.batch_size, self.images_per_identity)
        return self

    def network(self, num_classes: int) -> NetworkSpec:
        """The network of these settings, in which the image size is resolved."""
        assert self.height is not None and self.width is not None, "set by resolve_size"
        head: dict[str, Any] = {name: getattr(self, name) for name in ("interpolation", *HEAD)}
        return NetworkSpec(self.backbone, self.ptl, self.memory, num_classes, self.height, self.width, **head)

    @property
    def method(self) -> str:
        """`ptl`, `ptl-mean`, `ptl-none` or `baseline`."""
        if not self.ptl:
            return "baseline"
        return "ptl" if self.memory == "slot" else f"ptl-{self.memory}"

    @property
    def default_name(self) -> str:
        """The default name of the run folder, without a timestamp."""
        data = Path(self.data).absolute().name
        return f"{data}-{self.backbone}-{self.method}-s{self.seed}".replace(":", "-")
