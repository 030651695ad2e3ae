"""Kills a daemon's core at every point at which it changes the disk, and fails it at each.

A scripted sitting is played once for each call that writes, syncs, cuts, renames or removes a
file: the process is killed in that call, or the call fails with EIO or ENOSPC. Whatever it was,
all that was told and answered has to be there afterwards, and to be read. `--rounds` is how many
points of each kind of call are taken at most, spread evenly.
"""

import logging
import re
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import trio

from moorage_daemon.store.port import StoreError
from scripts.torture.report import CannotRun, Program, Report, run
from scripts.torture.sitting import STORES, Sitting, judge, play, read_left, scribe
from scripts.torture.wire import Gone


PROGRAM = Program("points", __doc__, rounds=10_000, quick_rounds=3)

CALLS = (
    "pwrite64", "fdatasync", "fsync", "ftruncate", "fallocate", "rename", "renameat", "renameat2",
    "unlink", "unlinkat", "mkdir", "mkdirat",
)  # fmt: skip
ACTIONS = {"kill": "signal=SIGKILL", "EIO": "error=EIO", "ENOSPC": "error=ENOSPC"}
AT_ONCE = 2  # sittings side by side: they wait for the disk most of the time
TRIES = 5  # two commits that meet are one, and then there is one call less than was counted
SAY_EVERY = 50
CONTROL_AT = (20, 30, 40)  # the writes at which a store that promises too much is killed

_CALL = re.compile(r"^(\d+) +(\w+)\(", re.MULTILINE)


@dataclass(frozen=True)
class Point:
    """One call, and what happens in it."""

    store: str
    call: str
    number: int
    action: str
    fault: str = "none"

    @property
    def tracer(self) -> list[str]:
        """The tracer that makes it happen."""
        inject = f"inject={self.call}:{ACTIONS[self.action]}:when={self.number}"
        quick = [] if self.action == "kill" else [_QUICK]
        return [*_TRACER, *quick, "-o", "/dev/null", "-e", f"trace={self.call}", "-e", inject]


_TRACER = ("strace", "-f", "-qq")
_QUICK = "--seccomp-bpf"  # stops at the wanted calls alone, and sends signals not at all of them


@dataclass(eq=False)
class Points:
    """All points of both stores, and what came of them."""

    report: Report
    done: Counter[str] = field(default_factory=Counter[str])
    told: int = 0

    async def try_all(self, points: list[Point]) -> None:
        """Try them, some side by side."""
        limit = trio.CapacityLimiter(AT_ONCE)
        async with trio.open_nursery() as nursery:
            for number, point in enumerate(points):
                await limit.acquire_on_behalf_of(point)
                nursery.start_soon(self._try, point, number, limit)

    async def _try(self, point: Point, number: int, limit: trio.CapacityLimiter) -> None:
        try:
            for problem in await self.problems(point, self.report.work / f"point{number}"):
                self.report.violation(f"{point}: {problem}")
        finally:
            limit.release_on_behalf_of(point)
        if sum(self.done.values()) % SAY_EVERY == 0:
            self.report.say(f"{sum(self.done.values())} points, {self.told} entries told")

    async def problems(self, point: Point, folder: Path) -> list[str]:
        """What is wrong after that point; the last of its calls may take some tries to be made."""
        sitting = await self._played(point, folder, TRIES)
        self.done[f"{point.store} {point.action}"] += 1
        self.told += sitting.told
        wrong = _judge_end(point, sitting)
        try:
            wrong += judge(sitting, await read_left(point.store, sitting.folder / "kept"))
        except (StoreError, AssertionError) as problem:
            wrong.append(f"what is left cannot be read: {problem!r}")
        if not wrong:
            shutil.rmtree(folder)
        return wrong

    async def _played(self, point: Point, folder: Path, tries: int) -> Sitting:
        """The sitting in which it happened, or the last of them."""
        sitting = Sitting(folder / str(tries))
        await sit(sitting, point.store, point.tracer, point.fault)
        missed = point.action == "kill" and sitting.exit_code == 0
        return await self._played(point, folder, tries - 1) if missed and tries > 1 else sitting


async def sit(sitting: Sitting, store: str, tracer: list[str], fault: str = "none") -> None:
    """Play the sitting to its end, or to that of the scribe."""
    try:
        async with scribe(sitting, store, fault=fault, tracer=tracer) as (client, _):
            await play(client, sitting)
    except Gone:
        pass  # before it was greeted


def _judge_end(point: Point, sitting: Sitting) -> list[str]:
    wrong = [f"{what} did not come in time" for what in sitting.late]
    killed = sitting.exit_code == -signal.SIGKILL
    if point.action == "kill":
        return wrong if killed else [*wrong, f"it was not killed: {sitting.exit_code}"]
    refused = sitting.exit_code == 1 and sitting.last_words.splitlines()[-1].startswith("scribe: ")
    if sitting.exit_code != 0 and not (refused and not sitting.new):
        wrong.append(f"it ended with {sitting.exit_code}: {sitting.last_words[-500:]}")
    return wrong


async def count(report: Report, store: str) -> Counter[str]:
    """How often a sitting makes each call, in the thread that makes it most."""
    sitting = Sitting(report.work / f"count-{store}")
    trace = report.work / f"{store}.trace"
    await sit(
        sitting, store, [*_TRACER, _QUICK, "-o", str(trace), "-e", f"trace={','.join(CALLS)}"]
    )
    report.check(sitting.exit_code == 0, f"{store}: it ended with {sitting.exit_code}")
    for problem in judge(sitting, await read_left(store, sitting.folder / "kept")):
        report.violation(f"{store}, left alone: {problem}")
    found: Counter[str] = Counter()
    for (_, call), times in Counter(_CALL.findall(await trio.Path(trace).read_text())).items():
        found[call] = max(found[call], times)
    return found


def points_of(store: str, counts: Counter[str], most: int) -> Iterator[Point]:
    """Every call with every action, or so many of each kind, spread evenly."""
    for call, times in sorted(counts.items()):
        step = max(1, -(-times // most))
        for number in range(1, times + 1, step):
            for action in ACTIONS:
                yield Point(store, call, number, action)


async def torture(report: Report) -> None:
    """Both stores, and then one that says more than it has done."""
    if shutil.which("strace") is None:
        raise CannotRun("there is no strace")
    logging.disable()  # what recovery finds is judged, and expected
    points = Points(report)
    for store in STORES:
        counts = await count(report, store)
        report.figures[f"calls_{store}"] = dict(sorted(counts.items()))
        report.say(f"{store}: {sum(counts.values())} calls of {len(counts)} kinds")
        await points.try_all(list(points_of(store, counts, report.rounds)))
    for store in STORES:
        hasty = [Point(store, "fdatasync", at, "kill", "hasty") for at in CONTROL_AT]
        bad = [
            await points.problems(p, report.work / f"control-{p.store}-{p.number}") for p in hasty
        ]
        report.control(f"{store}, hasty", any(bad))
    report.figures["points"] = dict(points.done)
    report.figures["entries_told"] = points.told


if __name__ == "__main__":
    run(PROGRAM, torture)
