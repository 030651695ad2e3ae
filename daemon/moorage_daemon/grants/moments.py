"""Points in time that no change of the clock can move.

Within one boot of the machine the counter that runs through its sleep says how much time has
passed. Only from one boot to another there is nothing but the wall clock, and there time never
runs backwards.
"""

import time
from pathlib import Path

from msgspec import Struct


BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
BOOT_ID_LENGTH = 8  # characters of it: enough to tell two boots of one machine apart


class Moment(Struct, frozen=True, array_like=True):
    """`ticks` are milliseconds since the start named `boot`; `wall` is seconds since 1970."""

    boot: str
    ticks: int
    wall: float


def milliseconds_between(then: Moment, now: Moment) -> int:
    """How much time has passed; 0 if it seems to have run backwards."""
    if then.boot == now.boot:
        return max(0, now.ticks - then.ticks)
    return max(0, round((now.wall - then.wall) * 1000))


class MachineClock:
    """The moments of this machine."""

    def __init__(self) -> None:
        # Where a counter that runs on in sleep is missing, the plain one has to do.
        self._clock: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        self._boot = _boot_id() or f"since-{time.time_ns()}"

    def __call__(self) -> Moment:
        """Now."""
        return Moment(self._boot, time.clock_gettime_ns(self._clock) // 10**6, time.time())


def _boot_id() -> str:
    try:
        return BOOT_ID.read_text("ascii").strip()[:BOOT_ID_LENGTH]
    except OSError:  # another system: then every start of the daemon counts as one
        return ""
