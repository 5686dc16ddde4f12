"""The cores that a process may use, from faked files of Linux."""

from __future__ import annotations

import pytest
import torch

from ptlreid import cores
from ptlreid.devices import choose_workers


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 64 cores: makes its files from their texts."""
    monkeypatch.setattr(cores, "_MEMBERSHIPS", tmp_path / "proc")
    monkeypatch.setattr(cores, "_MOUNTED", tmp_path / "cgroup")
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(64)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)

    def make(memberships: str, **files: str) -> None:
        (tmp_path / "proc").write_text(memberships)
        for name, text in files.items():
            file = tmp_path / "cgroup" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    return make


V1 = "12:pids:/job\n4:cpu,cpuacct:/docker/3f\n1:name=systemd:/job\n"


@pytest.mark.parametrize(
    ("memberships", "files", "expected"),
    [
        ("0::/\n", {}, 64),
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 64),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "12800000 100000\n"}, 64),
        # The limit of a group holds for those inside it.
        ("0::/jobs/7\n", {"jobs/cpu.max": "600000 100000\n", "jobs/7/cpu.max": "max 100000\n"}, 6),
        ("0::/jobs/7\n", {"jobs/cpu.max": "600000 100000\n", "jobs/7/cpu.max": "300000 100000\n"}, 3),
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        # In a container the group is mounted at the top, though its path is that of the host.
        (V1, {"cpu/cpu.cfs_quota_us": "800000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        (V1, {"cpu/docker/3f/cpu.cfs_quota_us": "500000\n", "cpu/docker/3f/cpu.cfs_period_us": "50000\n"}, 10),
        (V1, {"job/cpu.max": "100000 100000\n"}, 64),  # of another controller
        ("no line\n", {"cpu.max": "damaged\n"}, 64),
    ],
)
def test_the_cores_are_those_of_the_quota_or_the_affinity(machine, memberships, files, expected):
    machine(memberships, **files)
    assert cores.available_cores() == expected


def test_without_linux_all_cores_count(monkeypatch, tmp_path):
    monkeypatch.setattr(cores, "_MEMBERSHIPS", tmp_path / "missing")
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 5)
    assert cores.available_cores() == 5


@pytest.mark.parametrize(
    ("quota", "processes", "expected"),
    [(64, None, 8), (6, None, 6), (16, "4", 4), (64, "4", 8), (6, "4", 1), (2, "4", 1)],
)
def test_processes_of_one_machine_share_its_cores_for_loading(machine, monkeypatch, quota, processes, expected):
    machine("0::/\n", **{"cpu.max": f"{quota}00000 100000"})
    if processes:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    assert choose_workers(None, torch.device("cuda", 0)) == expected
    assert choose_workers(None, torch.device("cpu")) == 0
    assert choose_workers(3, torch.device("cuda", 0)) == 3
