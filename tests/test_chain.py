"""Chains: initialisation of stages, reuse, and the scores of each stage on every dataset."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from test_resume import At, Fault, fault

from ptlreid import datasets, files, models
from ptlreid.datasets import synthetic
from ptlreid.errors import DataError, OptionError
from ptlreid.evaluation import evaluate_run
from ptlreid.models.weights import read_weights_header
from ptlreid.progress import Silent
from ptlreid.reports.chain_page import read_chain
from ptlreid.runs import RunFolder
from ptlreid.settings import ChainSettings, EvaluateSettings, SyntheticSettings
from ptlreid.transfer.chain_folder import ChainFolder
from ptlreid.transfer.matrix import forgetting, forward_transfer
from ptlreid.transfer.stages import StageRunner, plan_stages
from ptlreid.workflows.chain import dry_run, run_chain

SITES = ("synthetic-a", "synthetic-b", "synthetic-c")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The three synthetic sites, with a few identities each."""
    folder = tmp_path_factory.mktemp("sites")
    for number, site in enumerate(SITES):
        small = SyntheticSettings(identities=8 + 4 * number, cameras=2, images_per_camera=2, height=64, width=32)
        synthetic.prepare(folder / site, site[-1], small)
    return folder


def make_settings(root, *chain, **changed) -> ChainSettings:
    settings = {"backbone": "tiny", "init": "none", "height": 64, "width": 32, "batch_size": 4, "epochs": 2}
    where = {"device": "cpu", "root": str(root), "evaluate_every": 0}
    return ChainSettings.resolve(None, chain=list(chain), **settings | where | changed)


def runs_of(result: dict) -> list[str]:
    return [stage["run"] for stage in result["stages"]]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_weights_header(RunFolder(run).weights()).build().state_dict()


def times(runs: Path) -> dict[Path, int]:
    """The modification time of each weights file."""
    return {path: path.stat().st_mtime_ns for path in sorted(runs.glob("*/weights.safetensors"))}


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory):
    """An uninterrupted chain through all three sites: its settings, its folder of runs and its result."""
    runs = tmp_path_factory.mktemp("whole")
    settings = make_settings(root, *SITES)
    return settings, runs, run_chain(settings, ChainFolder(runs / "chain"), Silent())


def test_each_stage_is_initialised_from_the_previous_one(whole):
    _, runs, result = whole
    starts = [RunFolder(runs / name).settings().init for name in runs_of(result)]
    assert starts == ["none", *runs_of(result)[:2]]
    for name, start in zip(runs_of(result)[1:], starts[1:], strict=True):
        digest = files.file_digest(RunFolder(runs / start).weights())
        assert RunFolder(runs / name).read_manifest()["depends"] == {"init": digest}


def test_the_matrix_equals_separate_evaluations(whole):
    settings, runs, result = whole
    assert read_chain(runs / "chain" / "chain.json") == result
    assert result["rows"] == ["start", *SITES]
    assert result["data"] == result["chain"] == list(SITES)
    for name, row in zip([result["start"], *runs_of(result)], result["scores"], strict=True):
        for site, cell in zip(SITES, row, strict=True):
            splits = datasets.load(site, Path(settings.root))
            scores = evaluate_run(RunFolder(runs / name), splits, EvaluateSettings(device="cpu"), Silent()).summary()
            assert cell == {"mAP": scores["mAP"], "cmc": scores["cmc"]}


def test_the_evaluate_command_gives_the_same(whole, ptlreid):
    settings, runs, result = whole
    where = ("--root", settings.root, "--runs", runs, "--device", "cpu", "--json")
    code, out, _ = ptlreid("evaluate", "--run", runs_of(result)[1], "--data", SITES[0], *where)
    assert code == 0
    assert json.loads(out)["mAP"] == result["scores"][2][0]["mAP"]
    assert json.loads(out)["weights_digest"] == result["stages"][1]["weights"]


def test_each_stage_states_the_digest_of_the_weights_that_were_scored(whole):
    _, runs, result = whole
    for stage in result["stages"]:
        content = RunFolder(runs / stage["run"]).weights().read_bytes()
        assert stage["weights"] == hashlib.blake2b(content, digest_size=16).hexdigest()


def test_the_start_is_the_untrained_network_of_the_first_stage(whole):
    _, runs, result = whole
    start = RunFolder(runs / result["start"])
    assert start.settings().epochs == 0
    assert start.settings().data == SITES[0]


def test_the_second_time_everything_is_reused(whole):
    settings, runs, result = whole
    before = times(runs)
    progress = At(1, fault)  # raises if an update is made
    assert run_chain(settings, ChainFolder(runs / "chain"), progress) == result
    assert times(runs) == before
    assert [note for note in progress.notes if "finished" in note] == [
        f"{runs / name} is finished: reused, nothing trained" for name in (result["start"], *runs_of(result))
    ]


def test_a_chain_that_shares_its_first_stages_reuses_them_and_reports_it(whole):
    settings, runs, result = whole
    progress = At(-1, fault)
    shared = run_chain(make_settings(settings.root, *SITES[:2], SITES[0]), ChainFolder(runs / "back"), progress)
    assert runs_of(shared)[:2] == runs_of(result)[:2]
    assert runs_of(shared)[2] not in runs_of(result)
    assert sum("is finished: reused" in note for note in progress.notes) == 3  # the start and two stages


def with_table(settings: ChainSettings, number: int, **changed) -> ChainSettings:
    """The chain with other settings in one stage."""
    tables = [{**table, **(changed if place == number else {})} for place, table in enumerate(settings.stage, start=1)]
    return settings.model_copy(update={"stage": tables})


@pytest.mark.slow
def test_changing_a_late_stage_does_not_rerun_early_ones(whole):
    settings, runs, result = whole
    before = times(runs)
    changed = run_chain(with_table(settings, 3, lr=0.02), ChainFolder(runs / "late"), Silent())
    assert runs_of(changed)[:2] == runs_of(result)[:2]
    assert runs_of(changed)[2] != runs_of(result)[2]
    assert {path: time for path, time in times(runs).items() if path in before} == before


@pytest.mark.slow
def test_changing_an_early_stage_trains_all_later_ones_again(whole):
    settings, runs, result = whole
    two = settings.model_copy(update={"stage": settings.stage[:2]})
    changed = run_chain(with_table(two, 1, lr=0.02), ChainFolder(runs / "early"), Silent())
    assert not set(runs_of(changed)) & set(runs_of(result))
    ours, theirs = (RunFolder(runs / runs_of(found)[1]).settings() for found in (changed, result))
    assert theirs.differences(ours) == [f"init: {theirs.init!r} -> {ours.init!r}"]  # all that differs is the start


@pytest.mark.slow
def test_a_stage_keeps_the_backbone_and_starts_a_new_classifier(root, tmp_path):
    settings = with_table(make_settings(root, *SITES[:2]), 2, epochs=0)
    result = run_chain(settings, ChainFolder(tmp_path / "chain"), Silent())
    first, second = (RunFolder(tmp_path / name) for name in runs_of(result))
    before, after = weights(first.path), weights(second.path)
    fresh = models.build(read_weights_header(second.weights()).spec, seed=0).state_dict()
    classifier = [name for name in after if name.startswith("head.classifier")]
    assert len(classifier) == 16  # three layers, and two batch norms between them
    assert all(torch.equal(after[name], fresh[name]) for name in classifier)
    assert all(torch.equal(after[name], before[name]) for name in after if name not in classifier)


def test_other_images_make_another_run(root, tmp_path):
    shutil.copytree(root / SITES[0], tmp_path / SITES[0])
    (stage,) = plan_stages(make_settings(tmp_path, SITES[0]))
    names = [StageRunner(tmp_path / "runs", Silent()).find(stage)]
    splits = datasets.load(SITES[0], tmp_path)
    splits.train.paths[0].write_bytes(splits.train.paths[1].read_bytes())
    names.append(StageRunner(tmp_path / "runs", Silent()).find(stage))
    assert None not in names
    assert names[0] != names[1]


def test_a_stopped_chain_resumes_to_equal_weights(whole, tmp_path):
    settings, runs, result = whole
    settings = settings.model_copy(update={"checkpoint_minutes": 0.0})
    updates = len(datasets.load(SITES[0], Path(settings.root)).train) // 4 * 2

    class InStageTwo(At):
        """Fails in the last update of the second training that has any: after a checkpoint of its own."""

        def __init__(self) -> None:
            super().__init__(-1, fault)
            self.trained = []

        @contextmanager
        def task(self, title, total):
            if title.startswith("train") and total:
                self.trained.append(title)

            def advance(done, *, status="", total=None):
                if title.startswith("train") and len(self.trained) == 2 and done == updates:
                    raise Fault

            yield advance

    with pytest.raises(Fault):
        run_chain(settings, ChainFolder(tmp_path / "chain"), InStageTwo())
    first = times(tmp_path)
    assert len(first) == 2  # the start and stage 1
    assert read_chain(tmp_path / "chain" / "chain.json")["rows"] == ["start", SITES[0]]
    progress = At(-1, fault)
    assert run_chain(settings, ChainFolder(tmp_path / "chain"), progress) == result
    assert any(f"{runs_of(result)[1]}: resuming after" in note for note in progress.notes)
    assert {path: time for path, time in times(tmp_path).items() if path in first} == first
    for name in runs_of(result):
        ours, theirs = weights(tmp_path / name), weights(runs / name)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def killed(settings: dict, folder: str) -> None:
    """A chain in its own process, which kills itself in the middle of stage 2."""
    from conftest import backbones  # noqa: F401 - makes the tiny backbone known here

    torch.set_num_threads(1)
    trained = []

    class Kill(Silent):
        @contextmanager
        def task(self, title, total):
            if title.startswith("train") and total:
                trained.append(title)

            def advance(done, *, status="", total=None):
                if len(trained) == 2 and title.startswith("train") and done == 5:
                    os.kill(os.getpid(), signal.SIGKILL)

            yield advance

    run_chain(ChainSettings.resolve(None, **settings), ChainFolder(Path(folder)), Kill())


@pytest.mark.slow
def test_a_killed_chain_resumes_to_equal_weights_without_training_stage_1_again(whole, tmp_path):
    settings, runs, result = whole
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ptlreid.engine.training_run", "conftest"])
    chosen = settings.model_dump(exclude_unset=True) | {"checkpoint_minutes": 0.0}
    process = context.Process(target=killed, args=(chosen, str(tmp_path / "chain")))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    first = times(tmp_path)
    assert len(first) == 2
    assert run_chain(settings, ChainFolder(tmp_path / "chain"), Silent()) == result
    assert {path: time for path, time in times(tmp_path).items() if path in first} == first
    for name in runs_of(result):
        ours, theirs = weights(tmp_path / name), weights(runs / name)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.slow
def test_the_student_of_a_chain_went_through_it_as_a_plain_backbone(root, tmp_path):
    result = run_chain(make_settings(root, *SITES[:2], std=True), ChainFolder(tmp_path / "std"), Silent())
    assert result["rows"] == ["start", *SITES[:2], f"{SITES[1]} (std)"]
    assert [stage["method"] for stage in result["stages"]] == ["ptl", "ptl", "std0.8"]
    student = RunFolder(tmp_path / runs_of(result)[-1]).settings()
    assert student.teacher == runs_of(result)[1]
    before = RunFolder(tmp_path / student.init)
    assert (before.settings().data, before.settings().ptl) == (SITES[0], False)
    # The baseline on the same datasets has trained that stage already.
    plain = run_chain(make_settings(root, *SITES[:2], ptl=False), ChainFolder(tmp_path / "plain"), At(-1, fault))
    assert runs_of(plain)[0] == student.init


def test_the_student_of_a_single_dataset_is_initialised_as_the_chain(root):
    *_, last = plan_stages(make_settings(root, SITES[0], std=True))
    assert last.init is None
    assert last.settings.init == "none"
    assert last.teacher is not None


@pytest.mark.slow
def test_lambda_0_at_the_end_of_a_chain_is_the_baseline(root, tmp_path):
    distilled = run_chain(
        make_settings(root, *SITES[:2], std=True, lambda_=0.0), ChainFolder(tmp_path / "std"), Silent()
    )
    plain = run_chain(make_settings(root, *SITES[:2], ptl=False), ChainFolder(tmp_path / "plain"), Silent())
    assert distilled["scores"][-1] == plain["scores"][-1]


def test_a_union_is_a_stage_without_a_test_set(root, tmp_path):
    union = "+".join(SITES[:2])
    result = run_chain(make_settings(root, union, SITES[2], epochs=1), ChainFolder(tmp_path / "union"), Silent())
    assert result["chain"] == [union, SITES[2]]
    assert result["data"] == [SITES[2]]
    assert [len(row) for row in result["scores"]] == [1, 1, 1]
    assert list(result["forward_transfer"]) == [SITES[2]]


@pytest.mark.slow
def test_with_lambda_0_the_student_does_not_depend_on_the_teachers_memory(root, tmp_path):
    chains = [
        make_settings(root, *SITES[:2], epochs=1, std=True, lambda_=0.0, memory=memory) for memory in ("slot", "mean")
    ]
    slot, mean = (run_chain(one, ChainFolder(tmp_path / f"chain-{one.memory}"), Silent()) for one in chains)
    assert slot["stages"][-1] == mean["stages"][-1]
    assert slot["stages"][-2]["run"] != mean["stages"][-2]["run"]


def test_a_chain_and_a_run_do_not_share_a_folder(whole):
    settings, runs, result = whole
    for act in (run_chain, lambda *given: dry_run(*given[:2])):
        with pytest.raises(OptionError, match="holds a run: a chain needs its own folder"):
            act(settings, ChainFolder(runs / runs_of(result)[0]), Silent())
    assert (
        make_settings(settings.root, SITES[0]).default_name
        != plan_stages(make_settings(settings.root, SITES[0]))[0].settings.default_name
    )


def test_a_folder_holds_one_chain(whole):
    settings, runs, _ = whole
    with pytest.raises(
        OptionError, match=r"chain holds another chain \(lr: 0.01 -> 0.5\)\. Give this one another --name"
    ):
        run_chain(settings.model_copy(update={"lr": 0.5}), ChainFolder(runs / "chain"), Silent())
    with pytest.raises(OptionError, match="holds another chain"):
        dry_run(settings.model_copy(update={"lr": 0.5}), ChainFolder(runs / "chain"))


def test_a_chain_that_failed_before_its_first_score_leaves_its_folder_free(root, tmp_path):
    folder = ChainFolder(tmp_path / "chain")
    with pytest.raises(OptionError, match=r"backbone = 'tinny': no such backbone\. Did you mean 'tiny'"):
        run_chain(make_settings(root, SITES[0], backbone="tinny"), folder, Silent())
    folder.claim(make_settings(root, SITES[0]))


def test_a_missing_dataset_is_reported_before_anything_is_trained(root, tmp_path):
    settings = make_settings(root, SITES[0], "market")
    with pytest.raises(DataError, match="Market-1501 was not found"):
        run_chain(settings, ChainFolder(tmp_path / "chain"), Silent())
    assert not list(tmp_path.iterdir())
    assert dry_run(settings, ChainFolder(tmp_path / "chain"))["missing"] == ["market"]


def test_a_dry_run_lists_finished_and_remaining_trainings(whole):
    settings, runs, result = whole
    found = dry_run(make_settings(settings.root, *SITES[:2], std=True), ChainFolder(runs / "new"))
    first, second = runs_of(result)[:2]
    shown = [(one["data"], one["method"], one["run"], one["state"]) for one in found["trainings"]]
    assert shown[:2] == [(SITES[0], "ptl", first, "finished"), (SITES[1], "ptl", second, "finished")]
    assert [(data, method, state) for data, method, _, state in shown[2:]] == [
        (SITES[0], "baseline", "to do"),
        (SITES[1], "std0.8", "to do"),
    ]
    assert shown[3][2] is None  # its initial network is not trained yet
    assert not (runs / "new").exists()


def test_the_command_prints_the_matrix(whole, ptlreid):
    _, runs, result = whole
    where = ("--config", runs / "chain" / "chain.toml", "--runs", runs, "--name", "chain")
    code, out, _ = ptlreid("transfer-chain", *where)
    assert code == 0
    cell = result["scores"][3][2]
    assert f"{100 * cell['mAP']:.1f} / {100 * cell['cmc']['1']:.1f}" in out
    assert "forgetting" in out
    code, out, _ = ptlreid("transfer-chain", *where, "--json")
    assert json.loads(out) == result
    code, out, _ = ptlreid("transfer-chain", *where, "--dry-run")
    assert (code, out.count("finished")) == (0, 3)


def test_forward_transfer_and_forgetting_worked_by_hand():
    # Lopez-Paz and Ranzato 2017: the score just before the own training, minus the start's; Chaudhry et al. 2018: the
    # best after an earlier stage minus the last. Scores of the start, then after a, b and c.
    trained = ["a", "b", "c"]
    a, b, c = [0.1, 0.8, 0.9, 0.6], [0.2, 0.25, 0.7, 0.75], [0.3, 0.2, 0.35, 0.5]
    assert forward_transfer(trained, a, "a") is None
    assert forward_transfer(trained, b, "b") == pytest.approx(0.25 - 0.2)
    assert forward_transfer(trained, c, "c") == pytest.approx(0.35 - 0.3)
    assert forgetting(trained, a, "a") == pytest.approx(0.9 - 0.6)
    assert forgetting(trained, b, "b") == pytest.approx(0.7 - 0.75)
    assert forgetting(trained, c, "c") is None
    # The start is no stage, so its scores cannot be forgotten. A dataset that comes again is not new.
    assert forgetting(trained, [0.99, 0.8, 0.9, 0.6], "a") == pytest.approx(0.9 - 0.6)
    assert forward_transfer(["a", "b", "a"], a, "a") is None
    # A dataset in a union counts as trained on.
    assert forward_transfer(["a+b", "b", "c"], b, "b") is None
    assert forward_transfer(["a", "b+c", "c"], c, "c") == pytest.approx(0.2 - 0.3)
    assert forgetting(["a+b", "b", "c"], a, "a") == pytest.approx(0.9 - 0.6)
    assert forgetting(["a", "b", "a+c"], a, "a") is None


def test_an_incomplete_chain_has_no_transfer_yet():
    assert forward_transfer([], [0.1], "a") is None
    assert forward_transfer(["a"], [0.1, 0.2], "b") is None
    assert forgetting(["a"], [0.1, 0.2], "a") is None
    assert forgetting(["a"], [0.1, 0.2], "b") is None
