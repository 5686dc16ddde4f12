"""Settings of adaptation to unlabelled images: those of fine-tuning that apply, the source run, clusters and memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ptlreid.errors import OptionError
from ptlreid.network_types import HEAD
from ptlreid.settings.evaluate import parse_budget
from ptlreid.settings.fields import COMMON, MAX_BATCH, MAX_EPOCHS, Option
from ptlreid.settings.finetune import FinetuneSettings
from ptlreid.settings.losses import loss_settings

# Settings of fine-tuning that have no meaning here: nothing may set them.
_UNUSED = frozenset({"loss", "patience", "ema_decay", "freeze_epochs", "compile", "sync_bn"}) | loss_settings()
_FROM_RUN = ("backbone", "ptl", "memory", "height", "width", "interpolation")


class AdaptSettings(FinetuneSettings):
    """Adapting the network of one run to the unlabelled training images of another dataset.

    The defaults are those of cluster contrast (Dai et al., ACCV 2022), except for choices of ours for small sites and
    for networks that were trained without strong augmentation: 10 epochs of batches of 32 (published: 50 of 256) with
    lr 1e-4 (3.5e-4), no padding (10) and no erasing (0.5); k1 10, k2 2 and min_samples 3 (30, 6 and 4, for about 20
    images per identity).
    """

    # The backbone, the head and the initial weights are the run's.
    NO_OPTION: ClassVar[frozenset[str]] = _UNUSED | {"backbone", "init", *HEAD}
    SHOWN_DEFAULTS: ClassVar[Mapping[str, str]] = dict.fromkeys(_FROM_RUN, "the run's") | {"data": "required"}

    run: Annotated[str | None, Option(common=True, default="required", metavar="RUN")] = Field(
        None, description="The run to adapt."
    )
    method_: Annotated[Literal["cameras", "cluster"], COMMON] = Field(
        "cluster", alias="method", description="Camera statistics alone, or clusters as well."
    )
    with_: Annotated[str | None, Option(common=True, metavar="DATA")] = Field(
        None, alias="with", description="A labelled dataset to train along."
    )
    epochs: Annotated[int, COMMON] = Field(10, ge=0, le=MAX_EPOCHS, description="Epochs, each with its own clusters.")
    batch_size: Annotated[int, COMMON] = Field(
        32, ge=2, le=MAX_BATCH, description="Images per batch, over all processes."
    )
    images_per_identity: int = Field(4, ge=2, le=1000, description="Images per cluster in a batch (P×K).")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("adam", description="Optimiser.")
    lr: Annotated[float, COMMON] = Field(1e-4, gt=0, le=1000, description="Initial learning rate.")
    decay_every: int = Field(20, ge=1, le=MAX_EPOCHS, description="Epochs between decays (step schedule).")
    evaluate_every: int = Field(0, ge=0, le=MAX_EPOCHS, description="Epochs between evaluations; 0: only at the end.")

    radius: Annotated[float, COMMON] = Field(
        0.6, gt=0, lt=1, description="Jaccard distance up to which images are neighbours (DBSCAN)."
    )
    min_samples: int = Field(3, ge=1, le=10_000, description="Neighbours that make an image the core of a cluster.")
    k1: int = Field(10, ge=1, le=10_000, description="k1 of Jaccard distances: neighbours considered.")
    k2: int = Field(2, ge=1, le=10_000, description="k2 of Jaccard distances: neighbours averaged.")
    temperature: float = Field(0.05, gt=0, le=1000, description="Temperature of the contrastive loss.")
    memory_momentum: float = Field(0.1, ge=0, le=1, description="Share of a centroid that an image leaves of it.")
    proxies: bool = Field(True, description="A centroid per cluster and camera (CAP), where there are several.")
    inter_weight: float = Field(0.5, ge=0, le=1000, description="Weight of the term between cameras (CAP).")
    hard_negatives: int = Field(50, ge=1, le=100_000, description="Nearest centroids in the term between cameras.")
    outliers: Literal["drop", "instances"] = Field(
        "drop", description="Images in no cluster: left out, or each one a cluster."
    )
    ema: float = Field(0.999, ge=0, lt=1, description="Decay of the averaged weights, whose features are clustered.")
    memory_budget: Annotated[
        str | None, Option(common=True, machine=True, default="at most 1.07GB", metavar="SIZE")
    ] = Field(None, description="Memory for distances.")

    @classmethod
    def own_recipe(cls, values: Mapping[str, Any]) -> str | None:
        """None: recipes of backbones are for fine-tuning."""
        return None

    def differences(self, other: Self, same: Collection[str] = ()) -> list[str]:
        """As for other settings; the initial weights are those of the run, which is compared."""
        return super().differences(other, [*same, "init"])

    @property
    def budget_bytes(self) -> int | None:
        """The memory budget in bytes."""
        return parse_budget(self.memory_budget)

    @property
    def method(self) -> str:
        """`adapt` or `adapt-cameras`; with cells, the network's method comes first: `ptl-adapt`."""
        name = "adapt-cameras" if self.method_ == "cameras" else "adapt"
        return f"{super().method}-{name}" if self.ptl else name

    @model_validator(mode="after")
    def _check_adaptation(self) -> Self:
        """`OptionError`, which pydantic lets through, for settings that adaptation cannot use."""
        _ = self.budget_bytes
        for name in sorted(_UNUSED):
            if getattr(self, name) != (default := type(self).model_fields[name].default):
                raise OptionError(
                    f"{name} = {getattr(self, name)!r}: expected {default!r}, as adaptation does not use it. "
                    f"Leave {name} out."
                )
        if self.batch_size % self.images_per_identity:
            raise OptionError(
                f"batch_size = {self.batch_size}: expected a multiple of images_per_identity, "
                f"{self.images_per_identity}. Give --batch-size a multiple of {self.images_per_identity}."
            )
        if self.method_ == "cameras" and "epochs" in self.model_fields_set and self.epochs:
            raise OptionError(
                f"epochs = {self.epochs} with method = 'cameras': expected none, as it trains nothing. Leave --epochs "
                "out, or use --method cluster."
            )
        return self
