"""Starts a daemon twenty times at once, and over whatever dead daemons can leave behind.

A round is twenty programs that look for the daemon of one directory at the same moment: all get a
connection, to one and the same daemon. Then, four times as often, a directory is prepared with
leftovers: lock and record naming a living stranger's pid, garbage, a half-written record, a socket
nobody listens on; the next program must get a daemon all the same, and the stranger must live.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from scripts.torture.report import Program, Report, run, spread


PROGRAM = Program("starts", __doc__, rounds=50, quick_rounds=2)

TOGETHER = 20  # programs
PER_ROUND = 4  # directories with leftovers
PATIENCE = 60.0  # seconds for all of them: twenty interpreters share two processors

# What an editor's bridge does: find the daemon or start it, say hello, tell whose it is.
SEEKER = """
import json, sys
from moorage_clients.bridge import launch
from moorage_protocol import rendezvous
sys.stdin.readline()
connection = launch.connect(sys.argv[1], ["--no-websocket"])
connection.setblocking(True)
hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": 1,
    "_meta": {"moorage": {}}}}
connection.sendall(json.dumps(hello).encode() + b"\\n")
answer = json.loads(connection.makefile("rb").readline())
print(answer["result"]["_meta"]["moorage"]["daemon"]["pid"], flush=True)
"""

# The same without any lock: looks, and starts a daemon of its own where it sees none.
CARELESS = """
import os, sys
sys.stdin.readline()
path = sys.argv[1] + "/careless"
if not os.path.exists(path):
    __import__("time").sleep(0.05)
    open(path, "w").write(str(os.getpid()))
print(open(path).read() or os.getpid(), flush=True)
"""


@dataclass(frozen=True)
class Found:
    """What one program said: the daemon's pid, or what was wrong."""

    pid: int | None
    problem: str = ""


async def seek(program: str, state: Path, number: int) -> list[Found]:
    """Let `number` programs look at the same moment."""
    arguments = [sys.executable, "-c", program, str(state)]
    found: list[Found] = []
    async with trio.open_nursery() as nursery:
        processes = [
            await trio.lowlevel.open_process(
                arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            for _ in range(number)
        ]
        for process in processes:
            assert process.stdin is not None
            await process.stdin.send_all(b"\n")
        for process in processes:
            nursery.start_soon(_listen, process, found)
    return found


async def _listen(process: trio.Process, found: list[Found]) -> None:
    assert process.stdout is not None
    assert process.stderr is not None
    said, errors = b"", b""
    with trio.move_on_after(PATIENCE) as patience:
        async for data in process.stdout:
            said += bytes(data)
        async for data in process.stderr:
            errors += bytes(data)
        await process.wait()
    if patience.cancelled_caught:
        process.kill()
    word = said.strip()
    found.append(Found(int(word)) if word.isdigit() else Found(None, errors.decode()[-300:]))


def daemons_in(state: Path) -> set[int]:
    """The living daemons of a directory, by their arguments."""
    wanted = {os.fsencode(str(state)), b"moorage_daemon"}
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if wanted <= set((entry / "cmdline").read_bytes().split(b"\0")):
                    found.add(int(entry.name))
    return found


async def end(state: Path) -> None:
    """End the daemons of a directory, and wait until they are gone."""
    for pid in daemons_in(state):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with trio.fail_after(PATIENCE):
        while daemons_in(state):  # noqa: ASYNC110 - they are nobody's children here
            await trio.sleep(0.01)


def judge(found: list[Found], daemons: set[int], name: str) -> list[str]:
    """What is wrong with a search."""
    problems = [f"{name}: one got no daemon: {each.problem}" for each in found if each.pid is None]
    told = {each.pid for each in found if each.pid is not None}
    if len(told) != 1 or told != daemons:
        problems.append(f"{name}: they were told of {sorted(told)}, there are {sorted(daemons)}")
    return problems


async def together(report: Report, number: int, took: list[float]) -> None:
    """Twenty at once where there is none."""
    state = report.work / f"t{number}"
    began = trio.current_time()
    found = await seek(SEEKER, state, TOGETHER)
    took.append(trio.current_time() - began)
    for problem in judge(found, daemons_in(state), f"round {number}"):
        report.violation(problem)
    await end(state)


# ---- leftovers


def _record(state: Path, pid: int) -> bytes:
    record = {"pid": pid, "websocket": None, "unix": str(state / "daemon.sock")}
    return json.dumps(record).encode()


def _reused(state: Path, pid: int) -> None:
    (state / "lock").write_text(f"{pid}\n")
    (state / "daemon.json").write_bytes(_record(state, pid))


def _reused_with_socket(state: Path, pid: int) -> None:
    _reused(state, pid)
    _dead_socket(state, pid)


def _dead(state: Path, _pid: int) -> None:
    _reused(state, 2**22 - 1)


def _garbage(state: Path, _pid: int) -> None:
    for name in ("lock", "daemon.json", "daemon.sock", "start.lock", "daemon.json.new"):
        (state / name).write_bytes(os.urandom(200))


def _half(state: Path, pid: int) -> None:
    record = _record(state, pid)
    (state / "daemon.json").write_bytes(record[: len(record) // 2])
    (state / "daemon.json.new").write_bytes(record[:5])


def _dead_socket(state: Path, _pid: int) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(state / "daemon.sock"))


def _empty(state: Path, _pid: int) -> None:
    for name in ("lock", "daemon.json", "start.lock"):
        (state / name).touch()


LEFT: list[Callable[[Path, int], None]] = [
    _reused, _reused_with_socket, _dead, _garbage, _half, _dead_socket, _empty,
]  # fmt: skip


async def over_leftovers(report: Report, number: int, took: list[float]) -> None:
    """One program where a dead daemon left something."""
    state, leave = report.work / f"l{number}", LEFT[number % len(LEFT)]
    state.mkdir(mode=0o700)
    with subprocess.Popen(["sleep", "300"]) as stranger:  # noqa: ASYNC220 - a moment
        leave(state, stranger.pid)
        began = trio.current_time()
        found = await seek(SEEKER, state, 1)
        took.append(trio.current_time() - began)
        for problem in judge(found, daemons_in(state), leave.__name__):
            report.violation(problem)
        report.check(stranger.poll() is None, f"{leave.__name__}: the stranger was ended")
        report.check(
            stranger.pid not in {each.pid for each in found},
            f"{leave.__name__}: the stranger was taken for the daemon",
        )
        stranger.kill()
    await end(state)


async def _each(
    report: Report, count: int, one: Callable[[Report, int, list[float]], Awaitable[None]]
) -> list[float]:
    took: list[float] = []
    for number in range(count):
        await one(report, number, took)
        if (number + 1) % 10 == 0:
            report.say(f"{one.__name__}: {number + 1} of {count}")
    return took


async def careless(report: Report) -> None:
    """Control arm: programs that look before they start, and nothing more."""
    state = report.work / "careless"
    state.mkdir()
    found = await seek(CARELESS, state, TOGETHER)
    told = {each.pid for each in found if each.pid is not None}
    report.control("programs that only look first", judge(found, told, "careless"))


async def torture(report: Report) -> None:
    """Together, over leftovers, carelessly."""
    took = await _each(report, report.rounds, together)
    report.figures["together"] = {"programs": TOGETHER * report.rounds, **spread(took)}
    took = await _each(report, report.rounds * PER_ROUND, over_leftovers)
    report.figures["leftovers"] = spread(took)
    await careless(report)


if __name__ == "__main__":
    run(PROGRAM, torture)
