"""The time at which an image was taken, where its path states it: `2024-05-01/door/12-30-05.jpg`."""

from __future__ import annotations

import re
from datetime import datetime

_DATE = r"(?<!\d)(?P<year>(?:19|20)\d\d)(?P<between>[-_.]?)(?P<month>\d\d)(?P=between)(?P<day>\d\d)"
_TIME = (
    r"(?P<hour>[01]\d|2[0-3])(?P<colon>[-_.:h]?)(?P<minute>[0-5]\d)"
    r"(?:(?P=colon)(?P<second>[0-5]\d)(?:[.,]?\d{3}(?:\d{3})?)?)?(?!\d)"  # milliseconds or microseconds may follow
)
_STAMP = re.compile(rf"{_DATE}(?:[T _-]?{_TIME}|(?!\d))")
# Numbers such as 01_02 are rarely a time where they are not next to a date.
_CLOCK = re.compile(r"(?P<hour>[01]\d|2[0-3])(?P<colon>[-.:])(?P<minute>[0-5]\d)(?P=colon)(?P<second>[0-5]\d)(?!\d)")


def find_time(path: str) -> datetime | None:
    """The time in a path: its last date, with the time that follows it; None without a date.

    Dates are 2024-05-01, 2024_05_01, 2024.05.01 or 20240501, alone or followed by a time such as T12:30:05, _123005 or
    -12-30. A date that names a folder takes the time from the start of the file's name, if that is one such as
    12-30-05. Milliseconds and microseconds are left out. Numbers that are no day of the calendar are no date.
    """
    for found in reversed(list(_STAMP.finditer(path))):
        parts = found.groupdict()
        if parts["hour"] is None and (clock := _CLOCK.match(path[path.rfind("/") + 1 :])):
            parts |= clock.groupdict() if found.end() <= path.rfind("/") else {}
        numbers = [int(parts[name] or 0) for name in ("year", "month", "day", "hour", "minute", "second")]
        try:
            return datetime(*numbers)  # type: ignore[arg-type]
        except ValueError:
            continue
    return None
