"""`ptlreid transfer-chain`: one network through several datasets, scored on all of them after each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptlreid import datasets, distributed, files
from ptlreid.errors import OptionError
from ptlreid.progress import Progress, Silent
from ptlreid.records import Splits
from ptlreid.runs import RunFolder
from ptlreid.settings import ChainSettings, DistillSettings, EvaluateSettings, FinetuneSettings
from ptlreid.workflows.evaluate import evaluate_run
from ptlreid.workflows.processes import join_processes
from ptlreid.workflows.report import write_chain_report
from ptlreid.workflows.stage_runner import Stage, StageRunner, missing_datasets

START = "start"

Cell = Mapping[str, Any]  # the scores of one network on one dataset: `mAP` and `cmc`


@dataclass(frozen=True)
class ChainFolder:
    """Where a chain keeps what it made; its stages are run folders beside it."""

    path: Path

    @property
    def config(self) -> Path:
        """What was chosen, TOML. Not `config.toml`, which makes a folder a run."""
        return self.path / "chain.toml"

    @property
    def result(self) -> Path:
        """The stages and the scores of each on every dataset."""
        return self.path / "chain.json"

    def check(self, config: ChainSettings) -> None:
        """Raise `OptionError` when the folder holds a run, or results of a chain with other settings."""
        if RunFolder(self.path).config.is_file():
            raise OptionError(f"{self.path} holds a run, and a chain has a folder of its own. Give it another --name.")
        changed = ChainSettings.load(self.config).differences(config) if self.result.is_file() else []
        if changed:
            raise OptionError(
                f"{self.path} holds another chain ({'; '.join(changed)}). Give this one another --name: stages that "
                "both have are reused."
            )

    def claim(self, config: ChainSettings) -> None:
        """Write the settings down, after a `check`."""
        self.check(config)
        with files.atomic_write(self.config) as temporary:
            temporary.write_text(config.to_toml(), encoding="utf-8")


def plan(config: ChainSettings) -> list[Stage]:
    """The stages of the chain, in order.

    With `std` there is one more: the last dataset again, for a plain student that learns from the last stage. It
    starts as section 5.8 has it, from the plain backbone that went through the datasets before.
    """
    stages = _in_a_row(config.stages())
    if config.std:
        before = _in_a_row(config.stages(ptl=False)[:-1])
        stages.append(Stage(config.last_distilled(), start=before[-1] if before else None, teacher=stages[-1]))
    return stages


def run_chain(config: ChainSettings, folder: ChainFolder, progress: Progress) -> dict[str, Any]:
    """The stages and their scores on every test set of the chain, which are in `folder.result` too.

    Stages that are there are reused, one that was stopped goes on. Nothing is trained unless all datasets are there.
    """
    stages = StageRunner(folder.path.parent, progress)
    tests = _tests(config, stages)
    rows: list[tuple[Stage, RunFolder]] = []
    scores: list[list[Cell]] = []
    with join_processes(config.device):
        distributed.run_on_main(lambda: folder.claim(config))
        for stage in (_start(config), *plan(config)):
            run = stages.run(stage)
            rows.append((stage, run))
            scores.append([_score(run, splits, config, progress) for splits in tests.values()])
            result = describe(config.chain, rows, list(tests), scores)
            if distributed.is_main():
                files.write_json(folder.result, result)
    if distributed.is_main():
        write_chain_report(folder.path)
    return result


def dry_run(config: ChainSettings, folder: ChainFolder) -> dict[str, Any]:
    """What `run_chain` would do: each training, with its run where that is known already, and the missing datasets.

    Raises what `run_chain` would raise before its first training.
    """
    folder.check(config)
    absent = sorted({name for data in config.chain for name in missing_datasets(data, Path(config.root))})
    stages = StageRunner(folder.path.parent, Silent())
    shown: list[dict[str, Any]] = []
    for stage in {key: one for last in plan(config) for key, one in last.trainings().items()}.values():
        run = None if absent else stages.find(stage)
        state = "finished" if run and run.finished else "begun" if run and run.path.is_dir() else "to do"
        about = {"data": stage.config.data, "method": stage.config.method, "epochs": stage.config.epochs}
        shown.append({**about, "run": run and run.path.name, "state": state})
    return {"chain": str(folder.path), "trainings": shown, "missing": absent}


def describe(
    chain: Sequence[str],
    rows: Sequence[tuple[Stage, RunFolder]],
    data: Sequence[str],
    scores: Sequence[Sequence[Cell]],
) -> dict[str, Any]:
    """The result of a chain for JSON; docs/file-formats.md describes it. The first row is the start."""
    # A student of distillation is another network than the one that went through the stages: it forgot nothing.
    trained = [stage.config.data for stage, _ in rows[1:] if not isinstance(stage.config, DistillSettings)]
    columns = {name: [float(row[n]["mAP"]) for row in scores[: len(trained) + 1]] for n, name in enumerate(data)}
    return {
        "chain": list(chain),
        "stages": [
            {"run": run.path.name, "data": stage.config.data, "method": stage.config.method} for stage, run in rows[1:]
        ],
        "start": rows[0][1].path.name,
        "data": list(data),
        "rows": [START, *(_row_name(stage.config) for stage, _ in rows[1:])],
        "scores": [list(row) for row in scores],
        "forward_transfer": {name: forward_transfer(trained, column, name) for name, column in columns.items()},
        "forgetting": {name: forgetting(trained, column, name) for name, column in columns.items()},
    }


def forward_transfer(trained: Sequence[str], scores: Sequence[float], data: str) -> float | None:
    """What training on other datasets did for `data`: its score just before its own training, less that of the start.

    `trained`: the dataset of each stage; one in a union is trained on with it. `scores`: (stages + 1,) of the start
    and after each stage. None for a dataset of the first stage, and for one not reached yet. Lopez-Paz and Ranzato,
    NIPS 2017, per dataset.
    """
    own = [number for number, stage in enumerate(trained) if _parts(stage) & _parts(data)]
    return scores[own[0]] - scores[0] if own and own[0] else None


def forgetting(trained: Sequence[str], scores: Sequence[float], data: str) -> float | None:
    """The best score on `data` after an earlier stage, less that after the last; negative where it still rose.

    None for a dataset of the last stage and for one not trained on. Chaudhry et al., ECCV 2018, per dataset.
    """
    own = [bool(_parts(stage) & _parts(data)) for stage in trained]
    return max(scores[1:-1]) - scores[-1] if any(own) and not own[-1] else None


def _parts(data: str) -> set[str]:
    """The datasets in a union; the dataset itself where it is none."""
    return {data} if datasets.is_folder(data) else set(data.split("+"))


def _in_a_row(configs: Sequence[FinetuneSettings]) -> list[Stage]:
    stages: list[Stage] = []
    for config in configs:
        stages.append(Stage(config, start=stages[-1] if stages else None))
    return stages


def _start(config: ChainSettings) -> Stage:
    """The network as the first stage begins with it."""
    return Stage(config.stages()[0].model_copy(update={"epochs": 0}))


def _tests(config: ChainSettings, stages: StageRunner) -> dict[str, Splits]:
    """The datasets of the chain that have a test set, each once; all are read before anything is trained."""
    found = {name: stages.splits(name, config.root) for name in config.chain}
    return {name: splits for name, splits in found.items() if splits.has_test}


def _score(run: RunFolder, splits: Splits, config: ChainSettings, progress: Progress) -> Cell:
    settings = EvaluateSettings(root=config.root, device=config.device, workers=config.workers)
    summary = evaluate_run(run, splits, settings, progress).summary()
    return {"mAP": summary["mAP"], "cmc": summary["cmc"]}


def _row_name(config: FinetuneSettings) -> str:
    return f"{config.data} (std)" if isinstance(config, DistillSettings) else config.data
