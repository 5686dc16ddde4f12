"""Files of tensors from any program: a pickle of torch.save or a safetensors file, recognised by content, not by name.

torch is imported when a file is read: `require_tensor_file` needs none.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptlreid.errors import CheckpointError, is_out_of_memory
from ptlreid.file_kinds import identify, printable

if TYPE_CHECKING:
    from torch import Tensor

_SAFETENSORS = "a safetensors file"
_READABLE = (_SAFETENSORS, "a file of torch.save")
_ADVICE = "Download it again, or save its state_dict again with torch.save."


def require_tensor_file(path: Path, advice: str = "") -> str:
    """What `path` is, in words; `CheckpointError` for a file that, by its first bytes, holds no tensors.

    `advice`: what to do about it, by default what fits the kind of file.
    """
    try:
        kind = identify(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}). Give an existing file.") from None
    if not kind.startswith(_READABLE):
        raise CheckpointError(
            f"{path}: {kind}, expected weights: a file of torch.save or safetensors. {advice or _advise(kind)}"
        )
    return kind


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in `path` by name, the names of nested dictionaries joined by dots; on the CPU.

    Raises `CheckpointError` where there are none, or one is no plain array of numbers. Code in a pickle is not run.
    """
    content = read_content(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: contains {_describe(content)}, expected a dictionary of tensors. {_SAVE}")
    tensors = dict(_flatten(content, "", set()))
    if not tensors:
        raise CheckpointError(f"{path}: contains no named tensors, but {_describe(content)}. {_SAVE}")
    for name, tensor in tensors.items():
        if fault := _fault(tensor):
            raise CheckpointError(
                f"{path}: its tensor {printable(name)} is {fault}: expected plain (dense) tensors. {_SAVE}"
            )
    return tensors


_SAVE = "Save the network's state_dict with torch.save."


def read_content(path: Path, *, own: bool = False, advice: str = "") -> Any:
    """What is in `path`, with all tensors on the CPU. Code in a pickle is refused and not run.

    Whatever is wrong with the file is one `CheckpointError`, with `advice`. `own`: ptlreid wrote it with checksums,
    which are compared; torch ignores them.
    """
    import torch
    from safetensors.torch import load_file

    kind = require_tensor_file(path, advice)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about kinds of tensors and pickles, which are refused below
            if kind == _SAFETENSORS:
                return load_file(path)
            if own:
                _compare_checksums(path)
            # A stream: torch judges a path by its suffix. A Namespace holds options, as DINO saves them: values only.
            with torch.serialization.safe_globals([*_numpy_scalars(), Namespace]), path.open("rb") as stream:
                return torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's unpickler runs on any bytes, and raises any exception
        if code := re.search(r"GLOBAL (\S+)", str(error)):
            raise CheckpointError(
                f"{path}: refused: it contains {printable(code[1])}, and a pickle of more than tensors could run "
                "code. Save the state_dict alone, in the program that wrote the file."
            ) from None
        if own and is_out_of_memory(error):  # in any other file, a damaged size may have asked for too much
            raise
        raise CheckpointError(f"{path}: cannot be read ({kind}: {_reason(error)}). {advice or _ADVICE}") from None


def _compare_checksums(path: Path) -> None:
    """Raise `BadZipFile` if a part of the file is not as it was written."""
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")


def _reason(error: Exception) -> str:
    """The first line of an error of torch's that says what is wrong, without its advice to run code."""
    text = str(error).rpartition("WeightsUnpickler error:")[2].strip()
    first = text.partition("\n")[0]
    return printable(first) if first and "weights_only" not in first else type(error).__name__


def _numpy_scalars() -> list[Any]:
    """The globals that a pickled NumPy number needs, by old and new module names: torchreid saves its score as one."""
    import numpy as np
    from numpy._core import multiarray

    names = ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar")
    kinds = (np.float16, np.float32, np.float64, np.int32, np.int64)
    return [*((multiarray.scalar, name) for name in names), np.dtype, *(type(np.dtype(kind)) for kind in kinds)]


def _flatten(content: Mapping[Any, Any], prefix: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    """The tensors under text keys, also of nested dictionaries, each of which is `seen` once.

    An optimiser's state, which has numbers for keys, is left out.
    """
    import torch

    seen.add(id(content))
    for key, value in content.items():
        if not isinstance(key, str):
            continue
        if torch.is_tensor(value):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping) and id(value) not in seen:
            yield from _flatten(value, f"{prefix}{key}.", seen)


def _fault(tensor: Tensor) -> str | None:
    """What keeps the tensor from being a plain array of numbers in memory, in a word; None for a plain one."""
    import torch

    if tensor.is_nested:
        return "nested"
    if tensor.layout != torch.strided:
        return "sparse"
    return "quantised" if tensor.is_quantized else "without data (meta)" if tensor.is_meta else None


def _describe(content: Any) -> str:
    """The content of a file without named tensors, in a few words."""
    if isinstance(content, Mapping):
        keys = [printable(repr(key), 30) for key, _ in zip(content, range(4), strict=False)]
        return f"a dictionary with {', '.join(keys)}" if keys else "an empty dictionary"
    return f"one object of type {type(content).__name__}"


def _advise(kind: str) -> str:
    if kind in ("a TorchScript archive", "a pickle"):
        return _SAVE
    if kind.endswith("archive"):
        return "Unpack it, and give the file inside."
    return "Download or export it again."
