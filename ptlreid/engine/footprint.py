"""How many bytes tensors take at once, counted as they come and go. Tensors without content (`meta`) count the same."""

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
    """A context manager in which new tensors are counted while they live, and so are the `known` ones from before.

    `live`: bytes alive now; `peak`: the most at once. Views share their storage, which counts once. What the libraries
    below torch take for themselves, such as cuDNN's workspaces, is not seen.
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
        made = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._count, made)
        return made

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        name = storage._cdata  # its address: tensors without content have no other name
        if name in self._storages:
            return
        self._storages.add(name)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._gone, name, storage.nbytes())

    def _gone(self, name: int, size: int) -> None:
        self._storages.discard(name)
        self.live -= size


class Autocast(TorchFunctionMode):
    """What `torch.autocast` does to convolutions and linear layers, on any device: autocast knows no `meta`."""

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
