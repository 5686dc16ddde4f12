"""Settings of a model in an ONNX file: what the file may not state."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from ptlreid.errors import OptionError
from ptlreid.settings.base import Settings
from ptlreid.settings.fields import MAX_PIXELS, Option

_OWN_SIZE = Option(default="the graph's")
Mean = Annotated[float, Field(ge=0, le=1)]
Std = Annotated[float, Field(gt=0, le=10)]


class GraphSettings(Settings):
    """The images that the graph of `--model` takes, where neither its card nor the graph states it."""

    height: Annotated[int | None, _OWN_SIZE] = Field(
        None, ge=1, le=MAX_PIXELS, description="--model: height of its images, if the graph has none."
    )
    width: Annotated[int | None, _OWN_SIZE] = Field(
        None, ge=1, le=MAX_PIXELS, description="--model: width of its images, if the graph has none."
    )
    mean: Annotated[list[Mean] | None, Option(default="card's or ImageNet's")] = Field(
        None, description="--model: mean of red, green and blue, from 0 to 1."
    )
    std: Annotated[list[Std] | None, Option(default="card's or ImageNet's")] = Field(
        None, description="--model: standard deviation of red, green and blue."
    )
    bgr: Annotated[bool | None, Option(default="card's or RGB")] = Field(
        None, description="--model: it takes blue, green, red (OpenCV's order)."
    )

    @field_validator("mean", "std")
    @classmethod
    def _check_channels(cls, values: list[float] | None) -> list[float] | None:
        if values is not None and len(values) != 3:
            raise OptionError(
                f"mean or std = {','.join(f'{value:g}' for value in values)}: expected three numbers, of red, green "
                "and blue, such as 0.485,0.456,0.406. Give three."
            )
        return values
