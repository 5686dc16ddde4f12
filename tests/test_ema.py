"""Averaged weights (`--ema-decay`): in training, in the run folder, in evaluation and on the page."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import tiny_network
from test_cli import TRAIN

from ptlreid import datasets
from ptlreid.engine import history
from ptlreid.engine.checkpoint import Training
from ptlreid.engine.fit import Precision, train_epoch
from ptlreid.errors import CheckpointError, OptionError
from ptlreid.features import Extractor
from ptlreid.images import Batch
from ptlreid.models.average import Average
from ptlreid.models.weights import read_weights_header
from ptlreid.progress import Silent
from ptlreid.reports.run_page import describe_runs
from ptlreid.reports.run_summary import RunSummary
from ptlreid.runs import RunFolder
from ptlreid.settings import AdaptSettings, EvaluateSettings, FinetuneSettings
from ptlreid.workflows.finetune import finetune

SETTINGS = FinetuneSettings.resolve(
    None,
    **{"backbone": "tiny", "init": "none", "height": 64, "width": 32, "batch_size": 8, "device": "cpu"},
    **{"epochs": 2, "evaluate_every": 1, "report": False, "ema_decay": 0.5},
)


@pytest.fixture(scope="module")
def splits(market_folder):
    return datasets.load("market", market_folder.parent)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, splits) -> RunFolder:
    run = RunFolder(tmp_path_factory.mktemp("runs") / "run")
    finetune(SETTINGS, splits, run, Silent())
    return run


@pytest.fixture
def run(trained, tmp_path) -> RunFolder:
    """A copy of the run below `runs`, which a test may change."""
    return RunFolder(shutil.copytree(trained.path, tmp_path / "runs" / "run"))


def train(average: bool, *, updates: int, scaler=None, factor: float = 1.0) -> tuple[Training, list[dict]]:
    """The training after some updates of two batches each, and the weights before the first and after each."""
    network = tiny_network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    training = Training(network, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 100))
    training.scaler = scaler or training.scaler
    training.average = Average(network, decay=0.24) if average else None
    pixels = np.random.default_rng(0).integers(256, size=(2 * updates, 4, 64, 32, 3), dtype=np.uint8)
    steps = train_epoch(
        training,
        [Batch(torch.from_numpy(one), torch.arange(4)) for one in pixels],
        torch.zeros(4, dtype=torch.long),
        lambda output, labels, images: {"mean": factor * output.embedding.square().mean()},
        precision=Precision(None, channels_last=False),
        accumulate=2,
        clip_grad=0.0,
    )
    states = [{name: value.clone() for name, value in network.state_dict().items()}]
    for _ in steps:
        states.append({name: value.clone() for name, value in network.state_dict().items()})
    return training, states


def test_the_average_of_three_updates_by_hand():
    training, (initial, first, second, third) = train(True, updates=3)
    found = training.average.network.state_dict()
    # 2/11 of the average is left by the first update, and then, instead of 3/12 and 4/13, the decay: 0.24.
    for name, value in found.items():
        if not value.is_floating_point():
            assert value == third[name]
            continue
        hand = initial[name] * 2 / 11 + first[name] * 9 / 11
        hand = 0.24 * hand + 0.76 * second[name]
        torch.testing.assert_close(value, 0.24 * hand + 0.76 * third[name], rtol=1e-5, atol=1e-7)
    moved = [name for name in found if not torch.equal(first[name], third[name])]
    assert any("running_var" in name for name in moved)
    assert any("weight" in name for name in moved)
    assert train(False, updates=3)[1][-1].keys() == third.keys()
    assert all(torch.equal(value, third[name]) for name, value in train(False, updates=3)[1][-1].items())


def test_an_update_that_fp16_skips_is_not_averaged():
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    training, _ = train(True, updates=2, scaler=scaler, factor=float("inf"))
    assert scaler.get_scale() == 0.25  # halved by each of the two
    assert training.average.n_averaged == 1  # as before the first update
    assert train(True, updates=2)[0].average.n_averaged == 3


def test_both_weights_are_scored_at_each_evaluation_and_at_the_end(trained, splits):
    metrics = trained.read_metrics()
    first, last = (line for line in history.read(trained.history) if line["kind"] == "epoch")
    assert first["averaged"].keys() == first.keys() - {"kind", "epoch", "cells", "averaged"}
    assert first["averaged"]["mAP"] != first["mAP"]
    assert "mAP" not in last  # scored at the end of the run
    assert metrics["averaged"]["mAP"] != metrics["mAP"]
    for which, scores in (("last", metrics), ("averaged", metrics["averaged"])):
        extractor = Extractor.from_run(trained, EvaluateSettings.resolve(None, device="cpu", weights=which))
        query, gallery = extractor.extract(splits.query), extractor.extract(splits.gallery)
        # CMC-1 by a loop over queries: the nearest image that is not the query's identity from its own camera.
        hits = []
        for feature, pid, camid in zip(query.matrix, query.pids, query.camids, strict=True):
            ignored = ((gallery.pids == pid) & (gallery.camids == camid)) | (gallery.pids == -1)
            distances = np.where(ignored, np.inf, np.linalg.norm(gallery.matrix - feature, axis=1))
            hits.append(gallery.pids[distances.argmin()] == pid)
        assert scores["cmc"]["1"] == pytest.approx(np.mean(hits))


def test_the_saved_weights_are_the_average_of_the_checkpoint(trained):
    average = torch.load(trained.checkpoint, weights_only=True)["average"]
    saved = read_weights_header(trained.weights("averaged")).build().state_dict()
    assert average.pop("n_averaged") == 1 + 2 * 2  # 16 images in batches of 8 for two epochs
    assert {f"module.{name}": value.tolist() for name, value in saved.items()} == {
        name: value.tolist() for name, value in average.items()
    }


def evaluate(ptlreid, market_folder, which: str, *more: str) -> tuple[int, str, str]:
    return ptlreid("evaluate", "--run", "run", "--weights", which, "--root", market_folder.parent, "--json", *more)


def test_evaluate_scores_the_averaged_weights_from_a_cache_of_their_own(run, ptlreid, market_folder):
    metrics = run.read_metrics()
    for which, scores in (("last", metrics), ("averaged", metrics["averaged"])):
        code, out, err = evaluate(ptlreid, market_folder, which)
        assert code == 0, err
        assert json.loads(out)["mAP"] == scores["mAP"]
        assert "cached features, no image decoded" in err
        assert json.loads(out)["weights_digest"] == metrics[f"{which.replace('last', 'weights')}_digest"]
    caches = sorted(path.name for path in run.features.iterdir())
    assert caches == [f"market.{part}.{which}.h5" for part in ("gallery", "query") for which in ("averaged", "last")]


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_run_without_averaged_weights_says_so(run, ptlreid, market_folder, more):
    run.config.write_text(run.config.read_text().replace("ema_decay = 0.5", "ema_decay = 0.0"))
    code, out, err = evaluate(ptlreid, market_folder, "averaged", *more)
    assert (code, out) == (1, "")
    assert "run has no averaged weights: expected a run that was trained with --ema-decay. Leave --weights" in err


def test_a_run_is_finished_only_with_complete_averaged_weights(run, splits):
    file, metrics = run.weights("averaged"), run.read_metrics()
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    assert not run.finished
    file.unlink()
    assert not run.finished
    history_before = run.history.read_bytes()
    assert finetune(SETTINGS, splits, run, Silent())["averaged"] == metrics["averaged"]
    assert run.finished
    assert file.read_bytes() == content
    # Nothing was trained: only the line of the last epoch could be repeated.
    assert run.history.read_bytes() == history_before


def test_changed_averaged_weights_are_scored_again(run, splits):
    before = run.read_metrics()
    shutil.copy(run.weights(), run.weights("averaged"))
    notes = []
    progress = Silent()
    progress.note = notes.append
    found = finetune(SETTINGS, splits, run, progress)
    assert f"{run.path}: the averaged weights have changed, scoring again" in notes
    assert found["averaged"]["mAP"] == found["mAP"] == before["mAP"] != before["averaged"]["mAP"]
    assert run.read_metrics() == found


def test_the_page_shows_the_scores_of_both(trained):
    summary, metrics = RunSummary.read(trained), trained.read_metrics()
    sections = describe_runs([summary], None, false_accept_rates=[0.01])
    (table,) = (table for section in sections for table in section.tables if "weights" in table.columns[0])
    assert table.columns[1] == "mAP (%)"
    assert [row[:2] for row in table.rows] == [
        ["last", f"{100 * metrics['mAP']:.1f}"],
        ["averaged (EMA)", f"{100 * metrics['averaged']['mAP']:.1f}"],
    ]
    (scores,) = (plot for section in sections for plot in section.plots if plot.name == "scores")
    rows = [row[:2] for row in scores.table.rows]
    assert rows == [["run", "1"], ["run", "2"], ["run, averaged", "1"], ["run, averaged", "2"]]


def test_tables_show_the_scores_of_both(ptlreid, market_folder):
    command = (*TRAIN, "--epochs", 1, "--ema-decay", 0.5, "--root", market_folder.parent, "--no-report")
    code, out, err = ptlreid(*command, "--seeds", "0-1", "--name", "run")
    assert code == 0, err
    rows = [re.split(r" *[│|] *", line)[1] for line in out.splitlines() if re.search(r"seed|mean ±", line)]
    assert rows[-6:] == [
        *("seed 0", "seed 0, averaged", "seed 1", "seed 1, averaged"),
        *("mean ± s.d.", "averaged, mean ± s.d."),
    ]
    one = json.loads(ptlreid(*command, "--seeds", "0-1", "--name", "run", "--json")[1])
    both = [seed["averaged"]["mAP"] for seed in one["runs"]]
    assert one["averaged"]["mean"]["mAP"] == pytest.approx(sum(both) / 2)
    code, out, _ = ptlreid(*command, "--name", "run-s0")
    assert code == 0
    assert f"last epoch, averaged │ {100 * both[0]:.1f}" in re.sub(" +", " ", out)


def test_adaptation_has_an_average_of_its_own():
    with pytest.raises(OptionError, match=r"ema_decay = 0\.5: expected 0\.0, as adaptation does not use it"):
        AdaptSettings.resolve(None, run="home", data="site", ema_decay=0.5)


def test_initial_weights_are_the_last_ones(run, splits, tmp_path):
    started = RunFolder(run.path.parent / "started")
    settings = SETTINGS.model_copy(update={"init": "run", "epochs": 0, "ema_decay": 0.0})
    finetune(settings, splits, started, Silent())
    ours, theirs = (read_weights_header(one.weights()).build().state_dict() for one in (started, run))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    with pytest.raises(CheckpointError, match="has no averaged weights"):
        started.find_weights("averaged")
