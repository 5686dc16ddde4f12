"""What a run was trained with and on: device, precision, versions, processes, time. Kept in checkpoint and metrics."""

from __future__ import annotations

import functools
import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ptlreid
from ptlreid import distributed
from ptlreid.schemas import ArithmeticName, Environment, Facts, Metrics, Precisions, Session, SessionSpeed

if TYPE_CHECKING:
    import torch

# The arithmetic that a choice of `amp` stands for.
PRECISIONS: Mapping[str, ArithmeticName] = {"off": "float32", "tf32": "tf32", "bf16": "bf16", "fp16": "fp16"}

_PACKAGE = Path(__file__).parent
_GIT_SECONDS = 2.0  # for each of two commands; without an answer the commit is unknown
_UNKNOWN = "unknown"  # the device and the versions of updates by version 0.1, which recorded nothing
_NOT_RECORDED = "not recorded"


def describe_machine(device: torch.device, *, amp: str, images_per_update: int) -> Facts:
    """What the updates of this process are computed with. `amp`: the precision in effect, not `auto`."""
    import torch

    on_cuda = device.type == "cuda"
    cudnn = torch.backends.cudnn.version() if on_cuda else None
    return {
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if on_cuda else _processor(),
        "precision": {"training": PRECISIONS[amp], "extraction": "float32"},
        "tf32": amp == "tf32",
        "torch": str(torch.__version__),  # a subclass of str, which a checkpoint cannot hold
        "cuda": torch.version.cuda if on_cuda else None,
        "cudnn": _dotted(cudnn) if cudnn else None,
        "processes": distributed.world_size(),
        "images_per_update": images_per_update,
        "version": ptlreid.__version__,
        "commit": find_commit(),
    }


def begin_session(sessions: list[Session], facts: Facts, *, updates: int) -> None:
    """Have `sessions` end with one of these `facts`: the last one if it has the same, otherwise a new one.

    Sessions without an update, such as one that ended before its first, are removed. `updates`: before this session;
    where no session has them, version 0.1 made them.
    """
    sessions[:] = [session for session in sessions if session["updates"]]
    if updates and not sessions:
        sessions.append({**_unknown(facts), "updates": updates, "seconds": None})
    if not sessions or _facts(sessions[-1]) != facts:
        sessions.append({**facts, "updates": 0, "seconds": 0.0})


def count_update(sessions: list[Session], seconds: float) -> None:
    """Count an update of the current session, which took `seconds`."""
    sessions[-1]["updates"] += 1
    sessions[-1]["seconds"] = seconds + (sessions[-1]["seconds"] or 0.0)


def summarize(sessions: list[Session], *, amp: str) -> Environment:
    """The environment of a run for `metrics.json`, from its sessions, of which there is at least one.

    `amp`: the precision of the features that were scored. The facts are those of the last session with an update;
    seconds and speed are of all. Sessions are listed if their facts differ.
    """
    trained = [session for session in sessions if session["updates"]] or sessions[-1:]
    parts = [_with_speed([session], amp) for session in trained]
    several = {"sessions": parts} if len(parts) > 1 else {}
    return {**_with_speed(trained, amp), **several}  # type: ignore[typeddict-item]  # mypy sees a dict of any keys


def with_extraction(environment: Environment, amp: str) -> Environment:
    """The environment of a run whose features were extracted again, with the precision `amp`."""
    precision = Precisions(training=environment["precision"]["training"], extraction=PRECISIONS[amp])
    return {**environment, "precision": precision}


def recorded_sessions(environment: Environment) -> Sequence[SessionSpeed]:
    """The sessions of a run whose facts differ, in order; one for most runs."""
    return environment.get("sessions", [environment])


def describe_environment(metrics: Metrics | Mapping[str, Any] | None) -> str:
    """The environment of a run in one line, such as `NVIDIA H200, bf16, torch 2.14.1, …`; of all its sessions."""
    environment = (metrics or {}).get("environment")
    if not environment:
        return f"{_NOT_RECORDED} (version 0.1)" if metrics else _NOT_RECORDED
    lines = dict.fromkeys(_describe(one) for one in recorded_sessions(environment))
    return "; resumed on ".join(lines)


def _describe(facts: Mapping[str, Any]) -> str:
    if facts["device"] == _UNKNOWN:
        return f"{_NOT_RECORDED} (version 0.1)"
    precision, processes, commit = facts["precision"], facts["processes"], facts["commit"]
    extraction = precision["extraction"]
    parts = [
        facts["device_name"],
        precision["training"] + ("" if extraction == "float32" else f" (features {extraction})"),
        f"{processes} processes" if processes > 1 else "",
        f"torch {facts['torch']}",
        f"CUDA {facts['cuda']}" if facts["cuda"] else "",
        f"cuDNN {facts['cudnn']}" if facts["cudnn"] else "",
        f"ptlreid {facts['version']}" + (f" ({commit[:10]}{'-dirty' * commit.endswith('-dirty')})" if commit else ""),
    ]
    return ", ".join(part for part in parts if part)


def _with_speed(sessions: list[Session], amp: str) -> SessionSpeed:
    """The facts of the last session with the seconds and the speed of all."""
    known = [session["seconds"] for session in sessions if session["seconds"] is not None]
    seconds = sum(known) if len(known) == len(sessions) else None
    images = sum(session["updates"] * session["images_per_update"] for session in sessions)
    facts = _facts(sessions[-1])
    return {
        **facts,
        "precision": {"training": facts["precision"]["training"], "extraction": PRECISIONS[amp]},
        "seconds": None if seconds is None else round(seconds, 3),
        "images_per_second": round(images / seconds, 2) if seconds else None,
    }


def _unknown(facts: Facts) -> Facts:
    """The facts of updates by one process of version 0.1, of a run that is continued with `facts`."""
    return {
        "device": _UNKNOWN,
        "device_name": _UNKNOWN,
        "precision": {"training": "unknown", "extraction": "float32"},
        "tf32": None,
        "torch": _UNKNOWN,
        "cuda": None,
        "cudnn": None,
        "processes": 1,  # a checkpoint of several is refused
        "images_per_update": facts["images_per_update"],
        "version": "0.1",
        "commit": None,
    }


def _facts(session: Session) -> Facts:
    return {name: session[name] for name in Facts.__annotations__}  # type: ignore[return-value, literal-required]


def _processor() -> str:
    """The model name of the CPU, or the kind of processor where the system does not say."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    model = re.search(r"^model name\s*:\s*(\S.*?)\s*$", text, re.MULTILINE)
    return model[1] if model else platform.processor() or platform.machine() or "CPU"


def _dotted(version: int) -> str:
    """cuDNN's version as text: 91002 is 9.10.2, and 8902 is 8.9.2."""
    major, rest = divmod(version, 10_000 if version >= 90_000 else 1000)
    return f"{major}.{rest // 100}.{rest % 100}"


@functools.cache
def find_commit() -> str | None:
    """The commit of this package's source, followed by `-dirty` if files of the package differ from it.

    None where it is unknown: neither a checkout of git nor installed from one (PEP 610).
    """
    return _commit_of_checkout(_PACKAGE) or _commit_of_installation(_PACKAGE)


def _commit_of_checkout(folder: Path) -> str | None:
    import subprocess

    # Environment variables of git, which a hook has set, name another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(  # a status writes no index, as other commands of git may be running
            command,
            capture_output=True,
            check=True,
            text=True,
            timeout=_GIT_SECONDS,
            env=environment | {"GIT_OPTIONAL_LOCKS": "0"},
        ).stdout

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # not one around an environment of ignored packages
        lines = git("status", "--porcelain=v2", "--branch", "--", ".").splitlines()
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid")), "")
    dirty = any(not line.startswith("#") for line in lines)
    return f"{commit}{'-dirty' if dirty else ''}" if re.fullmatch("[0-9a-f]{40,64}", commit) else None


def _commit_of_installation(folder: Path) -> str | None:
    from importlib import metadata  # takes longer than starting the command line

    try:
        package = metadata.distribution("ptlreid")
        if Path(str(package.locate_file("ptlreid"))).resolve() != folder.resolve():
            return None
        commit = json.loads(package.read_text("direct_url.json") or "{}")["vcs_info"]["commit_id"]
    except (OSError, ValueError, LookupError, TypeError, metadata.PackageNotFoundError):
        return None
    return commit if isinstance(commit, str) else None
