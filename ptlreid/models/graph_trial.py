"""The first run of a graph, in a process of its own that has limited memory and time.

So a graph that takes all memory, never ends or crashes onnxruntime is one message. The trial also finds what a graph
does not state: the width of its features, and whether an image's features depend on the images of its batch.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ptlreid.errors import DataError, is_out_of_memory
from ptlreid.file_kinds import printable
from ptlreid.models.graph_session import GraphSession, GraphSpec, load_onnx

TRIAL_SECONDS = 120
BASE_BYTES = 4 << 30  # of address space, for the interpreter, its libraries and the maps of two images
WEIGHT_FACTOR = 4  # onnxruntime keeps weights in several layouts while it loads them


def try_graph(spec: GraphSpec) -> GraphSpec:
    """The graph with the width of its features, after running it on two images: alone, again, and together.

    A graph that takes any batch size, but in which images change one another's features or fail together, gets the
    batch size 1. Raises `DataError` for a graph that cannot be run within limits of memory and time, or whose
    features depend on chance.
    """
    calls = _plan(spec.batch)
    answers = _run(spec, calls)
    alone_calls = answers[:-1] if spec.batch is None else answers
    for error in (one["error"] for one in alone_calls if "error" in one):
        raise DataError(f"{spec.path}: cannot be run by onnxruntime ({error}): expected features. {_ADVICE}")
    first, again, *others = (np.array(one.get("features", []), dtype=np.float64) for one in answers)
    _check_shape(spec, first, len(calls[0]))
    if not _agree(first, again, spec.half):
        raise DataError(
            f"{spec.path}: gave other features of the same image the second time: expected the same. Export it again "
            "after network.eval(), without random operators."
        )
    width = first.shape[1]
    alone = np.stack([first[0], first[1] if spec.batch and spec.batch > 1 else others[0][0]])
    if spec.batch == 1:
        return replace(spec, width=width)
    together = others[-1]
    order = calls[-1]
    sound = together.shape == (len(order), width) and _agree(together, alone[order], spec.half)
    if not sound and spec.batch:
        raise DataError(
            f"{spec.path}: the features of an image change with its place in the batch of {spec.batch}: expected the "
            "same. Export it for one image at a time."
        )
    return replace(spec, width=width, batch=spec.batch if sound else 1)


_ADVICE = "Export the model again, for onnxruntime on a CPU."


def _plan(batch: int | None) -> list[list[int]]:
    """The images, 0 or 1, of each run: the first two runs are the same."""
    if batch is None or batch == 1:
        return [[0], [0], [1], *([[1, 0]] if batch is None else [])]
    return [[0] + [1] * (batch - 1)] * 2 + [[1, 0] + [1] * (batch - 2)]


def _check_shape(spec: GraphSpec, features: np.ndarray, size: int) -> None:
    if features.ndim != 2 or len(features) != size or not 0 < features.shape[1] <= 100_000:
        raise DataError(
            f"{spec.path}: returned an array of shape {features.shape} for {size} images: expected ({size}, width). "
            "Export the model again with one feature vector for each image."
        )


def _agree(first: np.ndarray, second: np.ndarray, half: bool) -> bool:
    """Whether features are the same up to rounding."""
    if first.shape != second.shape or not np.array_equal(np.isfinite(first), np.isfinite(second)):
        return False
    gaps = np.linalg.norm(np.nan_to_num(first) - np.nan_to_num(second), axis=1)
    return bool((gaps <= (1e-2 if half else 1e-3) * np.linalg.norm(np.nan_to_num(second), axis=1) + 1e-6).all())


def _run(spec: GraphSpec, calls: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """The `features` or the `error` of each call, from the other process; all calls after an error are missing."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", "from ptlreid.models.graph_trial import serve; serve()"],
            input=pickle.dumps((spec, calls)),
            cwd=Path(__file__).parents[2],  # where `ptlreid` is found
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            capture_output=True,
            timeout=TRIAL_SECONDS,
            check=False,
        )
        answers: list[dict[str, Any]] = json.loads(done.stdout)
        return answers
    except subprocess.TimeoutExpired:
        raise DataError(
            f"{spec.path}: has not computed the features of two images after {TRIAL_SECONDS} seconds: expected less. "
            "Give a smaller model."
        ) from None
    except ValueError:  # no answer: it crashed
        reason = signal.strsignal(-done.returncode) if done.returncode < 0 else f"exit code {done.returncode}"
        raise DataError(f"{spec.path}: ended onnxruntime ({reason}): expected features. {_ADVICE}") from None


def serve() -> None:
    """The other process: a spec from standard input, and the answer as JSON to standard output."""
    spec, calls = pickle.load(sys.stdin.buffer)
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answer:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        json.dump(_answer(spec, calls), answer)


def _answer(spec: GraphSpec, calls: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    limit = BASE_BYTES + WEIGHT_FACTOR * spec.weight_bytes
    _limit_memory(limit)
    image = spec.image
    pixels = np.random.default_rng(0).integers(0, 256, (2, image["height"], image["width"], 3), dtype=np.uint8)
    answers: list[dict[str, Any]] = []
    try:
        session = GraphSession(spec, load_onnx(spec.path, 1, "cpu"))
        for rows in calls:
            answers.append({"features": session.compute(pixels[list(rows)]).tolist()})
    except Exception as error:  # noqa: BLE001 - onnxruntime's own exceptions have no common class
        lacks = is_out_of_memory(error) or "allocate" in str(error).lower()
        reason = f"needs more than {limit / 1e9:.0f} GB for two images" if lacks else printable(str(error))
        answers.append({"error": reason})
    return answers + [{}] * (len(calls) - len(answers))


def _limit_memory(limit: int) -> None:
    if sys.platform != "win32":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        most = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
