"""What a run was trained with: the machine, its versions, the source's commit, and sessions that differ."""

from __future__ import annotations

import json
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
import torch

from ptlreid import environment
from ptlreid.environment import begin_session, count_update, describe_environment, describe_machine, summarize
from ptlreid.json_files import check_schema
from ptlreid.schemas import Metrics

CPU = torch.device("cpu")
KEYS = {
    *("device", "device_name", "precision", "tf32", "torch", "cuda", "cudnn", "processes", "images_per_update"),
    *("seconds", "images_per_second", "version", "commit"),
}


def begin(sessions, facts, updates=0):
    begin_session(sessions, facts, updates=updates)


def make_facts(**changed):
    facts = describe_machine(CPU, amp="off", images_per_update=32)
    return facts | changed


def test_the_environment_has_the_keys_of_the_documentation():
    sessions = []
    begin(sessions, make_facts())
    count_update(sessions, 1.0)
    assert summarize(sessions, amp="off").keys() == KEYS


def test_a_cpu_is_named_and_has_no_versions_of_cuda():
    facts = describe_machine(CPU, amp="off", images_per_update=32)
    assert (facts["device"], facts["cuda"], facts["cudnn"]) == ("cpu", None, None)
    assert facts["device_name"] and facts["torch"] == torch.__version__
    assert facts["precision"] == {"training": "float32", "extraction": "float32"} and not facts["tf32"]


def test_a_gpu_is_named_with_its_versions(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    facts = describe_machine(torch.device("cuda:1"), amp="tf32", images_per_update=32)
    assert (facts["device"], facts["device_name"]) == ("cuda:1", "GPU 1")
    assert (facts["cuda"], facts["cudnn"], facts["tf32"]) == ("13.0", "9.10.2", True)
    assert facts["precision"]["training"] == "tf32"


def test_seconds_and_speed_are_of_all_updates():
    sessions = []
    for _ in range(2):  # stopped and resumed
        begin(sessions, make_facts(images_per_update=32))
        count_update(sessions, 2.0)
        count_update(sessions, 6.0)
    found = summarize(sessions, amp="off")
    assert (found["seconds"], found["images_per_second"]) == (16, 4 * 32 / 16)
    assert "sessions" not in found


def test_a_run_without_updates_has_no_speed():
    sessions = []
    begin(sessions, make_facts())
    found = summarize(sessions, amp="off")
    assert (found["seconds"], found["images_per_second"]) == (0, None)


@pytest.mark.parametrize(
    "changed",
    [
        {"device_name": "GPU"},
        {"precision": {"training": "bf16", "extraction": "float32"}},
        {"torch": "2.7.0"},
        {"processes": 2},
        {"commit": "0" * 40},
    ],
    ids=str,
)
def test_a_session_under_other_conditions_is_listed(changed):
    sessions = []
    begin(sessions, make_facts(**changed))
    count_update(sessions, 1.0)
    begin(sessions, make_facts())
    count_update(sessions, 3.0)
    found = summarize(sessions, amp="off")
    first, last = found["sessions"]
    assert {key: first[key] for key in changed} == changed
    assert (first["seconds"], last["seconds"], found["seconds"]) == (1, 3, 4)
    assert {key: found[key] for key in changed} == {key: make_facts()[key] for key in changed}


def test_a_session_without_an_update_is_not_listed():
    sessions = []
    begin(sessions, make_facts(torch="2.7.0"))
    count_update(sessions, 1.0)
    begin(sessions, make_facts())  # only evaluates
    found = summarize(sessions, amp="off")
    assert found["torch"] == "2.7.0" and "sessions" not in found


def test_the_precision_of_extraction_is_that_of_the_scores():
    sessions = []
    begin(sessions, make_facts())
    count_update(sessions, 1.0)
    assert summarize(sessions, amp="fp16")["precision"] == {"training": "float32", "extraction": "fp16"}


def test_an_environment_is_one_line_and_names_what_differs():
    facts = make_facts(device_name="H200", torch="2.14.1", cuda="13.0", cudnn="9.10.2", version="0.2.0", commit=None)
    facts["precision"] = {"training": "bf16", "extraction": "float32"}
    sessions = []
    for changed in ({}, {"processes": 4, "torch": "2.15.0"}):
        begin(sessions, facts | changed)
        count_update(sessions, 1.0)
    assert describe_environment({"environment": summarize(sessions[:1], amp="off")}) == (
        "H200, bf16, torch 2.14.1, CUDA 13.0, cuDNN 9.10.2, ptlreid 0.2.0"
    )
    assert describe_environment({"environment": summarize(sessions, amp="tf32")}) == (
        "H200, bf16 (features tf32), torch 2.14.1, CUDA 13.0, cuDNN 9.10.2, ptlreid 0.2.0; resumed on "
        "H200, bf16 (features tf32), 4 processes, torch 2.15.0, CUDA 13.0, cuDNN 9.10.2, ptlreid 0.2.0"
    )


def test_updates_by_version_0_1_are_listed_as_unknown():
    sessions = []  # as its checkpoints have none
    begin(sessions, make_facts(images_per_update=32), updates=7)
    count_update(sessions, 1.0)
    found = summarize(sessions, amp="off")
    first, last = found["sessions"]
    assert (first["device"], first["precision"]["training"], first["tf32"]) == ("unknown", "unknown", None)
    assert (first["version"], first["seconds"], last["seconds"]) == ("0.1", None, 1)
    assert (found["seconds"], found["images_per_second"]) == (None, None)  # of all updates
    assert describe_environment({"environment": found}).startswith("not recorded (version 0.1); resumed on ")
    check_schema({"epochs": 1, "environment": found}, Metrics, "", "")
    begin(sessions, make_facts(images_per_update=32), updates=8)  # the last part is continued
    assert [session["updates"] for session in sessions] == [7, 1]


def test_a_run_of_version_0_1_says_that_nothing_was_recorded():
    assert describe_environment({"epochs": 50}) == "not recorded (version 0.1)"
    assert describe_environment(None) == "not recorded"


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A package in a checkout, next to a file of something else."""
    package = tmp_path / "checkout" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    git(package.parent, "init", "--quiet")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "--quiet", "-m", "first")
    return package


def test_the_commit_is_that_of_the_checkout(checkout, monkeypatch):
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as in a hook of another repository
    monkeypatch.delenv("GIT_DIR")
    expected = git(checkout, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert environment._commit_of_checkout(checkout) == expected


@pytest.mark.parametrize("name", ["__init__.py", "new.py"])
def test_a_changed_or_new_file_of_the_package_makes_the_commit_dirty(checkout, name):
    (checkout / name).write_text("changed")
    assert environment._commit_of_checkout(checkout) == git(checkout, "rev-parse", "HEAD") + "-dirty"


def test_a_changed_file_outside_the_package_does_not(checkout):
    (checkout.parent / "notes.txt").write_text("new")
    assert environment._commit_of_checkout(checkout) == git(checkout, "rev-parse", "HEAD")


def test_an_ignored_environment_in_another_checkout_has_no_commit(checkout):
    installed = checkout.parent / "venv" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    (checkout.parent / ".gitignore").write_text("venv\n")
    assert environment._commit_of_checkout(installed) is None


def test_without_git_the_commit_is_unknown(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert environment._commit_of_checkout(checkout) is None


@pytest.mark.parametrize(
    ("direct_url", "expected"),
    [
        ({"url": "https://example.org/a.git", "vcs_info": {"vcs": "git", "commit_id": "c" * 40}}, "c" * 40),
        ({"url": "file:///a", "dir_info": {"editable": True}}, None),
        (None, None),
    ],
    ids=["from git", "from a folder", "from an index"],
)
def test_the_commit_of_an_installation_is_that_of_its_direct_url(tmp_path, monkeypatch, direct_url, expected):
    info = tmp_path / "ptlreid-0.2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: ptlreid\nVersion: 0.2.0\n")
    if direct_url:
        (info / "direct_url.json").write_text(json.dumps(direct_url))
    monkeypatch.setattr(metadata, "distribution", lambda name: metadata.PathDistribution(info))
    assert environment._commit_of_installation(tmp_path / "ptlreid") == expected
    assert environment._commit_of_installation(tmp_path / "other") is None  # another copy of the package
