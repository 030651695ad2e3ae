"""Whether one process descends from another, by the kernel's parent chain.

The daemon's socket refuses a peer that a tool started: a tool must not approve itself. Tool
supervisors adopt orphans, so setsid and a double fork do not leave the chain.

Weaker where there is no /proc (macOS): nothing is known there, and nothing is a descendant.
"""

import os
from collections.abc import Collection
from pathlib import Path


PROC = Path("/proc")
DEPTH = 256  # generations; a longer chain was made to be long
TRIES = 3  # walks; one is torn when a process ends just as its parent is looked up


def is_descendant(pid: int, ancestors: Collection[int]) -> bool:
    """Return whether `pid` is one of `ancestors` or descends from one.

    A process that is gone, or whose chain cannot be followed to its end, counts as one: it could
    have connected and ended to hide where it came from. Another user's process that hides from
    this one (`hidepid`) ends the chain, as the ancestors asked for are this user's own; so does
    process id 0, a peer from outside this process-id namespace.
    """
    if not ancestors or not PROC.joinpath("self", "stat").exists():
        return False
    for _ in range(TRIES):
        found = _walk(pid, ancestors)
        if found is not None:
            return found
    return True


def _walk(pid: int, ancestors: Collection[int]) -> bool | None:
    """Go up once; None if a process vanished on the way."""
    for _ in range(DEPTH):
        if pid in ancestors:
            return True
        if pid <= 0:
            return False
        parent = _parent(pid)
        if parent is None:
            return False if _hides(pid) else None
        pid = parent
    return True


def _parent(pid: int) -> int | None:
    """Read a process's parent, 0 at the top of the namespace; None if it cannot be seen."""
    try:
        status = PROC.joinpath(str(pid), "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return int(status.rpartition(b")")[2].split()[1])


def _hides(pid: int) -> bool:
    """Return whether the process exists as another user's."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return False
