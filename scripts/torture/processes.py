"""Ends hostile commands by cancel, by kill and by SIGKILL to the daemon, and counts what is left.

Each command runs in a session of its own, with permission. The figures are the time from the
request, or the signal, to the end of a look at /proc that met no process of it; a look takes some
milliseconds. A cancelled command is asked first: one that ignores that takes its grace.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import cycle
from pathlib import Path
from uuid import uuid4

import trio

from scripts.torture.client import Client, Pending, open_client
from scripts.torture.daemon import Daemon, complaints, start_daemon
from scripts.torture.leftovers import Left, marked, until_gone
from scripts.torture.report import Program, Report, run, spread
from scripts.torture.wire import Carrier, Gone


PROGRAM = Program("processes", __doc__, rounds=200, quick_rounds=18)

HOSTILE = Path(__file__).parents[2] / "tests" / "daemon" / "processes" / "hostile.py"
SHAPES = (
    "setsid",
    "double-fork",
    "ignores-sigterm",
    "holds-stdout",
    "bare-environment",
    "fork-storm",  # started last and ended first: beside it everything is slow
)
START = 10.0  # seconds until a command has all its processes and its output was shown
ANSWER = 5.0  # seconds for the answer to a cancel or a kill
PROMPT_END = 0.1  # seconds in which a kill should end everything: figures count who took longer
CONTROL_LIMIT = 0.5  # seconds that a control arm is watched


class Way(StrEnum):
    """How a command is ended."""

    CANCEL = "cancel"
    KILL = "kill"
    SIGKILL = "daemon_sigkill"


@dataclass(frozen=True)
class Running:
    """A hostile command at work."""

    shape: str
    marker: str
    session: str
    prompt: Pending


@dataclass(eq=False)
class Endings:
    """What was ended, and how long that took."""

    report: Report
    took: dict[Way, list[float]] = field(default_factory=lambda: {way: [] for way in Way})
    slowest: dict[Way, str] = field(default_factory=dict[Way, str])
    left: int = 0

    @property
    def done(self) -> int:
        """How many commands were ended."""
        return sum(len(took) for took in self.took.values())

    def note(self, way: Way, running: Running, left: Left) -> None:
        """One command was ended."""
        if left.took >= max(self.took[way], default=0.0):
            self.slowest[way] = running.shape
        self.took[way].append(left.took)
        self.left += len(left.pids)
        self.report.check(
            not left.pids, f"{way}: {len(left.pids)} processes of {running.shape} are left"
        )

    def figures(self, way: Way) -> dict[str, object]:
        """As they are printed."""
        late = sum(took > PROMPT_END for took in self.took[way])
        return {
            **spread(self.took[way]),
            "slowest": self.slowest.get(way),
            "over_100_ms": late,
        }


def command(shape: str, marker: str) -> list[str]:
    """The command of that shape."""
    return [sys.executable, "-I", "-S", str(HOSTILE), shape, marker]


@asynccontextmanager
async def all_shapes(
    report: Report, daemon: Daemon
) -> AsyncGenerator[tuple[Client, list[Running]]]:
    """One command of each shape, started through the daemon and ready."""
    async with open_client(daemon.address, Carrier.WEBSOCKET) as client:
        running = [await _start(report, client, shape) for shape in SHAPES]
        with trio.fail_after(START):
            for each in running:
                await _until_ready(client, each)
        yield client, running


async def _until_ready(client: Client, running: Running) -> None:
    ledger = client.ledger(running.session)
    await client.until(lambda: "ready" in ledger.shown)
    assert len(marked(running.marker)) >= 2, running


async def _start(report: Report, client: Client, shape: str) -> Running:
    marker = f"tortured-{uuid4().hex}"
    session = await client.new(str(report.work))
    prompt = await client.prompt(session, f"/run {shlex.join(command(shape, marker))}")
    return Running(shape, marker, session, prompt)


# ---- the ways


async def by_cancel(endings: Endings, client: Client, running: Running) -> None:
    """The client cancels, and the prompt is answered."""
    began = time.monotonic()
    await client.notify("session/cancel", {"sessionId": running.session})
    endings.note(Way.CANCEL, running, *await until_gone([running.marker], began))
    with trio.fail_after(ANSWER):
        answer = await running.prompt.result()
    endings.report.check(answer["stopReason"] == "cancelled", f"cancel: answered {answer}")


async def by_kill(endings: Endings, client: Client, running: Running) -> None:
    """An operator kills the session."""
    began = time.monotonic()
    kill = await client.start("session/kill", {"sessionId": running.session})
    endings.note(Way.KILL, running, *await until_gone([running.marker], began))
    with trio.fail_after(ANSWER):
        answer = await kill.result()
    well = answer["killed"] and answer["durable"] and answer["processes"] == 1
    endings.report.check(well, f"kill: answered {answer}")


async def by_sigkill(endings: Endings, daemon: Daemon, running: list[Running]) -> None:
    """The daemon dies, and all its commands with it."""
    began = time.monotonic()
    daemon.process.send_signal(signal.SIGKILL)
    found = await until_gone([each.marker for each in running], began)
    for each, left in zip(running, found, strict=True):
        endings.note(Way.SIGKILL, each, left)
    await daemon.process.wait()


# ---- control arms


async def killed_group(shape: str) -> bool:
    """Whether killing no more than the process group leaves something that is noticed."""
    marker = f"tortured-{uuid4().hex}"
    await trio.to_thread.run_sync(_run_and_kill_group, command(shape, marker))
    (left,) = await until_gone([marker], time.monotonic(), limit=CONTROL_LIMIT)
    return bool(left.pids)


def _run_and_kill_group(command: list[str]) -> None:
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.killpg(process.pid, signal.SIGKILL)


async def torture(report: Report) -> None:
    """End all shapes in one way after the other."""
    endings = Endings(report)
    state = report.work / "state"
    daemon = await (await start_daemon(state)).ready()
    try:
        for way in cycle(Way):
            if endings.done >= report.rounds:
                break
            with suppress(Gone):
                await _one_way(endings, daemon, way)
            if not daemon.is_alive:
                daemon = await (await start_daemon(state)).ready()
            report.say(f"{endings.done} commands ended, {endings.left} processes left")
    finally:
        with trio.move_on_after(ANSWER, shield=True):
            await daemon.kill()
    for line in complaints(state):
        report.violation(f"the daemon's log: {line}")
    for shape in ("setsid", "double-fork", "bare-environment"):
        report.control(f"killing only the group of {shape}", await killed_group(shape))
    report.figures["ended"] = endings.done
    report.figures["left"] = endings.left
    report.figures |= {way: endings.figures(way) for way in Way}


async def _one_way(endings: Endings, daemon: Daemon, way: Way) -> None:
    async with all_shapes(endings.report, daemon) as (client, running):
        match way:
            case Way.CANCEL:
                for each in reversed(running):
                    await by_cancel(endings, client, each)
            case Way.KILL:
                for each in reversed(running):
                    await by_kill(endings, client, each)
            case Way.SIGKILL:
                await by_sigkill(endings, daemon, running)


if __name__ == "__main__":
    run(PROGRAM, torture)
