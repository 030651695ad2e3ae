"""A trio program that goes on only while a test waits for one of its steps.

A state machine of hypothesis is a plain object whose rules are called one after the other. Here
the trio loop is a guest of those calls: between two of them nothing runs and no time passes.
"""

import queue
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

import outcome
import trio
import trio.testing


T = TypeVar("T")
R = TypeVar("R")

Step = Callable[[], Awaitable[None]]


class Stepper(Generic[T]):
    """`opened` is what the context manager gave; steps run while it is open.

    The clock stands still; a step that lets time pass makes it `jump`.
    """

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self.clock = trio.testing.MockClock()
        self._opening = opening
        self._callbacks: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._ended: outcome.Outcome[None] | None = None
        self._results: list[object] = []
        trio.lowlevel.start_guest_run(
            self._main,
            run_sync_soon_threadsafe=self._callbacks.put,
            done_callback=self._done,
            host_uses_signal_set_wakeup_fd=True,
            clock=self.clock,
        )
        self.opened: T = self._pump()

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._steps, steps = trio.open_memory_channel[Step](1)
        async with self._opening() as opened:
            self._results.append(opened)
            async for step in steps:
                await step()

    def _done(self, ended: outcome.Outcome[None]) -> None:
        self._ended = ended

    def _pump(self) -> Any:
        """Let the program run until a step is done."""
        while not self._results:
            if self._ended is not None:
                self._ended.unwrap()
                raise AssertionError("the program ended by itself")
            self._callbacks.get()()
        return self._results.pop()

    def do(self, act: Callable[[], Awaitable[R]]) -> R:
        """Run one step; raises what it raises."""

        async def step() -> None:
            self._results.append(await outcome.acapture(act))

        self._token.run_sync_soon(self._steps.send_nowait, step)
        result: outcome.Outcome[R] = self._pump()
        return result.unwrap()

    def close(self) -> None:
        """Let the program end."""
        if self._ended is None:
            self._token.run_sync_soon(self._steps.close)
        while self._ended is None:
            self._callbacks.get()()
        self._ended.unwrap()
