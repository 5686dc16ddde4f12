"""Damaged copies of a file's content, for property tests: bytes cut off, changed, removed, inserted or repeated."""

from __future__ import annotations

import faulthandler
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st


def damage_examples(share: float = 1.0) -> Callable[[Any], Any]:
    """A decorator: this share of 100 damaged files, the same in each run; of 5,000 random ones with
    `pytest --hypothesis-profile long`.
    """
    profile = settings()
    return settings(
        max_examples=max(1, round(share * profile.max_examples)),
        derandomize=profile.max_examples <= 100,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The content with one to three damages at random places; never the content itself."""
    result = content
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, max(0, len(result) - 1)))
        stop = min(len(result), start + draw(st.sampled_from((1, 1, 2, 4, 8, 64, 512))))
        part = result[start:stop]
        replacement = draw(
            st.one_of(
                st.binary(min_size=len(part), max_size=len(part)),
                st.sampled_from((b"", b"\0" * len(part), b"\xff" * len(part), 2 * part, part[::-1], b"-" + part)),
                st.binary(max_size=16),
            )
        )
        cut = draw(st.integers(0, 5)) == 0
        result = result[:start] if cut else result[:start] + replacement + result[stop:]
    return result if result != content else content[: len(content) // 2]


@contextmanager
def within_seconds(seconds: int = 20) -> Iterator[None]:
    """Raises TimeoutError in the block after `seconds`; twice that later, one stuck in C ends the process."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"not finished within {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    faulthandler.dump_traceback_later(2 * seconds, exit=True)
    try:
        yield
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)
