"""Bytes of live tensors, counted as they are allocated and freed; works on `meta` tensors too."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only


class Footprint(TorchDispatchMode):
    """A context manager that counts the bytes of new tensors while they are alive, and of the `known` existing ones.

    `live`: bytes alive now; `peak`: the maximum so far. Views share a storage, which counts once. Memory that libraries
    below torch allocate, such as cuDNN's workspaces, is not counted.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._storages: set[int] = set()
        for tensor in known:
            self._count(tensor)

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._count, result)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata  # its address: meta tensors have no other identity
        if key in self._storages:
            return
        self._storages.add(key)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, key, storage.nbytes())

    def _free(self, key: int, size: int) -> None:
        self._storages.discard(key)
        self.live -= size


class Autocast(TorchFunctionMode):
    """`torch.autocast` for convolutions and linear layers on any device: torch's own does not support `meta`."""

    _LOWERED = (torch.conv2d, F.conv2d, F.linear)

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in self._LOWERED:
            args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.to(self._dtype), (args, kwargs))
        return func(*args, **(kwargs or {}))
