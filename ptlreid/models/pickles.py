"""What may be in another program's pickle beside tensors."""

from __future__ import annotations

from typing import Any


def numpy_scalars() -> list[Any]:
    """What a pickled NumPy number is made of, under its old name and its new: torchreid keeps its score as one."""
    import numpy as np
    from numpy._core import multiarray

    names = ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar")
    kinds = (np.float16, np.float32, np.float64, np.int32, np.int64)
    return [*((multiarray.scalar, name) for name in names), np.dtype, *(type(np.dtype(kind)) for kind in kinds)]
