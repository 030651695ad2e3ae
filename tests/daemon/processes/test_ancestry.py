"""A tool's processes are recognised by their parent chain, whatever they do to leave it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from moorage_daemon.processes.ancestry import DEPTH, is_descendant
from moorage_daemon.processes.environment import tool_environment
from moorage_daemon.processes.spawn import spawn


SHAPES = ("setsid", "double-fork", "holds-stdout", "bare-environment")


@pytest.mark.parametrize("shape", SHAPES)
async def test_every_process_of_a_tool_descends_from_its_supervisor(
    shape: str, hostile: Callable[..., list[str]], marked: Callable[[], list[int]]
) -> None:
    process = spawn(hostile(shape), cwd=Path("/"), env=tool_environment(os.environ), grace=0.1)
    with trio.fail_after(30):
        async with process.attended():
            while "ready" not in process.output.text():
                await process.more(process.output.total)
            tools = marked()

            assert len(tools) == 2
            assert [is_descendant(pid, {process.pid}) for pid in tools] == [True, True]
            assert not is_descendant(os.getpid(), {process.pid})
            process.kill()


def test_process_is_its_own_descendant_and_its_parents() -> None:
    assert is_descendant(os.getpid(), {os.getpid()})
    assert is_descendant(os.getpid(), {os.getppid()})


def test_sibling_is_no_descendant() -> None:
    with subprocess.Popen(["sleep", "60"]) as one, subprocess.Popen(["sleep", "60"]) as other:
        try:
            assert not is_descendant(one.pid, {other.pid})
        finally:
            one.kill()
            other.kill()


def test_nobody_descends_from_nobody() -> None:
    assert not is_descendant(os.getpid(), set())


def test_peer_from_outside_the_namespace_is_no_descendant() -> None:
    assert not is_descendant(0, {os.getpid()})


def test_process_that_is_gone_counts_as_descendant() -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()

    assert is_descendant(gone.pid, {os.getpid()})


def test_dead_process_that_nobody_reaped_is_followed() -> None:
    with subprocess.Popen(["true"]) as dead:
        os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)

        assert is_descendant(dead.pid, {os.getpid()})
        assert not is_descendant(dead.pid, {dead.pid + 1_000_000})


def test_chain_that_is_too_long_counts_as_descendant() -> None:
    program = (
        "import os, sys\n"
        f"for _ in range({DEPTH + 5}):\n"
        "    if os.fork():\n"
        "        os.wait()\n"
        "        os._exit(0)\n"
        "print(os.getpid(), flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as chain:
        assert chain.stdout is not None
        last = int(chain.stdout.readline())

        assert is_descendant(last, {os.getpid()})
        assert is_descendant(last, {10**9})
