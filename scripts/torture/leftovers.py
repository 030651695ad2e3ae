"""Finds what is left of a command by a word in its arguments.

The word survives fork, setsid and a cleared environment, and the daemon knows nothing of it: its
own way of finding processes is not asked.
"""

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trio


LIMIT = 5.0  # seconds after which what is there counts as left
LOOKS = 3  # one look can miss a process that forks and ends all the time


def marked(marker: str) -> set[int]:
    """The living processes with that word in their arguments."""
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(FileNotFoundError, ProcessLookupError):
                if marker.encode() in entry.joinpath("cmdline").read_bytes():
                    found.add(int(entry.name))
    return found


@dataclass(frozen=True)
class Left:
    """`took` is the seconds until a look met none, `pids` what was there at the limit."""

    took: float
    pids: frozenset[int]


async def until_gone(marker: str, began: float, *, limit: float = LIMIT) -> Left:
    """Wait until none is left, from `began` on (`time.monotonic`); what stays is ended here."""
    return await trio.to_thread.run_sync(_until_gone, marker, began, limit)


def _until_gone(marker: str, began: float, limit: float) -> Left:
    took = time.monotonic() - began
    while marked(marker):
        took = time.monotonic() - began
        if took > limit:
            break
    left = frozenset[int]().union(*(marked(marker) for _ in range(LOOKS)))
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return Left(took, left)
