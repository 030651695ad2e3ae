#!/usr/bin/env python3
"""Ends hostile commands in every way, many times, and counts what is left of them.

Prints one JSON line: rounds, leftovers, and for each way how long it took until a look at /proc had
met no process of the command (milliseconds, the look's own five or so included). A cancelled
command is asked first, so one that ignores SIGTERM takes the grace. Exits 1 if anything was left.
"""

import argparse
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import trio

from moorage_daemon.processes.environment import tool_environment
from moorage_daemon.processes.process import Process
from moorage_daemon.processes.spawn import GRACE, spawn


PROGRAMS = Path(__file__).resolve().parent.parent / "tests" / "daemon" / "processes"
SHAPES = (
    "setsid",
    "double-fork",
    "ignores-sigterm",
    "fork-storm",
    "holds-stdout",
    "bare-environment",
)
LIMIT = 5.0  # seconds after which what is there counts as left
SHARES = {"p50": 0.5, "p99": 0.99, "max": 1.0}
LOOKS = 3  # one look can miss a process that forks and ends all the time


def find(marker: str) -> set[int]:
    """Find the living processes with the marker in their arguments."""
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(FileNotFoundError, ProcessLookupError):
                if marker.encode() in entry.joinpath("cmdline").read_bytes():
                    found.add(int(entry.name))
    return found


def wait_until_gone(marker: str, began: float) -> tuple[float, int]:
    """Return the seconds until a look had met nothing, and how many are left at the limit."""
    while find(marker) and time.monotonic() < began + LIMIT:
        pass
    took = time.monotonic() - began
    left = set[int]().union(*(find(marker) for _ in range(LOOKS)))
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return took, len(left)


def command(shape: str, marker: str) -> list[str]:
    return [sys.executable, "-I", "-S", str(PROGRAMS / "hostile.py"), shape, marker]


def start(shape: str, marker: str) -> Process:
    return spawn(command(shape, marker), cwd=Path("/"), env=tool_environment(os.environ))


async def is_ready(process: Process) -> None:
    while "ready" not in process.output.text() and process.exit is None:
        await process.more(process.output.total)


async def by_kill(shape: str, marker: str) -> tuple[float, int]:
    process = start(shape, marker)
    async with process.attended():
        await is_ready(process)
        began = time.monotonic()
        process.kill()
        return await trio.to_thread.run_sync(wait_until_gone, marker, began)


async def by_cancel(shape: str, marker: str) -> tuple[float, int]:
    began = 0.0
    with trio.CancelScope() as scope:
        process = start(shape, marker)
        async with process.attended():
            await is_ready(process)
            began = time.monotonic()
            scope.cancel()
            await trio.sleep_forever()
    return await trio.to_thread.run_sync(wait_until_gone, marker, began)


async def by_death_of_the_owner(shape: str, marker: str) -> tuple[float, int]:
    program = [sys.executable, str(PROGRAMS / "owner.py"), *command(shape, marker)]
    # nothing else runs in this program while the owner starts
    with subprocess.Popen(program, stdout=subprocess.PIPE) as owner:  # noqa: ASYNC220
        assert owner.stdout is not None
        await trio.to_thread.run_sync(owner.stdout.readline)
        began = time.monotonic()
        owner.kill()
    return await trio.to_thread.run_sync(wait_until_gone, marker, began)


WAYS: dict[str, Callable[[str, str], Awaitable[tuple[float, int]]]] = {
    "kill": by_kill,
    "cancel": by_cancel,
    "owner_sigkill": by_death_of_the_owner,
}


def figures(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    rank = {name: math.ceil(len(ordered) * share) - 1 for name, share in SHARES.items()}
    return {"count": len(ordered)} | {
        f"{name}_ms": round(ordered[index] * 1000, 1) for name, index in rank.items()
    }


async def torture(rounds: int) -> int:
    times: dict[str, list[float]] = {}
    left = dict.fromkeys(WAYS, 0)
    combinations = itertools.cycle(itertools.product(SHAPES, WAYS))
    for shape, way in itertools.islice(combinations, rounds):
        took, remaining = await WAYS[way](shape, f"tortured-{uuid4().hex}")
        times.setdefault(way, []).append(took)
        left[way] += remaining
    result = {
        "rounds": rounds,
        "leftovers": sum(left.values()),
        "grace_ms": GRACE * 1000,
        "ways": {way: figures(took) | {"leftovers": left[way]} for way, took in times.items()},
    }
    print(json.dumps(result))
    return 1 if result["leftovers"] else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    sys.exit(trio.run(torture, parser.parse_args().rounds))


if __name__ == "__main__":
    main()
