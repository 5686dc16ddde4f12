"""The options of `ptlreid finetune`, as a user meets them."""

from __future__ import annotations

import json
import re

import pytest
from test_architecture import loaded_by
from test_cli import TRAIN


def settings(ptlreid, *arguments):
    code, out, err = ptlreid("finetune", *arguments, "--dry-run", "--json")
    assert code == 0, err
    return json.loads(out)["settings"]


def test_a_recipe_fills_in_and_options_override_it(ptlreid, market_folder):
    root = ("--root", market_folder.parent)
    small = ("--backbone", "tiny", "--height", 64, "--width", 32, "--batch-size", 8)
    found = settings(ptlreid, "--recipe", "mgn", *small, "--lr", 0.5, *root)
    assert (found["backbone"], found["batch_size"], found["lr"]) == ("tiny", 8, 0.5)
    assert (found["loss"], found["margin"], found["images_per_identity"]) == ("ce+triplet", 1.2, 4)


def test_a_config_file_overrides_the_recipe(ptlreid, market_folder, tmp_path):
    (tmp_path / "mine.toml").write_text('backbone = "tiny"\nheight = 64\nwidth = 32\nlr = 0.25\nbatch_size = 8\n')
    found = settings(ptlreid, "--recipe", "small", "--config", "mine.toml", "--root", market_folder.parent)
    assert (found["backbone"], found["lr"], found["optimizer"]) == ("tiny", 0.25, "adamw")


def test_resume_wants_something_to_resume(ptlreid, market_folder):
    root = ("--root", market_folder.parent)
    code, out, err = ptlreid(*TRAIN, "--epochs", 1, "--resume", *root)
    assert (code, out) == (1, "")
    assert "market-tiny-ptl-s0 has no checkpoint to --resume. Leave --resume out to start" in err
    first = ptlreid(*TRAIN, "--epochs", 1, "--json", *root)
    assert first[0] == 0, first[2]
    again = ptlreid(*TRAIN, "--epochs", 1, "--json", "--resume", *root)
    assert (again[0], json.loads(again[1])) == (0, json.loads(first[1]))


def test_a_run_with_a_recipe_trains(ptlreid, market_folder):
    tiny = ("--backbone", "tiny", "--init", "none", "--height", 64, "--width", 32, "--batch-size", 8)
    code, out, err = ptlreid("finetune", "--recipe", "mgn", *tiny, "--epochs", 1, "--root", market_folder.parent)
    assert code == 0, err
    assert "market-tiny-ptl-s0" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--recipe", "papr"), "Unknown recipe 'papr'. Did you mean 'paper'?"),
        (("--config", "mine.toml"), "mine.toml: loss = 'tripled': no such loss. Did you mean 'triplet'?"),
        (("--recipe", "mgn", "--batch-size", 6), "compares images within a batch"),
        (("--amp", "half"), "--amp half: expected 'auto', 'off', 'tf32', 'bf16' or 'fp16'."),
    ],
)
def test_a_mistake_is_one_clear_message(ptlreid, tmp_path, arguments, message):
    (tmp_path / "mine.toml").write_text('loss = "tripled"\n')
    code, out, err = ptlreid("finetune", *arguments)
    assert (code, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1


def test_help_shows_the_common_options_and_the_others_work(ptlreid, market_folder):
    code, out, _ = ptlreid("finetune", "--help")
    assert code == 0
    shown = set(re.findall(r"^  (--\S+)", out, re.MULTILINE))
    assert len(shown) <= 25
    assert shown >= {"--data", "--backbone", "--[no-]ptl", "--recipe", "--lr", "--amp", "--resume", "--dry-run"}
    tiny = ("--backbone", "tiny", "--height", 64, "--width", 32, "--batch-size", 8)
    found = settings(ptlreid, *tiny, "--optimizer", "adam", "--workers", 1, "--root", market_folder.parent)
    assert (found["optimizer"], found["workers"], found["height"]) == ("adam", 1, 64)


@pytest.mark.parametrize("words", ["'recipes'", "'recipes', 'mgn'", "'finetune', '--recipe', 'papr'"])
def test_recipes_need_no_torch(words):
    assert "torch" not in loaded_by(f"sys.argv += [{words}]; from ptlreid.cli import main; main()")
