"""`ptlreid compare`: whether runs, or methods over their seeds, differ by more than chance explains."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

from ptlreid import datasets
from ptlreid.errors import OptionError
from ptlreid.evaluation import evaluate, load_retrieval
from ptlreid.progress import Progress
from ptlreid.retrieval.bootstrap import Difference, score_differences
from ptlreid.retrieval.seeds import MethodDifference, method_differences, summarize_seeds
from ptlreid.retrieval.types import Scores
from ptlreid.runs import RunFolder
from ptlreid.settings.evaluate import CompareSettings


def compare(runs: Sequence[RunFolder], settings: CompareSettings, progress: Progress) -> dict[str, Any]:
    """The scores of each run or model on one dataset, and the difference of each from the first.

    Differences are paired by query, with an interval from a bootstrap over identities: see `score_differences`.
    """
    if len(runs) < 2:
        raise OptionError(
            f"Runs and models given: {len(runs)}, expected two or more. Name the others, or give models with --model."
        )
    splits = datasets.load(_choose_dataset(runs, settings), Path(settings.root))
    pids, resamples, seed = splits.query.pids, settings.bootstrap, settings.seed
    # One run after the other, so that only the features of one run are in memory.
    first, *others = all_scores = [evaluate(load_retrieval(run, splits, settings, progress), settings) for run in runs]
    differences = [score_differences(first, scores, pids, resamples=resamples, seed=seed) for scores in others]
    return {
        **_about(splits.name, first, settings),
        "runs": [_describe_run(run, scores, settings) for run, scores in zip(runs, all_scores, strict=True)],
        "differences": [
            {
                "run": str(run.path),
                "against": str(runs[0].path),
                "mAP": _describe(mean_ap),
                "cmc": {"1": _describe(cmc1)},
            }
            for run, (mean_ap, cmc1) in zip(runs[1:], differences, strict=True)
        ],
    }


@dataclass(frozen=True)
class Method:
    """The runs of a method by seed. `pattern`: their names, with a `*` for the seed."""

    pattern: str
    runs: Mapping[int, RunFolder]


def find_method(runs: Path, pattern: str) -> Method:
    """The method whose runs below `runs` are called `pattern` with a number in the place of its `*`, as of --seeds.

    Raises `OptionError` for a pattern without runs, and for two runs with the same seed.
    """
    if pattern.count("*") != 1:
        raise OptionError(f"--methods {pattern}: expected a name with one * for the seed, such as 'plain-s*'.")
    before, after = pattern.split("*")
    numbered = re.compile(f"{re.escape(before)}([0-9]+){re.escape(after)}")
    names = (path.parent.name for path in runs.glob("*/config.toml"))
    found = sorted((int(match[1]), match[0]) for match in map(numbered.fullmatch, names) if match)
    if not found:
        raise OptionError(
            f"--methods {pattern}: expected runs of that name below {runs}, with a number in the place of the *. Runs "
            "of --seeds end in -s0, -s1, ...: 'plain-s*'."
        )
    by_seed: dict[int, RunFolder] = {}
    for _, name in found:
        run = RunFolder(runs / name)
        other = by_seed.setdefault(seed := run.settings().seed, run)
        if other is not run:
            raise OptionError(
                f"--methods {pattern}: {other.path.name} and {name} were trained with the same seed, {seed}: "
                "expected one run per seed. Remove or rename one."
            )
    return Method(pattern, dict(sorted(by_seed.items())))


def compare_methods(methods: Sequence[Method], settings: CompareSettings, progress: Progress) -> dict[str, Any]:
    """The mean scores of each method over its seeds, and the difference of each from the first: `method_differences`.

    Seeds that one of the methods does not have are left out, with a note.
    """
    if len(methods) < 2:
        raise OptionError("--methods: one method was given, expected two or more. Name the others after it.")
    seeds = [seed for seed in methods[0].runs if all(seed in method.runs for method in methods)]
    left_out = [run.path.name for one in methods for seed, run in one.runs.items() if seed not in seeds]
    if left_out:
        progress.note(f"left out, as not every method has these seeds: {', '.join(left_out)}")
    if len(seeds) < 2:
        raise OptionError(
            f"--methods: all methods have {len(seeds)} of their seeds, expected two or more, as one does not show the "
            "variation between seeds. Train more with --seeds."
        )
    runs = [[method.runs[seed] for seed in seeds] for method in methods]
    splits = datasets.load(_choose_dataset([run for some in runs for run in some], settings), Path(settings.root))
    scores = [[evaluate(load_retrieval(run, splits, settings, progress), settings) for run in some] for some in runs]
    pids, resamples, seed = splits.query.pids, settings.bootstrap, settings.seed
    return {
        **_about(splits.name, scores[0][0], settings),
        "seeds": seeds,
        "left_out": left_out,
        "methods": [
            {"method": one.pattern, **summarize_seeds(list(map(_describe_run, some, found, repeat(settings))))}
            for one, some, found in zip(methods, runs, scores, strict=True)
        ],
        "differences": [
            {"method": one.pattern, "against": methods[0].pattern, "mAP": mean_ap, "cmc": {"1": cmc1}}
            for one, found in zip(methods[1:], scores[1:], strict=True)
            for mean_ap, cmc1 in [
                map(_describe, method_differences(scores[0], found, pids, resamples=resamples, seed=seed))
            ]
        ],
    }


def _about(data: str, scores: Scores, settings: CompareSettings) -> dict[str, Any]:
    """What was compared, with the settings in effect."""
    in_effect = settings.model_copy(update={"data": data, "protocol": scores.protocol})
    return {"data": data, "protocol": scores.protocol, "settings": in_effect.model_dump()}


def _describe_run(run: RunFolder, scores: Scores, settings: CompareSettings) -> dict[str, Any]:
    return {"run": str(run.path), "weights_digest": run.weights_digest(settings.weights), **scores.summary()}


def _choose_dataset(runs: Sequence[RunFolder], settings: CompareSettings) -> str:
    """The dataset to compare on: `--data`, or the one that all of `runs` were trained on."""
    if settings.data:
        return settings.data
    names = dict.fromkeys(run.settings().data for run in runs)
    if len(names) > 1:
        raise OptionError(f"The runs were trained on different datasets: {', '.join(names)}. Choose one with --data.")
    return next(iter(names))


def _describe(difference: Difference) -> dict[str, Any]:
    low, high = difference.interval.low, difference.interval.high
    verdict = "significant" if difference.significant else "not significant"
    described = {"difference": difference.value, "interval": [low, high], "verdict": verdict}
    if isinstance(difference, MethodDifference):
        errors = {"seeds": difference.seeds_error, "identities": difference.identities_error}
        described["standard_errors"] = errors
    return described
