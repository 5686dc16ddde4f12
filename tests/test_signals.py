"""Ctrl-C, SIGTERM and SIGHUP at any time of a command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from ptlreid import signals
from ptlreid.engine.interrupts import Interrupts


def start(*command: str, **how) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)


def start_import(body: str, tmp_path) -> subprocess.Popen[str]:
    """A process of the command line that imports, in place of typer, a module with this body, and waits there."""
    (tmp_path / "typer.py").write_text("print('importing', flush=True)\n" + textwrap.dedent(body))
    path = os.pathsep.join([str(tmp_path), *sys.path])
    process = start(sys.executable, "-m", "ptlreid", env=os.environ | {"PYTHONPATH": path})
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    return process


@pytest.mark.parametrize("number", signals.STOPPING)
def test_a_signal_during_an_import_ends_the_command_quietly(tmp_path, number, heeded):
    swallow = """
        import time
        while True:
            try:
                time.sleep(60)
            except BaseException as error:
                raise ImportError("as C extensions do") from error
    """
    process = start_import(swallow, tmp_path)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (128 + number, "", "")


def test_torch_being_imported_by_a_command_is_no_exception(heeded):
    """The whole way, at several instants of a command that imports torch."""
    for delay in (0.0, 0.3, 0.8):
        process = start(sys.executable, "-X", "importtime", "-m", "ptlreid", "models", "--json")
        assert process.stderr is not None
        while " torch" not in (line := process.stderr.readline()):
            assert line
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 130
        assert "Traceback" not in err


def test_what_is_ignored_stays_ignored(tmp_path, heeded):
    """As SIGHUP is under `nohup`."""
    body = """
        import os, signal
        os.kill(os.getpid(), signal.SIGHUP)
        raise SystemExit(0)
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    process = start_import(body, tmp_path)
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 0


def test_outside_of_imports_it_is_an_exception_with_its_number(heeded):
    for number in signals.STOPPING:
        with signals.interruptible(), pytest.raises(KeyboardInterrupt) as stop:
            signal.raise_signal(number)
        assert stop.value.args == (number,)
        assert signal.getsignal(number) is signal.default_int_handler


def test_during_an_update_the_first_is_recorded(heeded):
    for number in signals.STOPPING:
        with Interrupts() as interrupts:
            signal.raise_signal(number)
            assert interrupts.received == number


def test_during_an_update_an_ignored_one_is_not_recorded(heeded):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGHUP)
        assert interrupts.received is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
