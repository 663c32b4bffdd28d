"""Times as a person says them."""

from __future__ import annotations

import time

_WEEK_S = 6 * 86400.0


def clock(at: float, now: float) -> str:
    """`at`, seconds since the epoch, in local time: `14:02`, `Sat 14:02` within a week of `now`, or with its date."""
    there, here = time.localtime(at), time.localtime(now)
    if there[:3] == here[:3]:
        return time.strftime("%H:%M", there)
    return time.strftime("%a %H:%M" if abs(at - now) < _WEEK_S else "%Y-%m-%d %H:%M", there)
