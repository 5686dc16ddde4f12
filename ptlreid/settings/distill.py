"""Settings of student-teacher distillation: those of fine-tuning, the teacher, and the weight of the feature term."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field

from ptlreid.network_types import HEAD
from ptlreid.settings.fields import COMMON, Option
from ptlreid.settings.finetune import FinetuneSettings

Lambda = Annotated[
    float, COMMON, Field(alias="lambda", ge=0, le=1, description="Weight λ of the L1 feature term (Eq. 4).")
]
LAMBDA = 0.8  # section 5.2
_FROM_TEACHER = ("data", "backbone", "height", "width", "interpolation")


class DistillSettings(FinetuneSettings):
    """Fine-tuning one network, the student, towards the features of another, the teacher."""

    SHOWN_DEFAULTS: ClassVar[Mapping[str, str]] = dict.fromkeys((*_FROM_TEACHER, *HEAD), "teacher's")

    teacher: Annotated[str | None, Option(common=True, default="newest PTL run", metavar="RUN")] = Field(
        None, description="Teacher: a finished run."
    )
    lambda_: Lambda = LAMBDA
    ptl: bool = Field(False, description="Add BConv-Cells (PTL) to the student.")

    @classmethod
    def own_recipe(cls, values: Mapping[str, Any]) -> str | None:
        """As for fine-tuning, once the teacher has given what was left open: the recipe must not override it."""
        return super().own_recipe(values) if values.keys() >= {"teacher", *_FROM_TEACHER} else None

    def differences(self, other: Self, same: Collection[str] = ()) -> list[str]:
        """As for other settings; with λ = 0 on both sides the teacher is ignored."""
        return super().differences(other, same if self.lambda_ or other.lambda_ else [*same, "teacher"])

    @property
    def method(self) -> str:
        """`std0.8` for λ = 0.8 and a plain student; with cells, the student's method comes first: `ptl-std0.8`."""
        return f"{super().method}-std{self.lambda_:g}" if self.ptl else f"std{self.lambda_:g}"
