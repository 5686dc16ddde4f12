"""Settings of student-teacher distillation: those of fine-tuning, a teacher, and the weight of its features."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Self

from pydantic import Field

from ptlreid.settings.finetune import FinetuneSettings

Lambda = Annotated[
    float, Field(alias="lambda", ge=0, le=1, description="Share of the L1 term in the loss (λ of Eq. 4).")
]
LAMBDA = 0.8  # section 5.2


class DistillSettings(FinetuneSettings):
    """Fine-tuning one network, the student, towards the features of another, the teacher."""

    teacher: str | None = Field(None, description="Run whose features are taught; the newest finished PTL run.")
    lambda_: Lambda = LAMBDA
    ptl: bool = Field(False, description="Whether the student has BConv-Cells too, or is the plain backbone.")

    def differences(self, other: Self, same: Collection[str] = ()) -> list[str]:
        """As for other settings; with λ = 0 on both sides a teacher teaches nothing, whatever it is called."""
        return super().differences(other, same if self.lambda_ or other.lambda_ else [*same, "teacher"])

    @property
    def method(self) -> str:
        """`std0.8` for λ = 0.8 and a plain student; a student with cells adds its own method, as in `ptl-std0.8`."""
        return f"{super().method}-std{self.lambda_:g}" if self.ptl else f"std{self.lambda_:g}"
