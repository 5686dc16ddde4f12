"""A run folder: every file of one training run, by name. Its layout is described in docs/file-formats.md."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptlreid import plugins
from ptlreid.config import FinetuneConfig
from ptlreid.errors import CheckpointError, OptionError
from ptlreid.files import digest_all, read_json, replacing, write_json
from ptlreid.records import Splits


@dataclass(frozen=True)
class RunFolder:
    """Where one run keeps what it made."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved settings, TOML."""
        return self.path / "config.toml"

    @property
    def data(self) -> Path:
        """What the run was trained on: counts, and a digest of the images."""
        return self.path / "data.json"

    @property
    def history(self) -> Path:
        """One JSON object a line: each training step, each epoch."""
        return self.path / "history.jsonl"

    @property
    def checkpoint(self) -> Path:
        """Everything that training needs to go on."""
        return self.path / "checkpoint.pt"

    @property
    def metrics(self) -> Path:
        """The scores at the end; a run that has them is finished."""
        return self.path / "metrics.json"

    @property
    def features(self) -> Path:
        """The folder of cached features, HDF5."""
        return self.path / "features"

    @property
    def finished(self) -> bool:
        return self.metrics.is_file() and self.weights().is_file()

    def weights(self, which: str = "last") -> Path:
        """The inference weights: `last` epoch's, or those of the `best` evaluation."""
        return self.path / ("best.safetensors" if which == "best" else "weights.safetensors")

    def check(self, config: FinetuneConfig, splits: Splits) -> None:
        """Raise `OptionError` when the folder holds a run that other settings or images made.

        A folder whose run has not reached its first checkpoint binds nobody.
        """
        if not (self.checkpoint.is_file() or self.finished):
            return
        changed = FinetuneConfig.resolve(self.config).differences(config)
        if read_json(self.data) != _images(splits):
            changed.append("the training images changed")
        if changed:
            raise OptionError(
                f"{self.path} holds another run ({'; '.join(changed)}). Give this one another --name, or repeat "
                "the settings of that run to continue it."
            )

    def claim(self, config: FinetuneConfig, splits: Splits) -> None:
        """Write down the settings and the training images: from here on this is the folder of that run."""
        with replacing(self.config) as temporary:
            temporary.write_text(config.to_toml(), encoding="utf-8")
        write_json(self.data, _images(splits))


def find_run(runs: Path, name: str) -> RunFolder:
    """The run called `name` below `runs`, or at the path `name`.

    Raises `CheckpointError` with a near-miss hint when there is none.
    """
    for path in (runs / name, Path(name)):
        if (path / "config.toml").is_file():
            return RunFolder(path)
    known = sorted(path.parent.name for path in runs.glob("*/config.toml"))
    if not known:
        raise CheckpointError(
            f"No run is called {name!r}, and {runs} holds none. Train one with `ptlreid finetune`, "
            "or name the folder of runs with --runs."
        )
    raise CheckpointError(f"{plugins.unknown('run', name, known)} Looked below {runs}.")


def _images(splits: Splits) -> dict[str, Any]:
    train = splits.train
    labels = hashlib.blake2b(train.pids.tobytes(), digest_size=16).hexdigest()
    return {
        "name": splits.name,
        "images": len(train),
        "identities": train.num_identities,
        "labels": labels,
        "digest": digest_all(train.paths),
    }
