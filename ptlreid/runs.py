"""A run folder: every file of one training run, by name. Its layout is described in docs/file-formats.md."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptlreid import plugins
from ptlreid.errors import CheckpointError, OptionError
from ptlreid.files import atomic_write, digest_all, file_digest, read_json, write_json
from ptlreid.records import Splits
from ptlreid.settings import DistillSettings, FinetuneSettings, read_toml


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
    def report(self) -> Path:
        """The page of `ptlreid report`, HTML."""
        return self.path / "report.html"

    @property
    def lock(self) -> Path:
        """There while a process trains the run, and locked by it; one that was killed leaves it unlocked."""
        return self.path / ".lock"

    @property
    def features(self) -> Path:
        """The folder of cached features, HDF5."""
        return self.path / "features"

    @property
    def finished(self) -> bool:
        """Whether the run has its scores and its weights, these whole."""
        return self.metrics.is_file() and _whole(self.weights())

    def weights(self, which: str = "last") -> Path:
        """The inference weights: `last` epoch's, or those of the `best` evaluation."""
        return self.path / ("best.safetensors" if which == "best" else "weights.safetensors")

    def settings(self) -> FinetuneSettings:
        """The settings that made the run; a `DistillSettings` where it had a teacher."""
        kind = DistillSettings if "teacher" in read_toml(self.config) else FinetuneSettings
        return kind.load(self.config)

    def same_people(self, splits: Splits) -> bool:
        """Whether the run's classes are the people of these training images, by dataset and labels."""
        mine = read_json(self.data) if self.data.is_file() else {}
        return isinstance(mine, dict) and all(mine.get(key) == value for key, value in _people(splits).items())

    def check(self, config: FinetuneSettings, splits: Splits, depends: Mapping[str, str] | None = None) -> None:
        """Raise `OptionError` when the folder holds a run that other settings, images or digests made.

        `depends`: digests of what else the run depends on, by what it is, such as the starting weights. A folder whose
        run has not reached its first checkpoint binds nobody.
        """
        if not (self.checkpoint.is_file() or self.finished):
            return
        if not self.data.is_file():
            raise OptionError(
                f"{self.data} is missing, and what the run was trained on is not known without it. {_ANEW}"
            )
        before, made_of = self.settings(), read_json(self.data)
        if not (isinstance(made_of, dict) and isinstance(made_of.get("depends", {}), dict)):
            raise OptionError(f"{self.data} holds no JSON object, expected what the run was trained on. {_ANEW}")
        recorded = made_of.pop("depends", {})  # runs of before it was written down are taken on trust
        same = [what for what, value in (depends or {}).items() if recorded.get(what) == value]  # by whatever name
        if type(before) is type(config):
            changed = before.differences(config, same)
        else:
            changed = [f"method: {before.method!r} -> {config.method!r}"]
        if made_of != training_manifest(splits):
            changed.append("the training images changed")
        for what, value in (depends or {}).items():
            if recorded.get(what, value) != value:
                changed.append(f"{_DEPENDS.get(what, what)} changed")
        if changed:
            raise OptionError(
                f"{self.path} holds another run ({'; '.join(changed)}). Give this one another --name, or repeat "
                "the settings of that run to continue it."
            )

    def claim(self, config: FinetuneSettings, splits: Splits, depends: Mapping[str, str] | None = None) -> None:
        """Write down the settings, the training images and what else the run depends on: from here on it is its own."""
        with atomic_write(self.config) as temporary:
            temporary.write_text(config.to_toml(), encoding="utf-8")
        write_json(self.data, training_manifest(splits) | ({"depends": dict(depends)} if depends else {}))


_ANEW = "Train anew under another --name, or restore the file."

# What a run may depend on beside settings and images, by the words in which a change is reported.
_DEPENDS = {"init": "the starting weights", "teacher": "the teacher's weights"}


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
    raise CheckpointError(f"{plugins.unknown_name('run', name, known)} Looked below {runs}.")


def find_newest_ptl(runs: Path) -> RunFolder:
    """The PTL run below `runs` that was trained and finished last; `CheckpointError` when there is none."""
    finished = sorted(runs.glob("*/metrics.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for run in (RunFolder(path.parent) for path in finished):
        try:
            settings = run.settings()
        except OptionError:  # a folder that is damaged is no reason not to find another
            continue
        if run.finished and settings.ptl and settings.epochs:
            return run
    raise CheckpointError(
        f"{runs} holds no finished PTL run to learn from. Train one with `ptlreid finetune`, name another run with "
        "--teacher, or the folder of runs with --runs."
    )


def init_digests(init: str, runs: Path) -> dict[str, str]:
    """`init` with the digest of the weights that it names, a file or a run below `runs`; nothing for other starts."""
    if init in ("imagenet", "none"):
        return {}
    file = Path(init) if Path(init).is_file() else find_run(runs, init).weights()
    if not file.is_file():
        raise CheckpointError(f"{file}: no such weights. Finish that run first, or start from another with --init.")
    return {"init": file_digest(file)}


def training_manifest(splits: Splits) -> dict[str, Any]:
    """What is trained on: its name, its numbers, and digests of the labels and of the bytes of all images."""
    return {**_people(splits), "digest": digest_all(splits.train.paths)}


def test_set_digest(splits: Splits) -> str:
    """A digest of the test set: labels, cameras and the bytes of all images."""
    parts = (splits.query, splits.gallery)
    labels = hashlib.blake2b(b"".join(array.tobytes() for one in parts for array in (one.pids, one.camids)))
    return hashlib.blake2b(
        labels.digest() + "".join(digest_all(one.paths) for one in parts).encode(), digest_size=16
    ).hexdigest()


def _whole(weights: Path) -> bool:
    """Whether the file of weights is there, and as long as its header says."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="np"):
            return True
    except (OSError, SafetensorError):
        return False


def _people(splits: Splits) -> dict[str, Any]:
    train = splits.train
    labels = hashlib.blake2b(train.pids.tobytes(), digest_size=16).hexdigest()
    return {"name": splits.name, "images": len(train), "identities": train.num_identities, "labels": labels}
