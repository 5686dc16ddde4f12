"""Settings of the demo."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ptlreid.settings.base import Device, RootSettings
from ptlreid.settings.fields import COMMON, MAX_SEED, Option


class DemoSettings(RootSettings):
    """A synthetic dataset, a small network with and without PTL, and their scores."""

    device: Device = "auto"
    epochs: Annotated[int, COMMON] = Field(3, ge=1, le=1000, description="Training epochs.")
    identities: Annotated[int | None, Option(common=True, default="as `prepare`")] = Field(
        None, ge=6, le=10_000, description="Identities of the synthetic dataset, at least as many as its cameras."
    )
    seed: Annotated[int, COMMON] = Field(0, ge=0, le=MAX_SEED, description="Random seed.")
