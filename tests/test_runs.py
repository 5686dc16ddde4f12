"""The run folder: what a run depends on, and which run a name refers to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from ptlreid import datasets
from ptlreid.errors import CheckpointError, DataError, OptionError
from ptlreid.runs import RunFolder, find_newest_ptl, find_run
from ptlreid.settings import DistillSettings, FinetuneSettings


@pytest.fixture
def splits(market_folder):
    return datasets.load("market", market_folder.parent)


def begun(path: Path, config: FinetuneSettings, splits, depends=None) -> RunFolder:
    """A run that has reached a checkpoint."""
    run = RunFolder(path)
    run.claim(config, splits, depends)
    run.checkpoint.touch()
    return run


def finished(path: Path, at: int, **settings) -> RunFolder:
    """A run that ended at this second."""
    run = RunFolder(path)
    path.mkdir()
    kind = DistillSettings if "teacher" in settings else FinetuneSettings
    run.config.write_text(kind.resolve(None, **settings).to_toml())
    save_file({}, run.weights())
    run.metrics.touch()
    os.utime(run.metrics, (at, at))
    return run


def test_settings_are_of_the_kind_that_made_the_run(tmp_path, splits):
    plain = begun(tmp_path / "plain", FinetuneSettings(), splits)
    taught = begun(tmp_path / "taught", DistillSettings.resolve(None, teacher="plain", lambda_=0.3), splits)
    assert type(plain.settings()) is FinetuneSettings
    assert taught.settings() == DistillSettings.resolve(None, teacher="plain", lambda_=0.3)
    assert "lambda = 0.3\n" in taught.config.read_text()


def test_what_else_a_run_depends_on_must_be_the_same(tmp_path, splits):
    config = FinetuneSettings()
    run = begun(tmp_path / "run", config, splits, {"init": "1", "teacher": "2"})
    run.check(config, splits, {"init": "1", "teacher": "2"})
    with pytest.raises(
        OptionError, match=r"another run \(the initial weights changed\)\. Give this one another --name"
    ):
        run.check(config, splits, {"init": "3", "teacher": "2"})
    with pytest.raises(OptionError, match=r"the initial weights changed; the teacher's weights changed"):
        run.check(config, splits, {"init": "3", "teacher": "4"})


def test_the_same_weights_under_another_name_are_no_change(tmp_path, splits):
    run = begun(tmp_path / "run", FinetuneSettings(init="one"), splits, {"init": "1"})
    run.check(FinetuneSettings(init="another"), splits, {"init": "1"})
    with pytest.raises(OptionError, match="init: 'one' -> 'another'"):
        run.check(FinetuneSettings(init="another"), splits)  # nothing is known of that start


def test_a_run_from_before_digests_were_kept_is_trusted(tmp_path, splits):
    run = begun(tmp_path / "run", FinetuneSettings(), splits)
    assert "depends" not in run.read_manifest()
    run.check(FinetuneSettings(), splits, {"init": "1"})


def test_a_run_with_and_one_without_a_teacher_are_never_the_same(tmp_path, splits):
    config = DistillSettings.resolve(None, teacher="some")
    run = begun(tmp_path / "run", FinetuneSettings(ptl=False), splits)
    with pytest.raises(OptionError, match=r"method: 'baseline' -> 'std0\.8'"):
        run.check(config, splits)
    run.claim(config, splits)
    with pytest.raises(OptionError, match=r"method: 'std0\.8' -> 'baseline'"):
        run.check(FinetuneSettings(ptl=False), splits)
    with pytest.raises(OptionError, match=r"\(teacher: 'some' -> 'other'; lambda: 0.8 -> 0.5\)"):
        run.check(DistillSettings.resolve(None, teacher="other", lambda_=0.5), splits)


def test_a_damaged_data_file_is_an_error_when_identities_are_compared(tmp_path, splits):
    run = begun(tmp_path / "run", FinetuneSettings(), splits)
    assert run.has_same_identities(splits)
    run.data.write_text("[]")
    with pytest.raises(DataError, match=r"data\.json: found \[\], expected a JSON object\."):
        run.has_same_identities(splits)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
@pytest.mark.parametrize("name", ["metrics.json", "checkpoint.pt", "best.safetensors"])
def test_a_folder_or_pipe_with_the_name_of_a_runs_file_is_refused(tmp_path, splits, name, make):
    make(tmp_path / name)
    with pytest.raises(CheckpointError, match=rf"{name}: a (folder|pipe or device), expected a file\. Remove it, or"):
        RunFolder(tmp_path).check(FinetuneSettings.resolve(None), splits)


def test_the_newest_ptl_run_is_the_one_that_was_trained_and_finished_last(tmp_path):
    finished(tmp_path / "z-first", 100)
    expected = finished(tmp_path / "a-second", 200)
    finished(tmp_path / "plain", 300, ptl=False)
    finished(tmp_path / "untrained", 400, epochs=0)
    finished(tmp_path / "taught", 500, teacher="z-first")
    finished(tmp_path / "lost", 600).weights().unlink()
    finished(tmp_path / "damaged", 700).config.write_text("[")
    assert find_newest_ptl(tmp_path) == expected


def test_without_a_ptl_run_the_message_says_what_to_do(tmp_path):
    finished(tmp_path / "plain", 300, ptl=False)
    with pytest.raises(
        CheckpointError, match=r"no finished PTL run: expected one as the teacher\. Train one with `ptlreid finetune`"
    ):
        find_newest_ptl(tmp_path)


def test_a_run_that_is_the_current_folder_has_its_name(tmp_path, splits, monkeypatch):
    begun(tmp_path / "run", FinetuneSettings(), splits)
    monkeypatch.chdir(tmp_path / "run")
    assert find_run(tmp_path / "runs", ".").path.name == "run"
