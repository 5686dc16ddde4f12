"""The thresholds of a run in `ptlreid report`: sections of its page, and the figure of the rates."""

from __future__ import annotations

from collections.abc import Sequence

from ptlreid.calibrations import read_calibrations
from ptlreid.errors import CheckpointError, DataError, OptionError
from ptlreid.files import file_digest
from ptlreid.progress import Progress
from ptlreid.reports.elements import Plot, Section
from ptlreid.reports.threshold_plots import describe_calibrations, plot_rates
from ptlreid.runs import RunFolder
from ptlreid.settings.report import ReportSettings
from ptlreid.thresholds_schema import Calibration


def describe_thresholds(
    run: RunFolder, settings: ReportSettings, progress: Progress
) -> tuple[Sequence[Section], Sequence[str]]:
    """The sections on the run's thresholds, and notes for the page; none of both for a run without any."""
    if not run.thresholds.exists():
        return [], []
    try:
        return describe_calibrations(_read(run, settings)), []
    except (CheckpointError, DataError, OptionError) as error:
        progress.note(f"{run.path.name} has no section on thresholds: {error}")
        return [], [f"No section on thresholds. {error}"]


def plot_thresholds(run: RunFolder, settings: ReportSettings) -> list[Plot]:
    """The curves of all calibrations of the run's weights."""
    return plot_rates(_read(run, settings))


def _read(run: RunFolder, settings: ReportSettings) -> list[Calibration]:
    weights = run.find_weights(settings.weights)
    digest = file_digest(weights) if weights.is_file() else ""
    found = [one for one in read_calibrations(run) if one["weights_digest"] == digest]
    if not found:
        raise OptionError(
            f"{run.thresholds}: no thresholds of {weights.name} as it is now, expected some to show. Run "
            f"`ptlreid calibrate --run {run.path}` first."
        )
    return found
