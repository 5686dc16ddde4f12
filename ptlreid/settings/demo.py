"""Settings of the tour."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ptlreid.settings.base import DataSettings, Settings


class DemoSettings(Settings):
    """The tour: a drawn dataset, a small network with and without PTL, and their scores."""

    MACHINE: ClassVar[frozenset[str]] = DataSettings.MACHINE

    root: str = Field("data", description="Folder that holds the datasets.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 or mps.")
    epochs: int = Field(3, ge=1, description="Passes over the training images.")
    identities: int | None = Field(
        None, ge=4, description="People to draw; the default is that of `prepare synthetic`."
    )
    seed: int = Field(0, ge=0, description="Seed of every random choice.")
