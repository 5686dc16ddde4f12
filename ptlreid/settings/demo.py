"""Settings of the demo."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ptlreid.settings.base import Device, RootSettings
from ptlreid.settings.fields import COMMON, MAX_SEED, Option


class DemoSettings(RootSettings):
    """A small PTL network, taken from one synthetic site to another."""

    device: Device = "auto"
    epochs: Annotated[int, COMMON] = Field(5, ge=1, le=1000, description="Epochs of each training.")
    identities: Annotated[int | None, Option(common=True, default="96")] = Field(
        None, ge=4, le=10_000, description="Identities of each site."
    )
    seed: Annotated[int, COMMON] = Field(0, ge=0, le=MAX_SEED, description="Random seed.")
