"""The path from one image to mAP: functions, files and call depth, counted while it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import tiny_network

import ptlreid as package
import ptlreid.images
from ptlreid import datasets
from ptlreid.cli import load_command
from ptlreid.features import Extractor
from ptlreid.models import weights
from ptlreid.network_types import NetworkSpec
from ptlreid.retrieval.distance import distance_blocks
from ptlreid.retrieval.metrics import score
from ptlreid.retrieval.protocols import PROTOCOLS
from ptlreid.retrieval.types import Retrieval
from ptlreid.runs import RunFolder
from ptlreid.settings import EvaluateSettings, FinetuneSettings
from ptlreid.views import EvalView

ROOT = Path(package.__file__).parent
_FUNCTION = 1  # of code flags: neither a module nor the body of a class


@dataclass
class Hops:
    """The functions of the package that were called, in order, and the deepest chain of calls."""

    functions: dict[tuple[str, str], None] = field(default_factory=dict)
    deepest: list[str] = field(default_factory=list)

    def counts(self) -> tuple[int, int, int]:
        """Functions, files, depth."""
        return len(self.functions), len({file for file, _ in self.functions}), len(self.deepest)


@contextmanager
def count_hops() -> Iterator[Hops]:
    """Counts calls of the package's functions; comprehensions belong to the enclosing function."""
    hops, stack, before = Hops(), list[str](), sys.getprofile()

    def profile(frame, event, _) -> None:
        code = frame.f_code
        if not code.co_filename.startswith(str(ROOT)) or not code.co_flags & _FUNCTION:
            return
        if code.co_qualname.endswith(("comp>", "genexpr>")):
            return
        if event == "call":
            file = str(Path(code.co_filename).relative_to(ROOT))
            hops.functions[file, code.co_qualname] = None
            stack.append(f"{file}: {code.co_qualname}")
            if len(stack) > len(hops.deepest):
                hops.deepest = list(stack)
        elif event == "return":
            stack.pop()

    sys.setprofile(profile)
    try:
        yield hops
    finally:
        sys.setprofile(before)


def describe(hops: Hops) -> str:
    """The message of an exceeded limit."""
    calls = "\n".join(f"{file}: {name}" for file, name in hops.functions)
    return f"{hops.counts()}\n{calls}\ndeepest: {' > '.join(hops.deepest)}"


def within(hops: Hops, functions: int, files: int, depth: int) -> bool:
    return all(count <= limit for count, limit in zip(hops.counts(), (functions, files, depth), strict=True))


def test_calls_are_counted_once_each_and_by_depth():
    with count_hops() as hops:
        [EvalView(64, 32).describe() for _ in range(3)]
    assert hops.counts() == (1, 1, 1)


def test_from_records_and_a_network_to_map(market_folder):
    splits = datasets.load("market", market_folder.parent)
    extractor = Extractor.from_network(tiny_network(), EvalView(64, 32), EvaluateSettings(device="cpu"))
    assert extractor.network.feature_width  # builds the network
    with count_hops() as hops:
        query, gallery = extractor.extract(splits.query), extractor.extract(splits.gallery)
        retrieval = Retrieval(query, gallery, PROTOCOLS["market"])
        blocks = distance_blocks(retrieval, metric="euclidean", memory_budget=None)
        mean_ap = score(retrieval, blocks, ap="step", single_shot_samples=None, seed=0).mean_ap
    assert 0 < mean_ap < 1
    assert within(hops, functions=75, files=23, depth=8), describe(hops)


@pytest.mark.parametrize("data", ["market"])
def test_an_evaluation_from_the_command_line_with_nothing_cached(
    ptlreid: Callable[..., tuple[int, str, str]], market_folder, tmp_path, data
):
    run = RunFolder(tmp_path / "runs" / "tiny")
    settings = {"data": data, "backbone": "tiny", "init": "none", "height": 64, "width": 32}
    run.claim(FinetuneSettings.resolve(None, **settings), datasets.load(data, market_folder.parent))
    weights.save(tiny_network(classes=4), NetworkSpec("tiny", True, "slot", 4, 64, 32), run.weights())
    load_command("evaluate")  # its options are made from the settings when it is loaded, not when it runs
    with count_hops() as hops:
        code, _, err = ptlreid("evaluate", "--run", "tiny", "--root", market_folder.parent, "--device", "cpu")
    assert code == 0, err
    # The target is 150, 36 and 11. The excess: options built from settings, the index of image digests, files whose
    # writes never fail for HDF5, image files and JSON of which nothing is trusted, all faults of a dataset, output for
    # any terminal, settings that are loaded when they are used, files that may be in tar files, and ranks
    # that rounding does not decide.
    # Up to 293: some functions run once in a process, so the number depends on the tests before.
    assert within(hops, functions=294, files=56, depth=18), describe(hops)
