"""One thread with a queue of jobs, for work that blocks and must stay in order.

A job that was handed over is done, whether or not its waiter is still there. Not
`trio.to_thread`: its hand-over costs several times what a commit's does, and nothing says that
two of its calls meet the same thread or keep their order.
"""

import logging
import threading  # noqa: TID251  # trio knows a thread per call, not one that owns a connection
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import trio


T = TypeVar("T")

logger = logging.getLogger(__name__)

STOP_PATIENCE = 10.0  # seconds; a medium that hangs longer does not keep the daemon from ending


def _nothing() -> None:
    pass


class _Job(Generic[T]):
    """A call, and later what it returned or raised; `done` is set in the loop."""

    result: T

    def __init__(self, call: Callable[[], T], afterwards: Callable[[], object]) -> None:
        self.call = call
        self.afterwards = afterwards
        self.done = trio.Event()
        self.error: BaseException | None = None
        self.is_abandoned = False

    def execute(self) -> None:
        try:
            self.result = self.call()
        except BaseException as error:  # noqa: BLE001  # raised again where it is waited for
            self.error = error


class Worker:
    """A running thread that takes one job after the other, in the order of the calls.

    `pending` counts the jobs that have not been reported back.
    """

    def __init__(self, name: str) -> None:
        self.pending = 0
        self._stopped = trio.Event()
        self._is_stopping = False
        self._jobs: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._token = trio.lowlevel.current_trio_token()
        # A daemon thread: one that hangs in a dead medium must not hold up the exit.
        threading.Thread(target=self._work, name=name, daemon=True).start()

    @property
    def is_idle(self) -> bool:
        """Whether no job waits; may be asked in the thread."""
        return self._jobs.empty()

    async def run(self, call: Callable[[], T], *, afterwards: Callable[[], object] = _nothing) -> T:
        """Call it in the thread; return or raise what it does.

        `afterwards` is called in the thread too, once the result is on its way back. Being
        cancelled ends only the wait. Raises `trio.ClosedResourceError` after `stop`.
        """
        if self._is_stopping:
            raise trio.ClosedResourceError
        job = _Job(call, afterwards)
        self.pending += 1
        self._jobs.put(job)
        try:
            await job.done.wait()
        except trio.Cancelled:
            job.is_abandoned = True
            raise
        if job.error is not None:
            raise job.error
        return job.result

    async def stop(self) -> None:
        """End the thread after what is already queued, and wait for it."""
        if not self._is_stopping:
            self._is_stopping = True
            self._jobs.put(None)
        await self._stopped.wait()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.execute()
            self._report(self._finish, job)
            self._follow_up(job.afterwards)
            del job  # an idle thread keeps nothing of its last job alive
        self._report(self._stopped.set)

    def _follow_up(self, afterwards: Callable[[], object]) -> None:
        try:
            afterwards()
        except Exception:  # whatever it is, the next job finds a thread
            logger.exception("what follows a job failed")

    def _report(self, call: Callable[..., object], *arguments: object) -> None:
        try:
            self._token.run_sync_soon(call, *arguments)
        except trio.RunFinishedError:
            logger.debug("a job ended after its loop")

    def _finish(self, job: _Job[Any]) -> None:
        self.pending -= 1
        job.done.set()
        if job.is_abandoned and job.error is not None:
            logger.error("a job failed after its waiter was cancelled", exc_info=job.error)


@asynccontextmanager
async def open_worker(name: str) -> AsyncGenerator[Worker]:
    """A worker, and on leaving the end of its thread."""
    worker = Worker(name)
    try:
        yield worker
    finally:
        with trio.move_on_after(STOP_PATIENCE, shield=True) as patience:
            await worker.stop()
        if patience.cancelled_caught:
            logger.error("a thread hangs and is left behind", extra={"thread_name": name})
