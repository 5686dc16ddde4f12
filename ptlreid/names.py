"""Names of runs, chains and datasets: each becomes one folder, directly below the folder of its kind."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from ptlreid.errors import OptionError

CHAIN_PREFIX = "chain-"
UNLABELLED = ":unlabelled"  # ends the name of any dataset: the same images, with no identities in the training part
NOT_UTF8 = "[\ud800-\udfff]"  # the characters that stand for bytes of a path that are not UTF-8

_LONGEST = 150  # bytes: file systems allow 255, and temporary files and the runs of a sweep have longer names


def name_folder(parent: Path, name: str, kind: Literal["run", "chain"]) -> Path:
    """The folder of a run or chain; `OptionError` for a bad `name`, and where libraries cannot open `parent`."""
    if re.search(NOT_UTF8, str(parent)):
        raise OptionError(f"{parent}: expected a path in UTF-8. Rename that folder, or choose another.")
    return parent / check_name(name, kind)


def check_name(name: str, kind: Literal["run", "chain", "dataset"]) -> str:
    """`name`, if it can name the folder of a run, chain or dataset; `OptionError` otherwise."""
    faults = {
        "is empty": not name,
        "has a character that cannot be printed": not name.isprintable(),
        "has a slash, backslash or colon": bool(re.search(r"[/\\:]", name)),
        "begins with a dot or a hyphen": name.startswith((".", "-")),
        "begins or ends with a space": name != name.strip(),
        f"is longer than {_LONGEST} bytes": len(name.encode(errors="replace")) > _LONGEST,
        f"begins with {CHAIN_PREFIX}, as the folders of chains do": kind == "run" and name.startswith(CHAIN_PREFIX),
        # In names of datasets, + joins them.
        "has other characters than A-Z, a-z, 0-9, _, . and -": kind == "dataset"
        and bool(re.search(r"[^\w.-]", name, re.A)),
    }
    for fault, found in faults.items():
        if found:
            raise OptionError(
                f"The name {name!r} {fault}: expected a name for the folder of the {kind}. Choose another --name."
            )
    return name
