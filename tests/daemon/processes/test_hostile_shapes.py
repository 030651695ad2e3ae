"""No process of a command is left, whatever the command does and however it ends."""

import os
import signal
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from moorage_daemon.processes.environment import tool_environment
from moorage_daemon.processes.process import Exited, Process
from moorage_daemon.processes.spawn import spawn


SHAPES = (
    "setsid",
    "double-fork",
    "ignores-sigterm",
    "fork-storm",
    "holds-stdout",
    "bare-environment",
)
GRACE = 0.2  # seconds

Hostile = Callable[..., list[str]]
Marked = Callable[[], list[int]]
Until = Callable[[Callable[[], bool]], Awaitable[None]]


def start(command: list[str]) -> Process:
    return spawn(command, cwd=Path("/"), env=tool_environment(os.environ), grace=GRACE)


async def is_ready(process: Process) -> None:
    while "ready" not in process.output.text():
        assert process.exit is None, process.exit
        await process.more(process.output.total)


@pytest.mark.parametrize("shape", SHAPES)
async def test_kill_leaves_nothing(shape: str, hostile: Hostile, marked: Marked) -> None:
    with trio.fail_after(30):
        process = start(hostile(shape))
        async with process.attended():
            await is_ready(process)
            assert len(marked()) >= 2
            process.kill()
            await process.wait()

            assert marked() == []


@pytest.mark.parametrize("shape", SHAPES)
async def test_cancelled_scope_leaves_nothing(shape: str, hostile: Hostile, marked: Marked) -> None:
    with trio.fail_after(30):
        process = start(hostile(shape))
        with trio.CancelScope() as scope:
            async with process.attended():
                await is_ready(process)
                scope.cancel()
                await process.wait()

        assert scope.cancelled_caught
        assert process.exit is not None
        assert marked() == []


@pytest.mark.parametrize("shape", SHAPES)
async def test_death_of_the_owner_leaves_nothing(
    shape: str, hostile: Hostile, owner: list[str], marked: Marked, until: Until
) -> None:
    daemon = subprocess.Popen([*owner, *hostile(shape)], stdout=subprocess.PIPE)
    with daemon:
        assert daemon.stdout is not None
        with trio.fail_after(30):
            supervisor = int(await trio.to_thread.run_sync(daemon.stdout.readline))
            assert len(marked()) >= 2
            daemon.send_signal(signal.SIGKILL)

    await until(lambda: marked() == [])
    await until(lambda: not is_alive(supervisor))


async def test_death_of_an_owner_that_had_not_read_the_report_leaves_nothing(
    hostile: Hostile, owner: list[str], marked: Marked, until: Until
) -> None:
    """Such a death is no end of file on the socket but a reset."""
    with subprocess.Popen([*owner, "--deaf", *hostile("setsid")]) as daemon:
        try:
            await until(lambda: len(marked()) >= 3)  # the owner has the marker too
        finally:
            daemon.kill()

    await until(lambda: marked() == [])


@pytest.mark.parametrize("shape", SHAPES)
async def test_end_of_the_main_process_leaves_nothing(
    shape: str, hostile: Hostile, marked: Marked
) -> None:
    with trio.fail_after(30):
        process = start(hostile(shape, "exit"))
        async with process.attended():
            ended = await process.wait()

            assert ended == Exited(0)
            assert process.output.text() == "ready\n"
            assert marked() == []


# Not the storm: ending it without a supervisor is a matter of luck and seconds, see `orphans`.
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "fork-storm"])
async def test_death_of_the_supervisor_leaves_nothing(
    shape: str, hostile: Hostile, marked: Marked
) -> None:
    with trio.fail_after(30):
        process = start(hostile(shape))
        async with process.attended():
            await is_ready(process)
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()

            assert marked() == []


async def test_killing_the_process_group_alone_would_leave_the_setsid_child(
    hostile: Hostile, marked: Marked, until: Until
) -> None:
    """The control arm: it shows that the search sees what is left."""
    command = subprocess.Popen(hostile("setsid"), stdout=subprocess.PIPE, start_new_session=True)
    with command:
        assert command.stdout is not None
        assert await trio.to_thread.run_sync(command.stdout.readline) == b"ready\n"
        os.killpg(command.pid, signal.SIGKILL)

    await until(lambda: len(marked()) == 1)


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(b")")[2].split()[0] != b"Z"
