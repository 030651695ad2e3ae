"""Ends what a supervisor left behind that was killed itself.

A supervisor's children are adopted by init when it dies, and setsid and a cleared environment hide
them from everything but their mark: a resource limit that Linux has not enforced since 2.4.25,
inherited through every fork and exec, set to a number of its own for each command.

Not covered: a process that changes its limit on purpose, one that forks and ends so fast that no
look at /proc meets it, and systems without /proc (macOS), where only the command's process group is
ended. While the supervisor lives, none of these gets away.
"""

import os
import resource
import secrets
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import trio


PROC = Path("/proc")
RLIMIT_LOCKS = 10
LIMIT_NAME = b"Max file locks"
LOWEST_MARK = 2**32  # somebody may have set a small limit by hand
HIGHEST_MARK = 2**62
ROUND = 0.005  # seconds between two looks at all processes; a look takes about as long
EMPTY_LOOKS = 3  # one look can miss a process that forks and ends all the time
BOUND = 2.0  # seconds; what is there after 100 looks does not die


def new_mark() -> int | None:
    """Choose a mark; None where there are none.

    A mark lies below the limit of this process, which may itself be a marked descendant.
    """
    if not sys.platform.startswith("linux"):
        return None
    _, hard = resource.getrlimit(RLIMIT_LOCKS)
    ceiling = HIGHEST_MARK if hard == resource.RLIM_INFINITY else hard
    if ceiling < 2 * LOWEST_MARK:
        return None
    return LOWEST_MARK + secrets.randbelow(ceiling - LOWEST_MARK)


async def end_orphans(mark: int | None, group: int | None) -> int:
    """Kill the process group, then all that carries the mark; return how many resisted.

    To be called as soon as the supervisor is known to be dead: `group` may belong to somebody else
    later.
    """
    if group is not None:
        _kill_group(group)
    if mark is None:
        return 0
    left = empty_looks = 0
    with trio.move_on_after(BOUND):
        # init reaps them: this process hears nothing of their end
        while empty_looks < EMPTY_LOOKS:
            left = await trio.to_thread.run_sync(kill_marked, mark)
            empty_looks = 0 if left else empty_looks + 1
            await trio.sleep(ROUND)
    return left


def kill_marked(mark: int) -> int:
    """Kill the process group of everything that carries the mark; return how much that was.

    A group is killed in one stroke; all its members are marked, as the command began with a session
    of its own.
    """
    found = 0
    for pid in _marked(mark):
        found += 1
        try:
            _kill_group(os.getpgid(pid))
        except ProcessLookupError:
            continue  # it has just ended; the next look finds what it started
    return found


def _kill_group(group: int) -> None:
    if group in (0, 1, os.getpgrp()):  # to kill(2), 0 and -1 are more than a group
        return
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # empty, or all of it another user's


def _marked(mark: int) -> Iterator[int]:
    """Yield the living marked processes, newest first: a fork storm has only new ones."""
    number = str(mark).encode()
    pids = [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]
    for pid in sorted(pids, reverse=True):
        if number in _limit(pid) and _lives(pid):
            yield pid


def _limit(pid: int) -> list[bytes]:
    """Read the words of the line that shows the mark; empty if the process is gone."""
    try:
        limits = PROC.joinpath(str(pid), "limits").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []
    _, _, rest = limits.partition(LIMIT_NAME)
    return rest.partition(b"\n")[0].split()


def _lives(pid: int) -> bool:
    """Return whether the process exists and is no zombie."""
    try:
        status = PROC.joinpath(str(pid), "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(b")")[2].split()[0] not in (b"Z", b"X")
