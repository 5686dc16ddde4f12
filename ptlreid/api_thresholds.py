"""`ptlreid calibrate` as functions, for notebooks and scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ptlreid import calibrations
from ptlreid.api import load_dataset, open_run
from ptlreid.features import Extractor
from ptlreid.progress import Progress, Silent
from ptlreid.runs import RunFolder
from ptlreid.settings import CalibrateSettings, EvaluateSettings

_RUNS = Path("runs")


def calibrate_run(
    run: RunFolder | Path | str,
    data: str | None = None,
    *,
    runs: Path | str = _RUNS,
    progress: Progress | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """The thresholds of a run, measured on a dataset (by default the one it was trained on) and saved in its folder.

    Same as `ptlreid calibrate --json`.
    """
    from ptlreid.workflows import calibrate as workflow

    chosen = CalibrateSettings.resolve(None, **settings)
    folder = run if isinstance(run, RunFolder) else open_run(run, runs=runs)
    splits = load_dataset(data or folder.settings().data, root=chosen.root)
    return workflow.calibrate_run(folder, splits, chosen, progress or Silent())


def find_threshold(run: RunFolder | Path | str, name: str, *, runs: Path | str = _RUNS, **settings: Any) -> float:
    """The saved threshold of a run called `name`: `eer`, `far=1e-3` or `open-set=0.01`.

    A pair is accepted if its distance is below it. `settings`: those of `ptlreid evaluate` that the features are made
    with, such as `metric`, `flip` and `weights`; thresholds of other ones are refused.
    """
    chosen = EvaluateSettings.resolve(None, **settings)
    folder = run if isinstance(run, RunFolder) else open_run(run, runs=runs)
    origin = calibrations.FeatureOrigin.of(Extractor.from_run(folder, chosen), chosen.metric)
    return calibrations.find_threshold(folder, name, origin)
