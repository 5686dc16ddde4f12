"""Names of runs, chains and datasets: a name never leads out of the folder that it belongs to."""

from __future__ import annotations

import re

import pytest
from test_cli import TRAIN

import ptlreid as api
from ptlreid.cli.distill import _folders
from ptlreid.errors import OptionError
from ptlreid.names import check_name
from ptlreid.runs import name_run
from ptlreid.settings import ChainSettings, DistillSettings, FinetuneSettings, OwnImagesSettings
from ptlreid.transfer.chain_folder import ChainFolder

OUTSIDE = ["../x", "/tmp/x", "a/b", "a\\b", "..", ".", "", ".hidden", "-x", "x ", " x", "a\nb", "\x1b[2J", "a\0b"]
OUTSIDE += ["x" * 151, "é" * 76, "\udcff", "C:x"]


@pytest.mark.parametrize("name", OUTSIDE, ids=ascii)
@pytest.mark.parametrize("kind", ["run", "chain", "dataset"])
def test_what_is_not_one_visible_folder_is_no_name(name, kind):
    with pytest.raises(OptionError, match=f"expected a name for the folder of the {kind}. Choose another --name"):
        check_name(name, kind)


@pytest.mark.parametrize("name", ["a", "market-resnet50-ptl-s0", "a+b", "λ = 0.3", "x..y", "x" * 150, "Müller (2)"])
def test_any_other_name_is_one(name):
    assert check_name(name, "run") == check_name(name, "chain") == name


def test_a_run_has_no_name_of_a_chain_and_a_dataset_no_plus():
    assert check_name("chain-x", "chain") == "chain-x"
    with pytest.raises(OptionError, match="'chain-x' begins with chain-, as the folders of chains do"):
        check_name("chain-x", "run")
    with pytest.raises(OptionError, match=r"'a\+b' has other characters than A-Z, a-z, 0-9"):
        check_name("a+b", "dataset")


@pytest.mark.parametrize(
    "command",
    [
        (*TRAIN, "--data", "market"),
        ("transfer-chain", "market", "--backbone", "tiny"),
        ("prepare", "folder", "--source", "."),
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("name", ["../../x", "", ".."], ids=ascii)
def test_every_command_refuses_it_with_one_message_and_writes_nothing(ptlreid, market_folder, tmp_path, command, name):
    before = sorted(market_folder.parent.iterdir())
    code, out, err = ptlreid(*command, f"--name={name}", "--root", market_folder.parent)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: The name {name!r} ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    assert sorted(market_folder.parent.iterdir()) == before


def test_a_name_in_toml_is_checked_as_well(tmp_path):
    (tmp_path / "own.toml").write_text('name = "../lobby"\n')
    with pytest.raises(OptionError, match=re.escape("The name '../lobby' has a slash, backslash or colon")):
        OwnImagesSettings.resolve(tmp_path / "own.toml")


def test_the_runs_of_a_sweep_and_default_names_are_checked(tmp_path):
    student = DistillSettings.resolve(None, lambda_=0.3)
    assert [run.path for run in _folders(tmp_path, "student", [student], "0.3", None)] == [tmp_path / "student-0.3"]
    for name in ("", ".."):
        with pytest.raises(OptionError, match=r"is empty|begins with a dot"):
            _folders(tmp_path, name, [student], "0.3", None)
    with pytest.raises(OptionError, match=r"'\.\.-resnet50-ptl-s0' begins with a dot"):
        name_run(tmp_path, None, FinetuneSettings(data=".."))
    chain = ChainSettings.resolve(None, chain=["market", "x" * 140])
    with pytest.raises(OptionError, match="is longer than 150 bytes"):
        ChainFolder.named(tmp_path, None, chain)


def test_the_default_name_of_the_current_folder_is_the_folders(tmp_path, monkeypatch):
    (tmp_path / "crops").mkdir()
    monkeypatch.chdir(tmp_path / "crops")
    assert FinetuneSettings(data=".").default_name == "crops-resnet50-ptl-s0"


def test_the_python_interface_refuses_it_as_well(market_folder, tmp_path):
    places = {"root": str(market_folder.parent), "runs": tmp_path / "runs"}
    with pytest.raises(OptionError, match=r"The name '\.\./x' has a slash"):
        api.finetune("market", name="../x", **places)
    with pytest.raises(OptionError, match=r"The name '\.\./x' has a slash"):
        api.transfer_chain("market", name="../x", **places)
    with pytest.raises(OptionError, match=r"The name '\.\./x' has a slash"):
        api.prepare_dataset("folder", market_folder, name="../x")
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_is_not_utf8_is_refused_where_it_could_not_be_recorded(tmp_path, ptlreid, market_folder):
    odd = tmp_path / "odd\udcff"
    with pytest.raises(OptionError, match=r"expected a path in UTF-8\. Rename that folder"):
        name_run(odd, None, FinetuneSettings())
    code, _, err = ptlreid(*TRAIN, "--root", odd)
    assert (code, err) == (
        1,
        f"error: --root {tmp_path}/odd\\udcff: expected text in UTF-8. Rename that file or folder.\n",
    )
