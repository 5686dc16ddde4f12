"""The nearest images of a row of keys, without sorting the whole row."""

from __future__ import annotations

import numpy as np

_FOLD = 32
_NEARLY = 1e-3  # more than twice the relative error of a key: see `centring.RELATIVE_BOUND`


def nearest(keys: np.ndarray, size: int) -> np.ndarray:
    """(K,) columns of the `size` smallest of `keys`, (G,), ascending; ties in column order. K = min(size, G).

    The row is folded into groups of 32 keys. The size-th smallest of the groups' minima bounds the size-th smallest
    of all, because that many groups hold a key as small; so only keys up to the bound are sorted.
    """
    groups = len(keys) // _FOLD
    if groups <= size:
        return np.argsort(keys, kind="stable")[:size]
    minima = keys[: groups * _FOLD].reshape(_FOLD, groups).min(axis=0)
    near = np.flatnonzero(keys <= np.partition(minima, size - 1)[size - 1])
    return near[np.argsort(keys[near], kind="stable")[:size]]


def within_reach(keys: np.ndarray, size: int) -> np.ndarray:
    """Ascending columns of all keys that rounding may have kept from the `size` smallest, without hidden ones."""
    last = keys[nearest(keys, size)[-1]]
    if not np.isfinite(last):
        return np.flatnonzero(keys < np.inf)
    return np.flatnonzero(keys <= last + np.float32(_NEARLY) * abs(last))
