"""`ptlreid transfer-chain`: one network through several datasets, scored on all of them after each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ptlreid import datasets, distributed
from ptlreid.distributed import process_group
from ptlreid.evaluation import evaluate_run
from ptlreid.json_files import write_json
from ptlreid.models.pretrained import init_digests
from ptlreid.precision import resolve_amp
from ptlreid.progress import Progress, Silent
from ptlreid.records import Splits
from ptlreid.runs import RunFolder
from ptlreid.settings import AdaptSettings, ChainSettings, DistillSettings, FinetuneSettings, default_evaluation
from ptlreid.transfer.chain_folder import ChainFolder
from ptlreid.transfer.matrix import Cell, chain_result
from ptlreid.transfer.stages import Stage, StageRunner, missing_datasets, plan_stages, stage_digests
from ptlreid.workflows.adapt import adapt
from ptlreid.workflows.distill import distill
from ptlreid.workflows.finetune import finetune
from ptlreid.workflows.report import write_chain_report


def run_chain(settings: ChainSettings, folder: ChainFolder, progress: Progress) -> dict[str, Any]:
    """The stages and their scores on every test set of the chain, also written to `folder.result`.

    Finished stages are reused, and an interrupted one resumes. All datasets must exist before anything is trained.
    """
    init_digests(settings.init, folder.path.parent)  # before any image is read
    stages = StageRunner(folder.path.parent, progress)
    tests = _load_tests(settings, stages)
    rows: list[tuple[Stage, RunFolder]] = []
    with process_group(settings.device):
        settings = resolve_amp(settings)
        distributed.run_on_main(partial(folder.claim, settings))
        start = stages.start(settings, train_stage)
        scores = [_score(start, tests, settings, progress)]
        for stage in plan_stages(settings):
            run = stages.run(stage, train_stage)
            rows.append((stage, run))
            scores.append(_score(run, tests, settings, progress))
            result = chain_result(settings.chain, start, rows, list(tests), scores)
            if distributed.is_main():
                write_json(folder.result, result)
    if distributed.is_main():
        write_chain_report(folder.path)
    return result


def check_all(pairs: Sequence[tuple[ChainSettings, ChainFolder]]) -> None:
    """Raise `OptionError` if a folder holds another chain, for all of several chains before the first is trained."""
    for settings, folder in pairs:
        folder.check(resolve_amp(settings))


def train_stage(settings: FinetuneSettings, splits: Splits, run: RunFolder, progress: Progress) -> dict[str, Any]:
    """The metrics of a stage's run, by distillation, adaptation or fine-tuning, depending on its settings."""
    if isinstance(settings, AdaptSettings):
        return adapt(settings, splits, run, progress)
    if isinstance(settings, DistillSettings):
        return distill(settings, splits, run, progress)
    return finetune(settings, splits, run, progress, depends=stage_digests(settings, run.path.parent))


def dry_run(settings: ChainSettings, folder: ChainFolder) -> dict[str, Any]:
    """The training runs of the chain, with their names if known already, and the missing datasets, for JSON.

    Raises the errors that `run_chain` would raise before its first training.
    """
    settings = resolve_amp(settings)
    folder.check(settings)
    init_digests(settings.init, folder.path.parent)
    along = [one.with_ for one in settings.stages() if isinstance(one, AdaptSettings) and one.with_]
    used = [*settings.chain, *along]
    missing = sorted({name for data in used for name in missing_datasets(data, Path(settings.root))})
    stages = StageRunner(folder.path.parent, Silent())
    trainings: list[dict[str, Any]] = []
    for stage in {key: one for last in plan_stages(settings) for key, one in last.dependencies().items()}.values():
        run = None if missing else stages.find(stage)
        state = "finished" if run and run.finished else "started" if run and run.path.is_dir() else "to do"
        known = (None if missing else stages.find_settings(stage)) or stage.settings
        about = {"data": known.data, "method": known.method, "epochs": known.epochs}
        trainings.append({**about, "run": run and run.path.name, "state": state})
    return {"chain": str(folder.path), "trainings": trainings, "missing": missing}


def _load_tests(settings: ChainSettings, stages: StageRunner) -> dict[str, Splits]:
    """The datasets of the chain that have a test set, each once; all are loaded before anything is trained."""
    tests: dict[str, Splits] = {}
    for stage in settings.stages():
        images = stages.images(stage)
        if not isinstance(stage, AdaptSettings):
            images.require_train()
        if images.has_test:
            tests.setdefault(stage.data.removesuffix(datasets.UNLABELLED), images)
    return tests


def _score(run: RunFolder, tests: Mapping[str, Splits], settings: ChainSettings, progress: Progress) -> list[Cell]:
    """The scores of a run on each of the test sets."""
    evaluation = default_evaluation(settings)
    summaries = [evaluate_run(run, splits, evaluation, progress).summary() for splits in tests.values()]
    return [{"mAP": summary["mAP"], "cmc": summary["cmc"]} for summary in summaries]
