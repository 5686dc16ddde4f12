"""Records updates and epochs of a run: in its history, in TensorBoard if requested, and in the progress display."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any, Self

import torch

from ptlreid import distributed
from ptlreid.devices import peak_bytes
from ptlreid.engine.fit import Step
from ptlreid.engine.history import History
from ptlreid.errors import OptionError, PtlreidError
from ptlreid.progress import Advance
from ptlreid.runs import RunFolder

# Reading a loss from a GPU synchronises, so several updates are read at once.
_UPDATES_PER_READ_CPU = 1
_UPDATES_PER_READ = 10


class Recorder:
    """Records each update and epoch, averaged or summed over all processes; a context manager.

    Raises `PtlreidError` for a loss that is not finite, with update, terms and the last checkpoint. `epochs`: of the
    run; `updates`: per epoch.
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
        self._board = _open_tensorboard(run.path / "events") if tensorboard else None

    def step(self, epoch: int, step: Step) -> None:
        """Record an update of epoch number `epoch`, from 0."""
        self._pending.append((epoch, step))
        if len(self._pending) >= (_UPDATES_PER_READ_CPU if self._device.type == "cpu" else _UPDATES_PER_READ):
            self._write_pending()
        self._advance(epoch * self._updates + step.step + 1, status=self._status)

    def epoch(self, epoch: int, values: dict[str, Any]) -> None:
        """Record `values` after `epoch` completed epochs."""
        self._write_pending()
        self.history.add("epoch", epoch=epoch, **values)
        if self._board is not None:
            for name, value in _flatten(values):
                self._board.add_scalar(name, value, epoch * self._updates)

    def clusters(self, epoch: int, values: Mapping[str, Any]) -> None:
        """Record the clusters on which epoch number `epoch`, from 0, is trained."""
        self._write_pending()
        self.history.add("clusters", epoch=epoch, **values)

    def flush(self) -> int:
        """Write everything recorded to disk; returns the history's size in bytes."""
        self._write_pending()
        if self._board is not None:
            self._board.flush()
        return self.history.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._board is not None:
            self._board.close()

    def _write_pending(self) -> None:
        if not self._pending:
            return
        names = list(self._pending[0][1].terms)
        table = torch.stack([torch.stack([step.terms[name] for name in names]) for _, step in self._pending])
        pending, self._pending = self._pending, []
        peak = peak_bytes(self._device)
        for (epoch, step), values in zip(pending, distributed.all_reduce_mean(table).tolist(), strict=True):
            self._write(epoch, step, dict(zip(names, values, strict=True)), peak)

    def _write(self, epoch: int, step: Step, terms: dict[str, float], peak: int) -> None:
        if not all(isfinite(value) for value in terms.values()):
            values = ", ".join(f"{name} = {value}" for name, value in terms.items())
            last = f"Last checkpoint: {self._checkpoint}" if self._checkpoint.is_file() else "No checkpoint yet"
            raise PtlreidError(
                f"Update {step.step + 1} of epoch {epoch + 1}: the loss is not finite ({values}). "
                f"{last}. Start another run (--name) with a lower --lr, or with --amp off."
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
            "memory_bytes": peak,
        }
        self.history.add("step", **line)
        if self._board is not None:
            update = epoch * self._updates + step.step
            shown = {key: line[key] for key in ("loss", "terms", "lr", "images_per_second")}
            for name, value in _flatten({"train": shown}):
                self._board.add_scalar(name, value, update)


def _flatten(values: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """The numbers in nested `values`, each named by its path."""
    numbers: list[tuple[str, float]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            numbers += _flatten(value, f"{prefix}{key}/")
        elif isinstance(value, int | float):
            numbers.append((f"{prefix}{key}", value))
    return numbers


def _open_tensorboard(folder: Path) -> Any:
    """torch's writer of TensorBoard events; `OptionError` if the package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise OptionError(
            "tensorboard = true: the package tensorboard is not installed. Run `pip install 'ptlreid[tensorboard]'`."
        ) from None
    return SummaryWriter(str(folder))
