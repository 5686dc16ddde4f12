"""Too little memory, of the machine or of a GPU: one message with the options that help, and nothing lost."""

from __future__ import annotations

import errno
import subprocess
import sys

import numpy as np
import pytest
import torch
from test_cli import TRAIN

from ptlreid.engine import fit
from ptlreid.errors import is_out_of_memory

# As these libraries word them: torch 2.14, cuBLAS, cuDNN 9, HDF5, glibc.
CPU = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"
ERRORS = [
    MemoryError(),
    MemoryError("Caught MemoryError in DataLoader worker process 0."),
    np._core._exceptions._ArrayMemoryError((10**6, 10**6), np.dtype("float64")),
    RuntimeError(CPU),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has 79.11 GiB\nmore"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("std::bad_alloc"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
]
OTHERS = [
    RuntimeError("CUDA error: invalid device ordinal"),
    OSError(errno.ENOSPC, "No space left on device"),
    ValueError("out of memory"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__ + str(error)[:20])
def test_every_librarys_lack_of_memory_is_known(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", OTHERS, ids=repr)
def test_other_errors_are_not(error):
    assert not is_out_of_memory(error)


@pytest.mark.parametrize("error", [ERRORS[0], ERRORS[4]], ids=lambda error: type(error).__name__)
def test_training_ends_with_one_message_and_resumes_from_its_checkpoint(ptlreid, market_folder, monkeypatch, error):
    options = (*TRAIN, "--epochs", 2, "--checkpoint-minutes", 0, "--no-report", "--root", market_folder.parent)
    update, done = fit._update, []

    def fail_at_third(training, clip_grad):
        done.append(1)
        if len(done) == 3:
            raise error
        update(training, clip_grad)

    with monkeypatch.context() as patch:
        patch.setattr(fit, "_update", fail_at_third)
        code, out, err = ptlreid(*options)
    assert (code, out) == (1, "")
    (message,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert message.startswith("error: out of memory (")
    assert "a smaller --batch-size or more --accumulate" in message
    assert message.endswith("completed work is kept. --dry-run estimates what is needed.")
    assert "Traceback" not in err
    code, _, err = ptlreid(*options)  # two updates an epoch
    assert code == 0
    assert "resuming after epoch 1" in err


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        (("evaluate", "--query", "q.npz", "--gallery", "g.npz"), "a smaller --batch-size or a smaller --memory-budget"),
        (("models",), "Choose a machine with more memory, and"),
    ],
    ids=lambda words: words[0],
)
def test_the_message_names_the_options_of_the_command(ptlreid, monkeypatch, command, advice):
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("ptlreid.workflows.evaluate.evaluate_files", fail)
    monkeypatch.setattr("ptlreid.models.summary.summarize", fail)
    code, _, err = ptlreid(*command)
    assert code == 1
    assert err.startswith("error: out of memory (MemoryError): expected more free memory.")
    assert advice in err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc")
def test_a_process_that_may_not_have_more_memory_ends_with_one_message(market_folder, tmp_path):
    options = ["finetune", "--backbone", "mobilenet-v3-small", "--no-ptl", "--init", "none", "--device", "cpu"]
    options += ["--height", "1024", "--width", "512", "--batch-size", "16", "--epochs", "1"]
    options += ["--root", str(market_folder.parent), "--runs", str(tmp_path)]
    code = f"""
import resource, sys
from ptlreid.engine import training_run
from ptlreid.workflows import finetune
from ptlreid.cli import main
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
sys.argv = ["ptlreid", *{options!r}]
main()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "error: out of memory (" in result.stderr
    assert "--batch-size" in result.stderr
