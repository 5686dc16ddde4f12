"""`--seeds 0-4` of the commands that train: the settings and the name of each run, and one table of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

import typer

from ptlreid.cli import console
from ptlreid.cli.options import Given
from ptlreid.errors import OptionError
from ptlreid.progress import Progress
from ptlreid.settings import FinetuneSettings, Settings
from ptlreid.settings.seeds import parse_seeds

S = TypeVar("S", bound=Settings)

MEAN = "mean ± s.d."

Seeds = Annotated[
    str | None,
    typer.Option("--seeds", metavar="0-4", help="One run per seed, such as 0-4 or 0,2,5, and one table."),
]


def resolve_seeds(given: Given, model: type[S], seeds: str | None, progress: Progress, **more: Any) -> list[S]:
    """The settings for each of `seeds`, the value of --seeds; those of a single run if it is None."""
    first, *others = seed_values(given, seeds)
    settings = given.resolve(model, progress=progress, **more, **first)  # one note on a recipe is enough
    return [settings, *(given.resolve(model, **more, **one) for one in others)]


def seed_values(given: Given, seeds: str | None) -> list[dict[str, Any]]:
    """The values to resolve the settings of each run with: its seed, or none without --seeds.

    Raises `OptionError` if --seed is given as well. --seeds overrides the seed of a file or recipe.
    """
    if seeds is None:
        return [{}]
    if "seed" in given.values:
        raise OptionError(f"{given.origins['seed']} and --seeds {seeds} both set the seed. Give one of them.")
    return [{"seed": seed} for seed in parse_seeds(seeds)]


def name_of_seed(name: str | None, seeds: str | None, seed: int) -> str | None:
    """The value of --name for the run of one seed: with --seeds, the name followed by the seed."""
    return f"{name}-s{seed}" if name and seeds else name


def show_seeds(title: str, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Print a table of the runs of each seed, by what they have in common ("" for all), with mean and s.d."""
    rows: dict[str, Mapping[str, Any]] = {}
    means: dict[str, tuple[Any, Any]] = {}
    for common, runs in found.items():
        label = f"{common}, " if common else ""
        rows |= {f"{label}seed {run['seed']}": run for run in runs["runs"]}
        means |= {label + MEAN: (runs["mean"], runs["sd"])} if runs["mean"] else {}
        if averaged := runs.get("averaged"):
            means |= {f"{label}averaged, {MEAN}": (averaged["mean"], averaged["sd"])}
    console.show_scores(title, rows, means)


def add_seeds(every: Sequence[FinetuneSettings], results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The result of each run with its seed, for JSON."""
    return [{"seed": one.seed, **result} for one, result in zip(every, results, strict=True)]
