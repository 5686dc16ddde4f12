"""The processor cores that this process may use: those of its affinity, or of its cgroup's quota if that is less."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_MEMBERSHIPS = Path("/proc/self/cgroup")  # lines of `number:controllers:path`; version 2: number 0, no controllers
_MOUNTED = Path("/sys/fs/cgroup")


def available_cores() -> int:
    """At least 1. A quota of part of a core, as of 2.5, is rounded down; without a limit, all cores count."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([affinity, *_quotas()])))


def _quotas() -> Iterator[float]:
    """The quotas in cores of the process's cgroups and of those above, as far as they are visible."""
    try:
        memberships = [line.split(":", 2) for line in _MEMBERSHIPS.read_text().splitlines()]
    except (OSError, ValueError):  # not Linux
        return
    for _, controllers, path in (fields for fields in memberships if len(fields) == 3):
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounted = _MOUNTED / "cpu" if controllers else _MOUNTED
        # In a container the path may be that of the host, while its own cgroup is mounted at the top.
        for folder in (PurePosixPath(path), *PurePosixPath(path).parents):
            own = mounted / folder.relative_to("/")
            yield from _read_quota(own / "cpu.max", None)
            yield from _read_quota(own / "cpu.cfs_quota_us", own / "cpu.cfs_period_us")


def _read_quota(quota: Path, period: Path | None) -> Iterator[float]:
    """The quota in cores, if there is one: `max 100000` in version 2 and -1 in version 1 mean none."""
    try:
        texts = [*quota.read_text().split(), *(period.read_text().split() if period else ())]
        allowed, whole = (int(text) for text in texts)
    except (OSError, ValueError):
        return
    if allowed > 0 and whole > 0:
        yield allowed / whole
