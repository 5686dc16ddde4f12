"""What a training run tells while it goes on: to its history, to TensorBoard where asked, and to whoever watches."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Any, Self

import torch

from ptlreid import distributed
from ptlreid.devices import peak_memory
from ptlreid.engine.fit import Step
from ptlreid.engine.history import History
from ptlreid.errors import OptionError, PtlreidError
from ptlreid.progress import Advance
from ptlreid.runs import RunFolder

# On a GPU, to read a loss is to wait until it is computed: done for some updates together.
_READ_TOGETHER = {"cpu": 1}
_READ_TOGETHER_ELSEWHERE = 10


class Recorder:
    """Writes each update and epoch, means and sums over all processes; a context manager.

    A loss that is not finite is a `PtlreidError` naming update, terms and the last checkpoint. `epochs`, `updates`: of
    the whole run and of an epoch, for the progress.
    """

    def __init__(
        self,
        history: History,
        advance: Advance,
        run: RunFolder,
        device: torch.device,
        *,
        epochs: int,
        updates: int,
        tensorboard: bool,
    ) -> None:
        self.history, self._advance, self._device = history, advance, device
        self._epochs, self._updates, self._checkpoint = epochs, updates, run.checkpoint
        self._pending: list[tuple[int, Step]] = []
        self._status = ""
        self._board = _tensorboard(run.path / "events") if tensorboard else None

    def step(self, epoch: int, step: Step) -> None:
        """One update of the epoch with this number, from 0."""
        self._pending.append((epoch, step))
        if len(self._pending) >= _READ_TOGETHER.get(self._device.type, _READ_TOGETHER_ELSEWHERE):
            self._read()
        self._advance(epoch * self._updates + step.step + 1, status=self._status)

    def epoch(self, epoch: int, values: dict[str, Any]) -> None:
        """What is known after `epoch` whole epochs."""
        self._read()
        self.history.add("epoch", epoch=epoch, **values)
        if self._board is not None:
            for name, value in _flat(values):
                self._board.add_scalar(name, value, epoch * self._updates)

    def flush(self) -> int:
        """Put all that was told on the disk; returns the history's size in bytes."""
        self._read()
        if self._board is not None:
            self._board.flush()
        return self.history.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._board is not None:
            self._board.close()

    def _read(self) -> None:
        if not self._pending:
            return
        names = list(self._pending[0][1].terms)
        table = torch.stack([torch.stack([step.terms[name] for name in names]) for _, step in self._pending])
        pending, self._pending = self._pending, []
        memory = peak_memory(self._device)
        for (epoch, step), values in zip(pending, distributed.all_reduce_mean(table).tolist(), strict=True):
            self._write(epoch, step, dict(zip(names, values, strict=True)), memory)

    def _write(self, epoch: int, step: Step, terms: dict[str, float], memory: int) -> None:
        if not all(isfinite(value) for value in terms.values()):
            told = ", ".join(f"{name} = {value}" for name, value in terms.items())
            kept = f"Last good checkpoint: {self._checkpoint}" if self._checkpoint.is_file() else "No checkpoint yet"
            raise PtlreidError(
                f"Update {step.step + 1} of epoch {epoch + 1}: the loss is not finite ({told}). "
                f"{kept}. Start anew under another --name with a lower --lr, or with --amp off."
            )
        loss, images = sum(terms.values()), step.images * distributed.world_size()
        self._status = f"epoch {epoch + 1}/{self._epochs}, loss {loss:.3f}"
        line = {
            "epoch": epoch,
            "step": step.step,
            "loss": loss,
            "terms": terms,
            "lr": step.lr,
            "images": images,
            "images_per_second": round(images / step.seconds, 1),
            "wait": round(step.waited / step.seconds, 4),
            "memory": memory,
        }
        self.history.add("step", **line)
        if self._board is not None:
            at = epoch * self._updates + step.step
            for name, value in _flat(
                {"train": {key: line[key] for key in ("loss", "terms", "lr", "images_per_second")}}
            ):
                self._board.add_scalar(name, value, at)


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """Each number in nested `values`, its name the path to it."""
    found: list[tuple[str, float]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{key}/")
        elif isinstance(value, int | float):
            found.append((f"{prefix}{key}", value))
    return found


def _tensorboard(folder: Path) -> Any:
    """torch's writer of TensorBoard events; `OptionError` where the package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise OptionError(
            "tensorboard = true needs the package tensorboard. Install it with `pip install 'ptlreid[tensorboard]'`."
        ) from None
    return SummaryWriter(str(folder))
