"""The loop lets a worker's thread have the interpreter while one has work.

A loop with always something to run gives the interpreter up for each look at its sockets, but
takes it back before any other thread has woken: without this a durable commit was reported after
up to 8 seconds instead of one or two milliseconds. A shorter switch interval does not cure that.
"""

import time

import trio

from moorage_daemon.store.worker import Worker


SLEEP = 10e-6  # seconds; the system makes 80 µs of it, in which a waiting thread has woken
EVERY = 0.5e-3  # seconds between two sleeps, so the loop loses a tenth while a job is open


class GilHandover(trio.abc.Instrument):
    """Sleeps in a busy loop while one of the workers has an open job; an idle loop never needs it.

    The design not taken is work that holds no interpreter at all: the steps of a commit around
    its disk writes are Python.
    """

    def __init__(self, *workers: Worker) -> None:
        self._workers = workers
        self._last = 0.0

    def before_io_wait(self, timeout: float) -> None:
        """Give way if something is runnable in the loop and in a worker."""
        if timeout > 0:
            return
        for worker in self._workers:
            if worker.pending:
                now = time.perf_counter()
                if now - self._last >= EVERY:
                    self.give_way()
                    self._last = time.perf_counter()
                return

    def give_way(self) -> None:
        """Let other threads run for a moment."""
        _give_way()


class Breather:
    """Lets other threads have the interpreter while a worker's is at a long job.

    A thread that waits for it would have to wait 5 ms each time, and a commit does so thrice.
    """

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def breathe(self) -> None:
        """Give way, unless that was done just before."""
        if time.perf_counter() - self._last >= EVERY:
            _give_way()
            self._last = time.perf_counter()


def _give_way() -> None:
    time.sleep(SLEEP)  # noqa: TID251  # blocking is the purpose
