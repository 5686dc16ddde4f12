"""What this project does on a GPU: is it right, and how fast is it? One JSON file and one Markdown page.

    python tests/gpu/check.py --out FOLDER

Each step runs in a process of its own with a limit of time; whatever happens to one, the results of the others are
kept, and the files are complete after each step. Exit code 0: every correctness step passed. docs/gpu.md says more.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import steps
import tables
import wheels
from record import write_json
from steps import STEPS, Step

LEAST_SECONDS = 10.0  # a step that has fewer is not started


def main() -> int:
    options = parse()
    began = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "check.log").write_text("", encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as temporary:
        folder = Path(temporary)
        results = prepare(options, folder / "packages")
        for step in STEPS:
            if options.only and step.name not in options.only:
                continue
            result = run_step(step, results["device"], options.limit - (time.monotonic() - began), options, folder)
            results["steps"].append(result)
            results["seconds"] = round(time.monotonic() - began, 1)
            results["passed"] = all(one["state"] == "passed" for one in results["steps"] if one["correct"])
            save(results, options.out)
            print(f"{step.name}: {result['state']} ({result['seconds']:.0f} s) {result['reason']}", flush=True)
    print((options.out / "check.md").read_text(encoding="utf-8"))
    return 0 if results["passed"] else 1


def prepare(options: argparse.Namespace, packages: Path) -> dict[str, Any]:
    """The results before the first step. Makes the program and what it needs importable, here and in new processes."""
    wheels.use([wheels.ROOT, packages])
    wheels.write_metadata(packages)
    missing = wheels.missing()
    return {
        "schema": 1,
        "command": sys.argv[1:],
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "commit": commit(),
        "python": sys.version.split()[0],
        "from_wheels": missing,
        "not_installed": wheels.install(missing, options.wheels, packages),
        "device": options.device or find_device(),
        "steps": [],
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of check.json, check.md and check.log")
    parser.add_argument("--device", help="cpu, cuda or cuda:N; default: cuda if torch sees a GPU")
    parser.add_argument("--small", action="store_true", help="tiny networks: tries the check itself")
    parser.add_argument("--only", type=lambda text: text.split(","), help=f"of {', '.join(one.name for one in STEPS)}")
    parser.add_argument("--limit", type=float, default=450, help="seconds for everything; default 450")
    parser.add_argument("--wheels", type=Path, default=wheels.ROOT / "build" / "wheels", help="default build/wheels")
    options = parser.parse_args()
    unknown = set(options.only or []) - {step.name for step in STEPS}
    if unknown:
        parser.error(f"--only: no step is called {', '.join(sorted(unknown))}")
    return options


def find_device() -> str:
    """cuda if torch sees a GPU; asked in another process, as the ones of the steps are forked on a CPU."""
    code = "import torch; print('cuda' if torch.cuda.is_available() else 'cpu')"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "cpu"


def run_step(step: Step, device: str, left: float, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The result of a step, or why it was not run."""
    if options.small and step.same_as:
        return unmeasured(step, "skipped", f"with tiny networks the same as {step.same_as}")
    if left < LEAST_SECONDS:
        return unmeasured(step, "skipped", f"the {options.limit:.0f} seconds of --limit are used up")
    found = folder / f"{step.name}.json"
    arguments = (step.name, device, options.small, str(folder), str(found), str(options.out / "check.log"))
    began = time.monotonic()
    process = steps.start(arguments)
    try:
        # A CPU that tries the check may have other work.
        ended = steps.wait(process, min(step.seconds * (3 if options.small else 1), left))
    except BaseException:
        steps.end(process)
        raise
    content = json.loads(found.read_text(encoding="utf-8")) if found.is_file() else {}
    checks = content.get("checks", [])
    reason = "; ".join(filter(None, [content.get("error", ended), *content.get("notes", [])]))
    failed = [one["what"] for one in checks if not one["passed"]]
    state = "error" if ended else "failed" if failed or (step.correct and not checks) else "passed"
    return {
        **unmeasured(step, state, reason),
        "seconds": round(time.monotonic() - began, 1),
        "checks": checks,
        "rows": content.get("rows", []),
    }


def unmeasured(step: Step, state: str, reason: str) -> dict[str, Any]:
    """The result of a step that found nothing."""
    return {
        "name": step.name,
        "correct": step.correct,
        "state": state,
        "reason": reason,
        "seconds": 0.0,
        "checks": [],
        "rows": [],
    }


def commit() -> str | None:
    """The commit of the checkout, where git can be asked."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=wheels.ROOT, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return found.stdout.strip() or None


def save(results: dict[str, Any], out: Path) -> None:
    """Write both files, each at once."""
    write_json(out / "check.json", results)
    part = out / ".check.md.part"
    part.write_text(tables.page(results), encoding="utf-8")
    part.replace(out / "check.md")


if __name__ == "__main__":
    sys.exit(main())
