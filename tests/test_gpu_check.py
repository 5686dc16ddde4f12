"""The GPU check runs in its small form on a CPU: it has to work the first time on a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

GPU = Path(__file__).parent / "gpu"


def run_check(out: Path, *options: str) -> tuple[int, dict[str, dict]]:
    """The exit code and the results by step."""
    command = [sys.executable, str(GPU / "check.py"), "--small", "--device", "cpu", "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    results = json.loads((out / "check.json").read_text(encoding="utf-8"))
    assert results["passed"] is (done.returncode == 0), done.stderr
    return done.returncode, {step["name"]: step for step in results["steps"]}


def states(steps: dict[str, dict]) -> dict[str, str]:
    return {name: f"{step['state']} {step['reason']}" for name, step in steps.items() if step["state"] != "passed"}


def test_steps_of_one_process_pass_on_a_cpu(tmp_path):
    names = ["machine", "features", "losses", "precision", "resnet50", "densenet161", "resume", "extraction"]
    code, steps = run_check(tmp_path, "--only", ",".join(names))
    assert states(steps) == {"densenet161": "skipped with tiny networks the same as resnet50"}
    assert code == 0
    assert list(steps) == names
    assert steps["precision"]["reason"] == "without tf32, bf16, fp16: they need another device"
    rows = [(row["network"], row["variant"]) for row in steps["resnet50"]["rows"]]
    variants = ("plain loop", "fp32", "fp32 + channels_last", "bare loop, fp32 + channels_last")
    assert rows == [(name, variant) for name in ("tiny", "tiny+PTL") for variant in variants]
    assert all(row["images_per_second"] > 0 and row["of_plain_loop"] > 0 for row in steps["resnet50"]["rows"])
    assert [row["source"] for row in steps["extraction"]["rows"]] == ["files", "pack"]
    page = (tmp_path / "check.md").read_text(encoding="utf-8")
    assert page.startswith("# GPU check: passed\n")
    assert "| tiny+PTL | plain loop | 4 |" in page


@pytest.mark.slow
def test_steps_of_several_processes_and_compiled_ones_pass_on_a_cpu(tmp_path):
    code, steps = run_check(tmp_path, "--only", "two-processes,out-of-memory,compile,resnet50-compiled")
    assert states(steps) == {}
    assert code == 0
    (row,) = steps["out-of-memory"]["rows"]
    assert row["message"].startswith("error: out of memory (")


def test_no_step_begins_when_the_time_is_used_up(tmp_path):
    code, steps = run_check(tmp_path, "--only", "machine,features", "--limit", "1")
    assert code == 1  # nothing is known to be right
    reason = "skipped the 1 seconds of --limit are used up"
    assert states(steps) == {"machine": reason, "features": reason}


@pytest.fixture
def modules(monkeypatch):
    """The check's own modules, importable in this process."""
    monkeypatch.syspath_prepend(str(GPU))
    yield
    for path in GPU.glob("*.py"):
        sys.modules.pop(path.stem, None)


class Process:
    """A step's process that does not end, or ended with this exit code."""

    def __init__(self, exitcode: int | None) -> None:
        self.exitcode = exitcode

    def join(self, seconds: float | None = None) -> None:
        pass


@pytest.mark.parametrize(
    ("exitcode", "ended"),
    [(0, ""), (1, "exit code 1"), (-11, "ended by signal 11"), (None, "not finished after 7 seconds")],
)
def test_a_step_that_does_not_end_well_says_how(modules, monkeypatch, exitcode, ended):
    import steps

    stopped = []
    monkeypatch.setattr(steps, "end", stopped.append)
    assert steps.wait(Process(exitcode), 7) == ended
    assert len(stopped) == (exitcode is None)


def test_a_check_fails_beyond_its_bound_and_for_a_number_that_is_none(modules, tmp_path):
    from record import Record

    record = Record(tmp_path / "found.json")
    record.check("at its bound", 0.5, at_most=0.5)
    record.check("above", 0.6, at_most=0.5)
    record.check("below", 9.0, at_least=10)
    record.check("no number", float("nan"), at_most=0.5)
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert [check["passed"] for check in found["checks"]] == [True, False, False, False]
    assert found["checks"][3]["value"] == "nan"


def test_packages_that_are_missing_come_from_wheels(modules, tmp_path, monkeypatch):
    import wheels

    setup = "[options]\ninstall_requires =\n    numpy>=2.0\n    no.Such_package>=1.0\n"
    (tmp_path / "setup.cfg").write_text(setup, encoding="utf-8")
    monkeypatch.setattr(wheels, "ROOT", tmp_path)
    assert wheels.missing() == ["no.Such_package"]
    write_wheel(tmp_path / "wheels")
    assert wheels.install(wheels.missing(), tmp_path / "wheels", tmp_path / "packages") == {}
    assert (tmp_path / "packages" / "no_such_package.py").is_file()
    (tmp_path / "empty").mkdir()
    failed = wheels.install(wheels.missing(), tmp_path / "empty", tmp_path / "other")
    assert "No matching distribution found" in failed["no.Such_package"]


def write_wheel(folder: Path) -> None:
    """The wheel of a package that is one empty module."""
    folder.mkdir()
    info = "no_such_package-1.0.dist-info"
    with zipfile.ZipFile(folder / "no_such_package-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("no_such_package.py", "")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: no-such-package\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
