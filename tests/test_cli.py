"""The command line, as a user meets it."""

from __future__ import annotations

import json
import re

import pytest
from miniatures import write_market

TRAIN = ("finetune", "--backbone", "tiny", "--init", "none", "--height", 64, "--width", 32, "--batch-size", 8)


def test_train_evaluate_and_evaluate_again(ptlreid, market_folder, monkeypatch):
    root = ("--root", market_folder.parent)
    code, out, err = ptlreid(*TRAIN, "--epochs", 1, *root)
    assert code == 0, err
    assert "market-tiny-ptl-s0" in out
    assert "train market-tiny-ptl-s0: done" in err

    code, out, err = ptlreid("evaluate", "--run", "market-tiny-ptl-s0", "--json", *root)
    assert code == 0, err
    scores = json.loads(out)
    assert set(scores) >= {"mAP", "mINP", "cmc", "queries", "gallery", "protocol", "settings", "data"}
    assert scores["queries"] == {"total": 6, "valid": 6}
    assert scores["gallery"] == {"total": 8, "junk": 1}
    assert "6 cached features, no image decoded" in err

    from PIL import Image

    def no_image(*_: object) -> None:
        raise AssertionError("an image was opened")

    monkeypatch.setattr(Image, "open", no_image)
    again = ptlreid("evaluate", "--run", "market-tiny-ptl-s0", "--json", *root)
    assert json.loads(again[1]) == scores


def test_the_same_command_again_reuses_the_run(ptlreid, market_folder):
    root = ("--root", market_folder.parent)
    first = ptlreid(*TRAIN, "--epochs", 1, "--no-ptl", "--json", *root)
    second = ptlreid(*TRAIN, "--epochs", 1, "--no-ptl", "--json", *root)
    assert json.loads(first[1]) == json.loads(second[1])
    assert "market-tiny-baseline-s0 is finished: reused, nothing trained" in second[2]


def test_a_dry_run_shows_the_settings_and_writes_nothing(ptlreid, market_folder, tmp_path):
    code, out, _ = ptlreid(*TRAIN, "--epochs", 3, "--dry-run", "--json", "--root", market_folder.parent)
    plan = json.loads(out)
    assert code == 0
    assert plan["settings"]["lr"] == 0.01
    assert plan["train"] == {"images": 16, "identities": 4}
    assert plan["steps"] == 6
    assert list(tmp_path.iterdir()) == []


def test_a_config_file_fills_in_and_options_override_it(ptlreid, market_folder, tmp_path):
    (tmp_path / "mine.toml").write_text('backbone = "tiny"\nbatch_size = 8\nepochs = 5\nlr = 0.5\n')
    root = ("--root", market_folder.parent)
    code, out, err = ptlreid("finetune", "--config", "mine.toml", "--epochs", 2, "--dry-run", "--json", *root)
    assert code == 0, err
    settings = json.loads(out)["settings"]
    assert (settings["backbone"], settings["epochs"], settings["lr"]) == ("tiny", 2, 0.5)


def test_prepare_renders_a_synthetic_dataset_once(ptlreid, tmp_path):
    draw = ("prepare", "synthetic-b", "--identities", 6, "--cameras", 3, "--images-per-camera", 2, "--seed", 1)
    code, out, err = ptlreid(*draw, "--json")
    assert code == 0, err
    made = json.loads(out)
    assert made["rendered"] is True
    # Half of six people train: 3 people, 3 cameras, 2 images; the others: one query a camera.
    assert made["train"] == {"images": 18, "identities": 3, "cameras": 3}
    assert made["query"] == {"images": 9, "identities": 3, "cameras": 3}
    assert (tmp_path / "data" / "synthetic-b" / "query").is_dir()
    assert json.loads(ptlreid(*draw, "--json")[1])["rendered"] is False


@pytest.mark.parametrize("command", [("datasets",), ("prepare", "--list")])
def test_datasets_are_listed_and_no_line_is_cut_in_a_pipe(ptlreid, command):
    code, out, _ = ptlreid(*command)
    assert code == 0
    assert "…" not in out
    rows = [line for line in out.splitlines() if line.startswith("│")]
    assert any("market, market1501" in row and "Market-1501" in row for row in rows)
    assert any("labeled, detected, classic" in row for row in rows)


def test_a_dataset_is_described(ptlreid):
    code, out, _ = ptlreid("datasets", "market")
    assert code == 0
    assert "names: market, market1501" in out
    assert "12,936 train images" in out  # Zheng et al. 2015
    assert json.loads(ptlreid("datasets", "market", "--json")[1])["counts"][""]["train_images"] == 12936
    assert "Did you mean 'market'" in ptlreid("datasets", "markt")[2]
    assert "./market: is a path, expected the name of a dataset" in ptlreid("datasets", "./market")[2]


def test_a_dataset_is_checked_and_packed_by_commands_of_their_own(ptlreid, market_folder):
    root = ("--root", market_folder.parent)
    code, out, err = ptlreid("check", "market", "--json", *root)
    assert json.loads(out)["data"] == "market", err
    assert (code, out) == ptlreid("prepare", "market", "--check", "--json", *root)[:2]
    code, out, err = ptlreid("pack", "market", "--height", 20, "--width", 10, "--json", *root)
    assert code == 0, err
    packed = json.loads(out)
    assert packed["pack"].endswith("packed-20x10.h5")
    assert packed["packed"] > 0
    assert json.loads(ptlreid("pack", "market", "--height", 20, "--width", 10, "--json", *root)[1])["packed"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("finetune", "--backbone", "resnet5"), "Did you mean 'resnet50'"),
        (("finetune", "--data", "markt"), "Did you mean 'market'"),
        (("finetune", "--data", "market"), "Market-1501 was not found: expected it at data/market"),
        (("finetune", "--data", "./nowhere"), "nowhere: does not exist"),
        (("finetune", "--memory", "all"), "--memory all: expected 'slot', 'mean' or 'none'."),
        (("finetune", "--epochs", -1), "--epochs -1: expected an integer in [0, 1000000]."),
        (("finetune", "--config", "none.toml"), "none.toml: cannot be read"),
        (("evaluate", "--run", "none"), "Unknown run 'none'"),
        (("prepare", "market"), "Market-1501 is not in data: get it from https://"),
        (("prepare",), "No dataset given."),
        (("prepare", "synthetic", "--identities", 3), "--identities 3: expected an integer in [4, 100000]."),
    ],
)
def test_a_mistake_is_one_clear_message_and_exit_code_1(ptlreid, arguments, message):
    code, out, err = ptlreid(*arguments)
    assert code == 1
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [("finetune", "--epoch", "3"), ("evalute",), ("finetune", "--lr", "fast")])
def test_wrong_usage_is_exit_code_2_and_names_what_was_meant(ptlreid, arguments):
    code, out, err = ptlreid(*arguments)
    assert (code, out) == (2, "")
    assert re.search(r"--epochs|evaluate|valid (number|float)", err)


def test_the_version_is_the_packages(ptlreid):
    from importlib.metadata import version

    code, out, _ = ptlreid("--version")
    assert (code, out) == (0, f"ptlreid {version('ptlreid')}\n")


def test_ctrl_c_says_how_to_resume(ptlreid, market_folder, monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    from ptlreid.engine import training_run

    monkeypatch.setattr(training_run, "train_epochs", stop)
    code, out, err = ptlreid(*TRAIN, "--root", market_folder.parent)
    assert (code, out) == (130, "")
    assert "To resume: ptlreid finetune" in err
    assert "Traceback" not in err


def test_a_disk_that_refuses_is_one_clear_message(ptlreid, market_folder, tmp_path):
    (tmp_path / "runs").write_text("a file where the folder of runs should be")
    code, _, err = ptlreid(*TRAIN, "--epochs", 1, "--root", market_folder.parent)
    assert code == 1
    assert re.fullmatch(r"error: .*runs.*(Not a directory|File exists).*\n", err)


@pytest.mark.slow
def test_models_lists_every_network_with_and_without_cells(ptlreid, monkeypatch):
    code, out, _ = ptlreid("models", "--classes", 1041, "--json")
    assert code == 0
    found = {(one["name"], one["ptl"]): one for one in json.loads(out)}
    assert {"resnet50", "densenet161", "mgn", "mobilenet-v2", "convnext-tiny"} <= {name for name, _ in found}
    one = found["densenet161", True]
    assert set(one) >= {"name", "ptl", "params", "macs", "feature_width", "input_size"}
    assert (one["feature_width"], one["input_size"], one["paper_params_m"]) == (1024, [256, 128], 42)
    assert found["mgn", False]["input_size"] == [384, 128]
    monkeypatch.setattr("ptlreid.models.names", lambda: ["mobilenet-v3-large", "resnet50"])
    code, out, _ = ptlreid("models")
    assert code == 0
    assert sum(line.startswith("│") for line in out.splitlines()) == 2  # a pipe gets a network on one line


@pytest.mark.parametrize(("option", "expected"), [("--check", "0 faults, 0 serious"), ("--pack", "Packed")])
def test_a_synthetic_dataset_is_rendered_before_it_is_checked_or_packed(ptlreid, monkeypatch, option, expected):
    monkeypatch.setattr("ptlreid.datasets.synthetic._render", render_market)
    code, out, err = ptlreid("prepare", "synthetic-b", option)
    assert code == 0, err
    assert expected in out


def render_market(folder, variant, settings, progress) -> None:
    """A few images in place of the thousands of a synthetic dataset."""
    write_market(folder)
    (folder / "synthetic.toml").write_text(settings.to_toml())
