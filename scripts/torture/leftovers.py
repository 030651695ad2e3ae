"""Finds what is left of a command by a word in its arguments.

The word survives fork, setsid and a cleared environment, and the daemon knows nothing of it: its
own way of finding processes is not asked.
"""

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import trio


LIMIT = 5.0  # seconds after which what is there counts as left
LOOKS = 3  # empty ones in a row: one can miss a process that forks and ends all the time


def marked(marker: str) -> set[int]:
    """The living processes with that word in their arguments."""
    return _look([marker])[marker]


def _look(markers: Sequence[str]) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {marker: set() for marker in markers}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - pathlib doubles the time of a look
        if entry.isdigit() and int(entry) != os.getpid():
            arguments = _arguments(entry)
            for marker, pids in found.items():
                if marker.encode() in arguments:
                    pids.add(int(entry))
    return found


def _arguments(pid: str) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123 - as above
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@dataclass(eq=False)
class Left:
    """`took` is the seconds to the end of the first empty look, `pids` what the last one met."""

    took: float = 0.0
    pids: set[int] = field(default_factory=set[int])
    empty: int = 0  # looks in a row

    def note(self, pids: set[int], took: float) -> None:
        """One more look."""
        self.pids = pids
        self.empty = 0 if pids else self.empty + 1
        if self.empty <= 1:
            self.took = took


async def until_gone(markers: Sequence[str], began: float, *, limit: float = LIMIT) -> list[Left]:
    """Wait until none is left, from `began` on (`time.monotonic`); what stays is ended here."""
    return await trio.to_thread.run_sync(_until_gone, markers, began, limit)


def _until_gone(markers: Sequence[str], began: float, limit: float) -> list[Left]:
    left = {marker: Left() for marker in markers}
    while any(each.empty < LOOKS for each in left.values()):
        found = _look(markers)
        took = time.monotonic() - began
        for marker, each in left.items():
            each.note(found[marker], took)
        if took > limit:
            break
    for pid in set[int]().union(*(each.pids for each in left.values())):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return list(left.values())
