"""One typed model per command: every default lives here, once. To and from TOML."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ptlreid import plugins
from ptlreid.errors import OptionError
from ptlreid.outputs import Memory


class Settings(BaseModel):
    """A checked, frozen set of options. An unknown key, a wrong type or a value out of range is an `OptionError`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    # Where the work is done: these may differ between two runs that are the same run.
    MACHINE: ClassVar[frozenset[str]] = frozenset({"root", "device", "workers"})

    @classmethod
    def resolve(cls, file: Path | None = None, **given: Any) -> Self:
        """The settings: defaults, overridden by the TOML `file`, overridden by what was `given` (None: not given)."""
        values = read_toml(file) if file else {}
        values.update({key: value for key, value in given.items() if value is not None})
        try:
            return cls(**values)
        except ValidationError as error:
            raise OptionError(_explain(error, cls, file)) from None

    def to_toml(self) -> str:
        """The settings as TOML; a key whose value is None is left out, as TOML has no such value."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))

    def differences(self, other: Self) -> list[str]:
        """`key: here -> there`, for each setting on which the result depends and the two differ."""
        mine, yours = self.model_dump(), other.model_dump()
        return [
            f"{key}: {mine[key]!r} -> {yours[key]!r}"
            for key in mine
            if key not in self.MACHINE and mine[key] != yours[key]
        ]


class DataSettings(Settings):
    """What every command that reads images shares."""

    root: str = Field("data", description="Folder that holds the data sets.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 or mps.")
    workers: int | None = Field(
        None, ge=0, description="Processes that load images; by default none on a CPU, up to 8 beside a GPU."
    )


class FinetuneConfig(DataSettings):
    """Fine-tuning one network on one data set; the defaults are the paper's (section 5.2)."""

    data: str = Field("market", description="Data set, by name (see `ptlreid prepare --list`) or by folder.")
    backbone: str = Field("resnet50", description="Backbone network, such as resnet18, resnet50 or densenet161.")
    ptl: bool = Field(True, description="Train with BConv-Cells (PTL), or the plain backbone.")
    memory: Memory = Field(
        "slot", description="Latent state of the cells: one per batch slot, the batch mean, or none carried."
    )
    init: str = Field("imagenet", description="Where the weights start: imagenet, none, a run, or a file of weights.")
    epochs: int = Field(50, ge=0, description="Passes over the training images; 0 evaluates the start.")
    batch_size: int = Field(32, ge=2, description="Images per training step.")
    height: int | None = Field(None, ge=32, description="Image height in pixels; 256, and 384 for mgn.")
    width: int | None = Field(None, ge=32, description="Image width in pixels; 128.")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("sgd", description="SGD with momentum, Adam or AdamW.")
    lr: float = Field(0.01, gt=0, description="Learning rate at the start.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD.")
    weight_decay: float = Field(5e-4, ge=0, description="Weight decay (L2).")
    decay_every: int = Field(10, ge=1, description="Epochs between two falls of the learning rate.")
    decay_factor: float = Field(0.1, gt=0, le=1, description="What the learning rate is multiplied by at each fall.")
    images_per_person: int = Field(
        0, ge=0, description="Images of each person in a batch (P×K batches); 0 shuffles all images."
    )
    flip: float = Field(0.5, ge=0, le=1, description="Chance that a training image is mirrored.")
    pad: int = Field(0, ge=0, description="Pixels of black around a training image before a random crop.")
    erase: float = Field(0.0, ge=0, le=1, description="Chance that a part of a training image is erased.")
    evaluate_every: int = Field(10, ge=0, description="Epochs between two evaluations; 0 evaluates at the end only.")
    seed: int = Field(0, ge=0, description="Seed of every random choice.")

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


class EvaluateConfig(DataSettings):
    """Retrieval evaluation of one run on one data set."""

    data: str | None = Field(None, description="Data set; by default the one that the run was trained on.")
    weights: Literal["last", "best"] = Field("last", description="Which weights of the run.")
    metric: Literal["euclidean", "cosine"] = Field("euclidean", description="Distance between features.")
    ap: Literal["step", "trapezoid"] = Field("step", description="How precision is averaged over recall.")
    flip: bool | None = Field(None, description="Sum the features of image and mirror; by default as the network's.")
    normalize: bool | None = Field(None, description="Scale features to length 1; by default as the network's.")
    amp: Literal["off", "bf16", "fp16"] = Field("off", description="Number format of the network's convolutions.")
    batch_size: int = Field(64, ge=1, description="Images per step of feature extraction.")


class SyntheticConfig(Settings):
    """A drawn data set in the layout of Market-1501."""

    identities: int = Field(128, ge=4, description="People, half for training and half for testing.")
    cameras: int = Field(6, ge=2, description="Cameras of the site.")
    images_per_camera: int = Field(3, ge=2, description="Images of each person by each camera.")
    height: int = Field(128, ge=32, description="Image height in pixels.")
    width: int = Field(64, ge=16, description="Image width in pixels.")
    seed: int = Field(0, ge=0, description="Seed of every random choice.")


class DemoConfig(Settings):
    """The tour: a drawn data set, a small network with and without PTL, and their scores."""

    MACHINE: ClassVar[frozenset[str]] = DataSettings.MACHINE

    root: str = Field("data", description="Folder that holds the data sets.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 or mps.")
    epochs: int = Field(3, ge=1, description="Passes over the training images.")
    identities: int | None = Field(
        None, ge=4, description="People to draw; the default is that of `prepare synthetic`."
    )
    seed: int = Field(0, ge=0, description="Seed of every random choice.")


class OwnDataConfig(Settings):
    """The user's own images, made a data set with a name."""

    name: str | None = Field(
        None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="Name that own images get; by default the source's."
    )
    seed: int = Field(0, ge=0, description="Seed of every random choice.")
    test_share: float = Field(
        0.5, gt=0, lt=1, description="Share of the people in own images that are for testing, where no split is given."
    )


def read_toml(file: Path) -> dict[str, Any]:
    """The keys of a TOML file; `OptionError` when there is none or it is not TOML."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"{file}: cannot be read ({error.strerror}). Give an existing TOML file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptionError(f"{file}: not TOML ({error}). Correct that line and try again.") from None


def _explain(error: ValidationError, settings: type[Settings], file: Path | None) -> str:
    """The first fault that pydantic found, in the words of this project."""
    fault = error.errors()[0]
    key = str(fault["loc"][0])
    where = f"{file}: " if file else ""
    if fault["type"] == "extra_forbidden":
        return where + str(plugins.unknown("setting", key, settings.model_fields))
    about = settings.model_fields[key].description or ""
    return f"{where}{key} = {fault['input']!r} is not possible: {fault['msg'].lower()}. {about}"
