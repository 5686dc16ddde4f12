"""Student-teacher distillation (paper section 4, Eq. 4). Not a loss for `--loss`: it needs a teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def std(own: Mapping[str, Tensor], student: Tensor, teacher: Tensor, weight: float) -> dict[str, Tensor]:
    """(1 - λ) times each of the student's `own` terms, and `l1`, λ times the mean of |student - teacher|.

    `student`, `teacher`: (B, D), the features of the same B images; compared in float32. `weight`: λ, in 0 .. 1. A
    cross-entropy of 2 and features (1, 2) and (1, 5) give 0.2 · 2 = 0.4 and 0.8 · 3/2 = 1.2 for λ = 0.8. At λ = 1 the
    student's own terms have zero gradient.
    """
    distance = (student.float() - teacher.float()).abs().mean()
    return {**{name: (1 - weight) * term for name, term in own.items()}, "l1": weight * distance}
