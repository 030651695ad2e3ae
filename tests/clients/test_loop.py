"""Ctrl-C in a command, wherever it hits."""

import signal
from collections.abc import Iterator

import pytest
import trio

from moorage_clients.cli.loop import run


@pytest.fixture(autouse=True)
def ctrl_c_is_heard() -> Iterator[None]:
    """Tests that run in a shell's background inherit that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_interrupts_no_task_between_its_checkpoints() -> None:
    """Half of a step is a task that waits for another one which never started."""
    went_on = False

    async def step() -> None:
        nonlocal went_on
        signal.raise_signal(signal.SIGINT)
        went_on = True

    async def work() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(step)
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        run(work)

    assert went_on


def test_ctrl_c_ends_a_command_whose_tasks_all_wait() -> None:
    async def work() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            trio.lowlevel.current_trio_token().run_sync_soon(signal.raise_signal, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(work)
