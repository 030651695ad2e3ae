"""What tests with real processes need: a marker, and a way to find who carries it."""

import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
import trio


HERE = Path(__file__).parent


def find(marker: str) -> list[int]:
    """Find living processes with the marker in their arguments or environment, this one apart.

    It reads /proc and nothing of what the code under test knows about its processes.
    """
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                told = (
                    entry.joinpath("cmdline").read_bytes() + entry.joinpath("environ").read_bytes()
                )
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if marker.encode() in told:
                found.append(int(entry.name))
    return found


def find_often(marker: str) -> list[int]:
    """Look three times: one look can miss a process that forks and ends all the time."""
    return sorted({pid for _ in range(3) for pid in find(marker)})


@pytest.fixture
def marker() -> Iterator[str]:
    """A word that no other process has in its arguments; who has it in the end is killed."""
    marker = f"marked-{uuid4().hex}"
    yield marker
    while left := find_often(marker):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def marked(marker: str) -> Callable[[], list[int]]:
    """Find the living processes that carry the marker."""
    return lambda: find_often(marker)


@pytest.fixture
def hostile(marker: str) -> Callable[..., list[str]]:
    """Make the command of a hostile shape, marked."""

    def command(shape: str, *more: str) -> list[str]:
        return [sys.executable, "-I", "-S", str(HERE / "hostile.py"), shape, marker, *more]

    return command


@pytest.fixture
def owner() -> list[str]:
    """The beginning of a command that owns another one, as the daemon does."""
    return [sys.executable, str(HERE / "owner.py")]


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Wait until something about other processes holds: nobody tells us, so look."""

    async def wait(holds: Callable[[], bool]) -> None:
        with trio.fail_after(30):
            while not holds():  # noqa: ASYNC110
                await trio.sleep(0.002)

    return wait


@pytest.fixture(autouse=True)
def no_child_is_left() -> Iterator[None]:
    """After each test this process has no child, not even a zombie."""
    yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
