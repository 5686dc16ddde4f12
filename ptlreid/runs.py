"""A run folder: the files of one training run, by name. docs/file-formats.md describes its layout."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptlreid import contents, plugins
from ptlreid.errors import CheckpointError, OptionError
from ptlreid.file_kinds import identify
from ptlreid.files import atomic_write, file_digest
from ptlreid.json_files import read_json, write_json
from ptlreid.names import name_folder
from ptlreid.records import UNLABELLED, Splits
from ptlreid.schemas import Manifest, Metrics
from ptlreid.settings import read_toml

if TYPE_CHECKING:
    from ptlreid.settings import FinetuneSettings
    from ptlreid.thresholds_schema import Calibration


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def option(self) -> str:
        """The option that chooses it, for messages."""
        return f"--run {self.path}"

    @property
    def config(self) -> Path:
        """The resolved settings, TOML."""
        return self.path / "config.toml"

    @property
    def data(self) -> Path:
        """The training set and what else the run depends on, JSON: counts and digests."""
        return self.path / "data.json"

    @property
    def history(self) -> Path:
        """One JSON object per line, for each training step and each epoch."""
        return self.path / "history.jsonl"

    @property
    def checkpoint(self) -> Path:
        """The training state, from which training resumes."""
        return self.path / "checkpoint.pt"

    def clusters(self, epoch: int) -> Path:
        """The clusters on which epoch number `epoch`, from 0, of an adaptation was trained, NumPy archive."""
        return self.path / "clusters" / f"{epoch:03d}.npz"

    @property
    def metrics(self) -> Path:
        """The final scores, JSON; a run that has them is finished."""
        return self.path / "metrics.json"

    @property
    def thresholds(self) -> Path:
        """The thresholds of `ptlreid calibrate`, JSON."""
        return self.path / "thresholds.json"

    @property
    def issued_calibrations(self) -> list[Calibration]:
        """Calibrations that came with it: none."""
        return []

    @property
    def report(self) -> Path:
        """The page of `ptlreid report`, HTML."""
        return self.path / "report.html"

    @property
    def lock(self) -> Path:
        """Locked by the process that trains the run; a killed process leaves it behind, unlocked."""
        return self.path / ".lock"

    @property
    def cameras(self) -> Path:
        """The statistics of cameras that belong to the last weights of an adapted run."""
        return self.path / "cameras.safetensors"

    @property
    def features(self) -> Path:
        """The folder of cached features, HDF5."""
        return self.path / "features"

    @property
    def finished(self) -> bool:
        """Whether the run has its scores and complete weights, with averaged ones if it is trained with them.

        That of an adaptation has statistics of cameras, too.
        """
        files = [self.weights(), *([self.weights("averaged")] if self.has_average else [])]
        files += [self.cameras] if "run" in self._keys else []
        return self.metrics.is_file() and all(map(_is_complete, files))

    @property
    def has_average(self) -> bool:
        """Whether the weights are averaged in training: they then are in a file of their own once it is finished."""
        return bool(self._keys.get("ema_decay"))

    @property
    def _keys(self) -> Mapping[str, Any]:
        return read_toml(self.config) if self.config.is_file() else {}

    def weights(self, which: str = "last") -> Path:
        """The weights for inference: those of the `last` epoch, of the `best` evaluation, or the `averaged` ones."""
        return self.path / ("weights.safetensors" if which == "last" else f"{which}.safetensors")

    def weights_digest(self, which: str) -> str:
        """The digest of the weights file."""
        return file_digest(self.weights(which))

    def find_weights(self, which: str) -> Path:
        """As `weights`; `CheckpointError` for averaged weights of a run that has none."""
        if which == "averaged" and not self.has_average:
            raise CheckpointError(
                f"{self.path} has no averaged weights: expected a run that was trained with --ema-decay. Leave "
                "--weights averaged out, or train such a run."
            )
        return self.weights(which)

    def settings(self) -> FinetuneSettings:
        """The settings of the run; `DistillSettings` if it had a teacher, `AdaptSettings` if it adapted a run."""
        # Each is loaded where it is needed: a run is also found to search with it.
        keys = read_toml(self.config)
        if "teacher" in keys:
            from ptlreid.settings.distill import DistillSettings

            return DistillSettings.load(self.config)
        if "run" in keys:
            from ptlreid.settings.adapt import AdaptSettings

            return AdaptSettings.load(self.config)
        from ptlreid.settings.finetune import FinetuneSettings

        return FinetuneSettings.load(self.config)

    def read_metrics(self) -> Metrics:
        """The final scores; `DataError` if the file is missing, damaged or edited."""
        return read_json(self.metrics, Metrics, _SCORE_AGAIN)

    def read_manifest(self) -> Manifest:
        """The description of the training images; `DataError` if the file is missing, damaged or edited."""
        return read_json(self.data, Manifest, _ADVICE)

    def has_same_identities(self, splits: Splits) -> bool:
        """Whether the run's classes are the identities of these training images, by dataset and labels."""
        return self.data.is_file() and _describe_identities(splits).items() <= self.read_manifest().items()

    def check(self, settings: FinetuneSettings, splits: Splits, depends: Mapping[str, str] | None = None) -> None:
        """Raise `OptionError` if the folder holds a run with other settings, images or digests.

        Raises `DataError` if `data.json` is missing, damaged or edited. `depends`: digests of what else the run depends
        on, by name, such as `init` for the initial weights. A run that has no checkpoint yet may be replaced by any
        other.
        """
        self._require_files()
        if not (self.checkpoint.is_file() or self.finished):
            return
        previous, manifest = self.settings(), self.read_manifest()
        recorded = manifest.pop("depends", {})  # missing in older runs, which are trusted
        # Equal weights under another name are no change.
        unchanged = [name for name, digest in (depends or {}).items() if recorded.get(name) == digest]
        if type(previous) is type(settings):
            changed = previous.differences(settings, unchanged)
        else:
            changed = [f"method: {previous.method!r} -> {settings.method!r}"]
        if manifest != training_manifest(splits):
            changed.append("the training images changed")
        for name, digest in (depends or {}).items():
            if recorded.get(name, digest) != digest:
                changed.append(f"{_DEPENDS.get(name, name)} changed")
        if changed:
            raise OptionError(
                f"{self.path} holds another run ({'; '.join(changed)}). Give this one another --name, or repeat "
                "the settings of that run to resume it."
            )

    def _require_files(self) -> None:
        """Raise `CheckpointError` if something else is in the place of a file: training would only end in an error."""
        files = (self.config, self.data, self.history, self.checkpoint, self.metrics, self.report)
        for path in (*files, *map(self.weights, ("last", "best", "averaged"))):
            if path.exists() and not path.is_file():
                raise CheckpointError(
                    f"{path}: {identify(path)}, expected a file. Remove it, or choose another --name."
                )

    def claim(self, settings: FinetuneSettings, splits: Splits, depends: Mapping[str, str] | None = None) -> None:
        """Claim the folder for this run: write its settings, its training set and what else it depends on."""
        with atomic_write(self.config) as temporary:
            temporary.write_text(settings.to_toml(), encoding="utf-8")
        write_json(self.data, training_manifest(splits) | ({"depends": dict(depends)} if depends else {}))


_ADVICE = "Restore the file, or train again under another --name."
_SCORE_AGAIN = "Remove it and repeat the command that trained the run: it scores the weights again."

# What a run may depend on besides settings and images, as error messages call it.
_DEPENDS = {
    "init": "the initial weights",
    "teacher": "the teacher's weights",
    "teacher_cameras": "the teacher's camera statistics",
    "run": "the weights of the run to adapt",
    "cameras": "the camera statistics of the run to adapt",
}


def name_run(runs: Path, name: str | None, settings: FinetuneSettings) -> RunFolder:
    """The folder below `runs` of a run to train: `name`, or if it is None the default name of its settings.

    Raises `OptionError` for a name that is not that of one folder.
    """
    return RunFolder(name_folder(runs, settings.default_name if name is None else name, "run"))


def find_run(runs: Path, name: str) -> RunFolder:
    """The run called `name` below `runs`, or at the path `name`.

    Raises `CheckpointError` with a suggestion if there is none.
    """
    for path in (runs / name, Path(name)):
        if (path / "config.toml").is_file():
            return RunFolder(path if path.name else path.resolve())  # "." has no name
    known = sorted(path.parent.name for path in runs.glob("*/config.toml"))
    if not known:
        raise CheckpointError(
            f"Unknown run {name!r}: {runs} contains no runs. Train one with `ptlreid finetune`, "
            "or give the folder of your runs with --runs."
        )
    raise CheckpointError(f"{plugins.unknown_name('run', name, known)} Looked in {runs}.")


def find_newest_ptl(runs: Path) -> RunFolder:
    """The trained PTL run below `runs` that finished last; `CheckpointError` if there is none."""
    finished = sorted(runs.glob("*/metrics.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for run in (RunFolder(path.parent) for path in finished):
        try:
            settings = run.settings()
        except OptionError:  # a damaged folder does not prevent finding another
            continue
        if run.finished and settings.ptl and settings.epochs:
            return run
    raise CheckpointError(
        f"{runs} holds no finished PTL run: expected one as the teacher. Train one with `ptlreid finetune`, or give "
        "another run with --teacher or the folder of your runs with --runs."
    )


def training_manifest(splits: Splits) -> dict[str, Any]:
    """A description of the training set: name, counts, and digests of the labels and of the bytes of all images.

    The labels are the identities, or of unlabelled images the cameras.
    """
    return {**_describe_identities(splits), "digest": contents.digest_all(splits.train.paths)}


def score_digests(run: RunFolder, splits: Splits) -> dict[str, str]:
    """Digests of what the scores of a run are made with, by key of `metrics.json`: weights and the test set."""
    averaged = {"averaged_digest": file_digest(run.weights("averaged"))} if run.has_average else {}
    return {"weights_digest": file_digest(run.weights()), **averaged, "test_images": test_set_digest(splits)}


def test_set_digest(splits: Splits) -> str:
    """A digest of the test set: identities, cameras, clothes if they are labelled, and the bytes of all images."""
    parts = (splits.query, splits.gallery)
    columns = (column for one in parts for column in (one.pids, one.camids, one.clothes))
    labels = hashlib.blake2b(b"".join(column.tobytes() for column in columns if column is not None))
    return hashlib.blake2b(
        labels.digest() + "".join(contents.digest_all(one.paths) for one in parts).encode(), digest_size=16
    ).hexdigest()


def _is_complete(weights: Path) -> bool:
    """Whether the file of weights exists and is as long as its header says."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="np"):
            return True
    except (OSError, SafetensorError):
        return False


def _describe_identities(splits: Splits) -> dict[str, Any]:
    train = splits.train
    known = np.where(train.pids == UNLABELLED, train.camids, train.pids)
    labels = hashlib.blake2b(known.tobytes(), digest_size=16).hexdigest()
    return {"name": splits.name, "images": len(train), "identities": train.num_identities, "labels": labels}
