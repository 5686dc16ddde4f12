"""The seeds of `--seeds 0-4`: a command with them makes one run per seed, and one table."""

from __future__ import annotations

import re

from ptlreid.errors import OptionError
from ptlreid.settings.fields import MAX_SEED

MAX_RUNS = 1000  # of one command


def parse_seeds(text: str) -> list[int]:
    """The seeds in `text`, numbers and ranges with commas between them: `0-2,7` is 0, 1, 2 and 7.

    Raises `OptionError` for anything else, a seed given twice, and too many.
    """
    seeds: list[int] = []
    for part in text.split(","):
        ends = re.fullmatch(r"\s*(\d{1,10})(?:-(\d{1,10}))?\s*", part, re.ASCII)
        first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (1, 0)
        if not first <= last <= MAX_SEED:
            raise OptionError(
                f"--seeds {text}: expected seeds from 0 to {MAX_SEED}, such as 0-4, 0,2,5 or 0-2,7. Correct {part!r}."
            )
        if len(seeds) + last - first >= MAX_RUNS:
            raise OptionError(f"--seeds {text}: expected at most {MAX_RUNS} seeds. Give fewer.")
        seeds += range(first, last + 1)
    if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
        raise OptionError(f"--seeds {text}: seed {twice[0]} is given twice, expected once. Leave one out.")
    return seeds
