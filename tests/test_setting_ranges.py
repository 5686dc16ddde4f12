"""Every setting has a range, and whatever a file or an option says is a value in it or one message."""

from __future__ import annotations

import math
import os

import option_tables
import pytest
from damage import damage_examples, damaged, within_seconds
from hypothesis import given
from hypothesis import strategies as st

from ptlreid.cli import COMMANDS, load_command
from ptlreid.errors import OptionError
from ptlreid.settings import (
    ChainSettings,
    DistillSettings,
    EvaluateSettings,
    FinetuneSettings,
    OwnImagesSettings,
    PackSettings,
    SyntheticSettings,
)
from ptlreid.settings.fields import find_kind

MODELS = {model.__name__: model for model in (*option_tables.SETTINGS.values(), OwnImagesSettings)}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_every_number_has_a_lowest_and_a_highest_value(model):
    kinds = {name: find_kind(field) for name, field in model.model_fields.items()}
    numbers = {name: kind for name, kind in kinds.items() if kind and kind.type in (int, float)}
    assert [name for name, kind in numbers.items() if kind.low is None or kind.high is None] == []


def test_a_negative_zero_is_zero():
    assert math.copysign(1, DistillSettings.resolve(None, lambda_=-0.0).lambda_) == 1
    assert DistillSettings.resolve(None, teacher="x", lambda_=-0.0).default_name.endswith("-std0-s0")


@pytest.mark.parametrize(
    ("model", "text", "message"),
    [
        (FinetuneSettings, "lr = inf", r"lr = inf: expected a number in \(0, 1000\]\."),
        (FinetuneSettings, "lr = nan", r"lr = nan: expected a number in \(0, 1000\]\."),
        (FinetuneSettings, "flip = -inf", r"flip = -inf: expected a number in \[0, 1\]\."),
        (FinetuneSettings, f"lr = 1{'0' * 400}", r"lr = 10+…: expected a number in"),
        (FinetuneSettings, f"epochs = 1{'0' * 400}", r"epochs = 10+…: expected an integer in \[0, 1000000\]\."),
        (FinetuneSettings, f"epochs = 0x{'f' * 9999}", "epochs = a very long int: expected an integer in"),
        (FinetuneSettings, f"epochs = {'9' * 9999}", r"not TOML \(Exceeds the limit"),
        (FinetuneSettings, f"epochs = {'[' * 5000}{']' * 5000}", r"not TOML \(nested too deeply\)"),
        (FinetuneSettings, f"epochs{'.a' * 5000} = 1", "epochs = a very long dict: expected an integer"),
        (FinetuneSettings, f"{'e' * 5000} = 1", "Unknown setting 'e{59}…'"),
        (FinetuneSettings, "decay_at = [-1]", r"decay_at = \[-1\]: expected a list of integers in \[0, 1000000\]\."),
        (FinetuneSettings, "seed = 4294967296", r"seed = 4294967296: expected an integer in \[0, 4294967295\]\."),
        (FinetuneSettings, 'data = "a\\u0000b"', "expected printable text"),
        (FinetuneSettings, f'init = "{"é" * 128}"', "names of files of at most 255 bytes"),
        (FinetuneSettings, f'init = "{"a/" * 3000}"', "init = .*…: expected text"),
        (FinetuneSettings, "loss = []", r"loss = \[\]: expected 'ce', "),
        (PackSettings, "height = 10000", r"height = 10000: expected an integer in \[1, 2048\]\."),
        (SyntheticSettings, "identities = 1000000000", r"expected an integer in \[4, 100000\]\."),
        (
            SyntheticSettings,
            "identities = 100000\ncameras = 1000",
            r"are 300,000,000 images: expected at most 1,000,000",
        ),
        (EvaluateSettings, f'memory_budget = "{"9" * 200}GB"', "expected a number and a unit"),
        (EvaluateSettings, 'memory_budget = "0GB"', "expected a number and a unit"),
        (ChainSettings, "stage = 3", "stage = 3"),
        (ChainSettings, '[[stage]]\ndata = "market"\norigins = 3', "Stage 1: Unknown setting 'origins'"),
        (ChainSettings, '[[stage]]\ndata = "market"\nrecipe = 3', "Stage 1: recipe = 3: expected the name of a recipe"),
    ],
    ids=range(24),
)
def test_a_value_that_no_program_can_use_is_refused_before_work_begins(tmp_path, model, text, message):
    file = tmp_path / "some.toml"
    file.write_text(text)
    with pytest.raises(OptionError, match=message) as error:
        model.resolve(file)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 1000


def test_a_file_that_is_no_toml_is_said_to_be_what_it_is(tmp_path):
    file = tmp_path / "some.toml"
    for content, message in (
        (b"<html>", r"not TOML \(an HTML page"),
        (b"\x89PNG\r\n\x1a\n\xff", r"not TOML \(a PNG image\)"),
        (b"#" * (1 << 21), "expected a TOML file of at most 1 MB"),
    ):
        file.write_bytes(content)
        with pytest.raises(OptionError, match=message):
            FinetuneSettings.resolve(file)
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer
    with pytest.raises(OptionError, match="a pipe or device, expected a TOML file"):
        FinetuneSettings.resolve(tmp_path / "pipe")


WILD = st.one_of(
    st.sampled_from([math.inf, -math.inf, math.nan, -0.0, 10**400, -1, 2**63, 1e308, True, [], {}, "", [[1]], [0, -1]]),
    st.sampled_from([{"a": {"b": 1}}, ["x"] * 9, "a\0b", "../..", "x" * 5000, "\ud800", "cuda:99999999999999999999"]),
    st.integers(),
    st.floats(),
    st.text(max_size=9),
)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@damage_examples()
@given(st.data())
def test_any_value_of_any_setting_is_taken_or_one_message(model, data):
    names = sorted(set(model.model_fields) - {"stage"})
    values = data.draw(st.dictionaries(st.sampled_from(names), WILD, min_size=1, max_size=2))
    chain = {"stage": [{"data": "market"}]} if model is ChainSettings else {}
    try:
        settings = model.resolve(None, **values, **chain)
    except OptionError as error:
        assert str(error).isprintable()
        assert len(str(error)) < 1000
    else:
        settings.to_toml()


@damage_examples()
@given(st.data())
def test_a_damaged_file_is_read_or_one_message(tmp_path, data):
    chain = {"lr": 0.001, "stage": [{"data": "market"}, {"data": "duke", "recipe": "small", "decay_at": [3]}]}
    content = ChainSettings.resolve(None, **chain).to_toml()
    file = tmp_path / "some.toml"
    file.write_bytes(data.draw(damaged(content.encode())))
    for read in (ChainSettings.resolve, ChainSettings.load):
        try:
            with within_seconds():
                read(file)
        except OptionError as error:
            assert str(error).isprintable()


WITH_DEVICE = [
    name
    for commands in COMMANDS.values()
    for name in commands
    if any(param.name == "device" for param in load_command(name).params)
]


@pytest.mark.parametrize("device", ["cuda:63", "63", "xla", "meta", "cuda:99999999999999999999", "no device"])
@pytest.mark.parametrize("name", WITH_DEVICE)
def test_a_device_that_is_not_there_is_one_message_before_any_work(ptlreid, name, device):
    arguments = [param.name for param in load_command(name).params if param.param_type_name == "argument"]
    code, out, err = ptlreid(name, *arguments, "--device", device)
    assert (code, out, err.count("\n")) == (1, "", 1)
    shown = f"cuda:{device}" if device.isdecimal() else device
    assert err.startswith(f"error: --device {shown} is not available on this machine (")
