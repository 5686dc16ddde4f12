"""Latent states over two processes, and how processes leave the group: gloo on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing as mp

from ptlreid import distributed
from ptlreid.distributed import all_reduce_mean
from ptlreid.models.bconv import BConvCell

RANKS, BATCH = 2, 3


def build_cell(memory: str) -> BConvCell:
    torch.manual_seed(0)
    return BConvCell(2, 4, memory=memory)


def batches() -> torch.Tensor:
    """Two batches for all ranks together: (2, RANKS * BATCH, 2, 5, 4)."""
    return torch.randn(2, RANKS * BATCH, 2, 5, 4, generator=torch.Generator().manual_seed(1))


def work(rank: int, memory: str, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    cell = build_cell(memory)
    for batch in batches():
        y = cell(batch[rank * BATCH : (rank + 1) * BATCH])
    torch.save({"state": cell.state, "y": y.detach()}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def run_two(memory: str, folder: Path) -> list[dict[str, torch.Tensor]]:
    mp.spawn(work, args=(memory, str(folder)), nprocs=RANKS)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


def run_one(memory: str) -> tuple[torch.Tensor, torch.Tensor]:
    """State and output of one process that gets all images."""
    cell = build_cell(memory)
    for batch in batches():
        y = cell(batch)
    return cell.state, y.detach()


@pytest.mark.parametrize("memory", ["mean", "slot"])
def test_two_processes_compute_what_one_does(tmp_path, memory):
    state, y = run_one(memory)
    ranks = run_two(memory, tmp_path)
    for rank, result in enumerate(ranks):
        mine = slice(rank * BATCH, (rank + 1) * BATCH)
        torch.testing.assert_close(result["y"], y[mine])
        # `mean`: one state for all processes. `slot`: a state for each image of the process.
        torch.testing.assert_close(result["state"], state if memory == "mean" else state[mine])
    same = torch.equal(ranks[0]["state"], ranks[1]["state"])
    assert same is (memory == "mean")


def test_on_one_process_the_mean_is_the_value_itself():
    value = torch.ones(2)
    assert all_reduce_mean(value) is value


@pytest.mark.parametrize(
    ("device", "processes", "gpu", "backend"),
    [
        ("cuda", "2", "cuda:1", "cuda:nccl,cpu:gloo"),
        ("auto", "2", "cuda:1", "cuda:nccl,cpu:gloo"),
        ("cuda:0", "2", "cuda:0", "gloo"),  # NCCL ends with "Duplicate GPU detected"
        ("cuda:0", "1", "cuda:0", "cuda:nccl,cpu:gloo"),  # one process on each of several machines
    ],
)
def test_processes_that_share_a_named_gpu_exchange_by_gloo(monkeypatch, device, processes, gpu, backend):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    joined = []
    monkeypatch.setattr(torch, "empty", lambda *_, device: SimpleNamespace(device=torch.device(device)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: joined.append(str(device)))
    monkeypatch.setattr(dist, "init_process_group", lambda backend, timeout: joined.append(backend))
    distributed._join(device)
    assert joined == [gpu, backend]


# Two processes by a fork that train one step and print the names of the threads that are left. A fresh interpreter,
# since what holds the group is imported by torch.optim only once.
LEFT_THREADS = """
import gc, os, sys
from pathlib import Path
import torch
gc.disable()
child = os.fork()
os.environ["RANK"] = "1" if child else "0"
from ptlreid import distributed
from ptlreid.errors import Stopped

def train():
    network = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    wrapped = torch.nn.parallel.DistributedDataParallel(network)
    wrapped(torch.ones(1, 1)).sum().backward()
    cycle = [wrapped]
    cycle.append(cycle)  # as torch.compile makes one
    distributed.any_process([True])
    if sys.argv[1] == "stopped":
        raise Stopped("", 143)

try:
    with distributed.process_group("cpu"):
        train()
except Stopped as error:
    stop = error  # kept, with its traceback
left = [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
left = [name for name in left if name.startswith(("gloo", "pt_gloo"))]
os.write(1, f"{sys.argv[1]}, left: {left}\\n".encode())  # at once: two processes write here
if child:
    os.waitpid(child, 0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the names of threads from /proc")
@pytest.mark.parametrize("end", ["finished", "stopped"])
@pytest.mark.slow
def test_no_thread_of_the_process_group_outlives_it(end):
    # One that does may abort the process at its exit, after all work is done: see `distributed._leave`.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-c", LEFT_THREADS, end]
    output = subprocess.run(command, env=os.environ | places, capture_output=True, text=True, timeout=300, check=True)
    assert output.stdout == f"{end}, left: []\n" * 2, output.stderr
