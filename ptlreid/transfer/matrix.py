"""The result of a chain: every stage scored on every dataset, with forward transfer and forgetting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ptlreid import datasets
from ptlreid.files import file_digest
from ptlreid.runs import RunFolder
from ptlreid.settings import DistillSettings, FinetuneSettings
from ptlreid.transfer.stages import Stage

START = "start"

Cell = Mapping[str, Any]  # the scores of one network on one dataset: `mAP` and `cmc`


def chain_result(
    chain: Sequence[str],
    start: RunFolder,
    rows: Sequence[tuple[Stage, RunFolder]],
    data: Sequence[str],
    scores: Sequence[Sequence[Cell]],
) -> dict[str, Any]:
    """The result of a chain for JSON, as described in docs/file-formats.md. The first row of `scores` is the start."""
    # A student is not the network that went through the stages, so it has forgotten nothing.
    trained = [stage.settings.data for stage, _ in rows if not isinstance(stage.settings, DistillSettings)]
    columns = {name: [float(row[n]["mAP"]) for row in scores[: len(trained) + 1]] for n, name in enumerate(data)}
    return {
        "chain": list(chain),
        "stages": [
            {
                "run": run.path.name,
                "data": stage.settings.data,
                "method": stage.settings.method,
                "weights": file_digest(run.weights()),
            }
            for stage, run in rows
        ],
        "start": start.path.name,
        "data": list(data),
        "rows": [START, *(_row_name(stage.settings) for stage, _ in rows)],
        "scores": [list(row) for row in scores],
        "forward_transfer": {name: forward_transfer(trained, column, name) for name, column in columns.items()},
        "forgetting": {name: forgetting(trained, column, name) for name, column in columns.items()},
    }


def forward_transfer(trained: Sequence[str], scores: Sequence[float], data: str) -> float | None:
    """The gain on `data` from training on other datasets: its score just before its own stage, minus that of the start.

    `trained`: the dataset of each stage; those in a union count as trained. `scores`: (stages + 1,) of the start and
    after each stage. None for a dataset of the first stage, and for one not reached yet. Lopez-Paz and Ranzato,
    NIPS 2017, per dataset.
    """
    own = [number for number, stage in enumerate(trained) if _datasets_in(stage) & _datasets_in(data)]
    return scores[own[0]] - scores[0] if own and own[0] else None


def forgetting(trained: Sequence[str], scores: Sequence[float], data: str) -> float | None:
    """The best score on `data` after an earlier stage, minus that after the last; negative if it still improved.

    None for a dataset of the last stage and for one not trained on. Chaudhry et al., ECCV 2018, per dataset.
    """
    own = [bool(_datasets_in(stage) & _datasets_in(data)) for stage in trained]
    return max(scores[1:-1]) - scores[-1] if any(own) and not own[-1] else None


def _datasets_in(data: str) -> set[str]:
    """The datasets of a union; otherwise the dataset itself. With or without identities, it is the same."""
    names = [data] if datasets.is_path(data) else data.split("+")
    return {name.removesuffix(datasets.UNLABELLED) for name in names}


def _row_name(settings: FinetuneSettings) -> str:
    return f"{settings.data} (std)" if isinstance(settings, DistillSettings) else settings.data
