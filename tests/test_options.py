"""Options made from settings: nothing is declared twice, and a value is blamed on where it came from."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Annotated, Literal

import option_tables
import pytest
import typer
from pydantic import Field
from test_cli import TRAIN

from ptlreid.cli import COMMANDS, load_command, options
from ptlreid.cli.command import build_command
from ptlreid.settings import Settings
from ptlreid.settings.fields import COMMON, MACHINE, Option, find_kind

NAMES = [name for commands in COMMANDS.values() for name in commands]


class Walk(Settings):
    """Settings as a model declares them: one line each."""

    pace: Annotated[Literal["slow", "fast"], COMMON] = Field("slow", description="How to walk.")
    steps: Annotated[int, COMMON] = Field(7, ge=1, description="Steps.")
    rests: list[int] = Field([], description="Steps after which to rest.")
    dog: bool | None = Field(None, description="With the dog.")
    shoe: Annotated[float | None, Option(env="WALK_SHOE", default="yours")] = Field(
        None, gt=0, le=60, description="Size."
    )
    log: Annotated[bool, MACHINE] = Field(True, description="Write a log.")


@pytest.fixture
def walk(capsys):
    """Runs the command `walk`; returns (exit code, the settings or standard output, standard error)."""
    seen = []

    @options.from_settings(Walk, recipe=True)
    def walk(settings: Walk, *, json: options.Json = False) -> None:
        """Walk."""
        seen.append(settings)

    def run(*arguments):
        try:
            build_command("walk", walk)(list(arguments))
        except SystemExit as stop:
            out, err = capsys.readouterr()
            return stop.code, seen.pop() if seen else out, err

    return run


def test_what_is_not_given_is_the_models(walk):
    assert walk() == (0, Walk(), "")
    assert walk("--steps", "3", "--dog")[1] == Walk(steps=3, dog=True)
    assert walk("--no-dog", "--no-log")[1] == Walk(dog=False, log=False)


@pytest.mark.parametrize("typed", [("--rests", "2,5"), ("--rests", "2", "--rests", "5"), ("--rests=2,5",)])
def test_a_list_is_given_with_commas_or_by_repeating_its_option(walk, typed):
    assert walk(*typed)[1].rests == [2, 5]


def test_an_empty_text_is_an_empty_list(walk, tmp_path):
    (tmp_path / "walk.toml").write_text("rests = [3]\n")
    assert walk("--config", str(tmp_path / "walk.toml"))[1].rests == [3]
    assert walk("--config", str(tmp_path / "walk.toml"), "--rests", "")[1].rests == []


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (("--pace", "slo"), "error: --pace slo: expected 'slow' or 'fast'.\n"),
        (("--steps", "0"), "error: --steps 0: expected an integer ≥ 1.\n"),
        (("--shoe", "61"), "error: --shoe 61.0: expected a number in (0, 60].\n"),
        (("--rests", "2,x"), "error: --rests 2,x: expected a list of integers.\n"),
        (("--config", "walk.toml"), "error: walk.toml: steps = '7': expected an integer ≥ 1.\n"),
        (("--config", "walk.toml", "--steps", "-1"), "error: --steps -1: expected an integer ≥ 1.\n"),
        (("--recipe", "paper"), "error: recipe paper: Unknown setting 'epochs'."),
    ],
)
def test_a_value_is_blamed_on_where_it_came_from(walk, tmp_path, monkeypatch, typed, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "walk.toml").write_text('steps = "7"\n')
    code, _, err = walk(*typed)
    assert code == 1
    assert err.startswith(message)


def test_a_value_of_the_environment_is_blamed_on_it(walk, monkeypatch):
    monkeypatch.setenv("WALK_SHOE", "40")
    assert walk()[1].shoe == 40
    monkeypatch.setenv("WALK_SHOE", "-1")
    assert walk()[2] == "error: environment variable WALK_SHOE = -1.0: expected a number in (0, 60].\n"


def test_help_shows_values_ranges_and_defaults_and_help_all_the_rest(walk):
    code, common, _ = walk("--help")
    assert code == 0
    assert re.search(r"--pace \[slow\|fast\] +How to walk\. \[slow\]$", common, re.MULTILINE)
    assert re.search(r"--steps INT ≥ 1 +Steps\. \[7\]$", common, re.MULTILINE)
    assert "--rests" not in common
    every = walk("--help-all")[1]
    assert re.search(r"--rests INT,\.\.\. +Steps after which to rest\.$", every, re.MULTILINE)
    assert re.search(r"--\[no-\]dog +With the dog\.$", every, re.MULTILINE)
    assert re.search(r"--shoe FLOAT \(0, 60\] +Size\. \[yours; \$WALK_SHOE\]$", every, re.MULTILINE)
    assert re.search(r"--\[no-\]log +Write a log\. \[on\]$", every, re.MULTILINE)


def test_values_of_a_closed_set_are_completed():
    command = load_command("evaluate")
    (metric,) = (param for param in command.params if param.name == "metric")
    found = metric.shell_complete(command.make_context("evaluate", [], resilient_parsing=True), "eu")
    assert [item.value for item in found] == ["euclidean"]


@pytest.mark.parametrize("name", option_tables.SETTINGS)
def test_every_setting_of_a_command_is_an_option(name):
    model = option_tables.SETTINGS[name]
    flags = {flag for param in load_command(name).params for flag in param.opts}
    keys = {model.key(key) for key, field in model.model_fields.items() if find_kind(field)} - model.NO_OPTION
    assert {f"--{key.replace('_', '-')}" for key in keys} <= flags


@pytest.mark.parametrize("name", NAMES)
def test_help_fits_80_columns_and_starts_with_the_summary(ptlreid, name):
    code, out, _ = ptlreid(name, "--help")
    assert code == 0
    page, *_ = out.split("Examples:")
    assert max(map(len, page.splitlines())) <= 80
    assert "…" not in out
    summary = next(group[name] for group in COMMANDS.values() if name in group)
    assert " ".join(out.split("\n\n")[1].split()) == summary
    assert "--help-all" not in out or ptlreid(name, "--help-all")[0] == 0


@pytest.mark.parametrize("name", ["prepare", "finetune", "distill", "transfer-chain", "evaluate"])
def test_the_main_commands_show_examples_that_parse(ptlreid, name):
    examples = re.findall(r"^ +ptlreid (.+)$", ptlreid(name, "--help")[1].split("Examples:")[1], re.MULTILINE)
    assert examples
    for example in examples:
        word, *rest = example.split()
        load_command(word).make_context(word, rest)


def test_an_option_of_version_0_1_names_the_new_one(ptlreid):
    code, _, err = ptlreid("report", "run", "--places", 3)
    assert code == 2
    assert "--places was renamed in version 0.2: use --ranklist-size instead." in err


def test_a_gpu_can_be_named_by_its_number(ptlreid, market_folder):
    code, out, err = ptlreid(*TRAIN, "--device", "0", "--dry-run", "--json", "--root", market_folder.parent)
    settings = json.loads(out)["settings"] if code == 0 else {}
    assert settings.get("device", "cuda:0") == "cuda:0"
    assert code == 0 or "cuda:0" in err  # a machine without GPUs says so


def test_two_parameters_of_one_name_are_our_mistake():
    with pytest.raises(AssertionError, match="has a parameter with a setting's name"):

        @options.from_settings(Walk)
        def walk(settings: Walk, *, steps: Annotated[int, typer.Option()] = 3) -> None: ...


FOCAL = '''
"""Focal loss."""

from pydantic import BaseModel, Field


class Settings(BaseModel):
    focus: float = Field(2.0, ge=0, description="Exponent of the focal loss.")


def loss(output, labels, *, focus): ...
'''


def test_a_loss_with_a_setting_is_one_file(tmp_path):
    (tmp_path / "focal.py").write_text(FOCAL)
    added = "import sys\nfrom ptlreid import losses\nlosses.__path__.append(sys.argv.pop(1))\n"

    def run(*arguments, script="from ptlreid.cli import main\nmain()"):
        command = [sys.executable, "-c", added + script, str(tmp_path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    shown = " ".join(run("finetune", "--help-all").stdout.split())
    assert "--focus FLOAT ≥ 0 Exponent of the focal loss. Losses: focal. [2.0]" in shown
    assert "error: --focus -1.0: expected a number ≥ 0." in run("finetune", "--focus", "-1").stderr
    assert "focus is not a setting of the loss 'ce'" in run("finetune", "--focus", "1").stderr
    chosen = "from ptlreid.settings import FinetuneSettings as F\nprint(F.resolve(loss='focal', focus=1.5).focus)"
    assert run(script=chosen).stdout == "1.5\n"
