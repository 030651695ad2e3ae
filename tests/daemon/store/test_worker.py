"""The thread behind a store, and the loop that gives way to it."""

from queue import SimpleQueue

import pytest
import trio
import trio.testing

from moorage_daemon.store.handover import GilHandover
from moorage_daemon.store.worker import Worker, open_worker


async def test_jobs_run_in_the_order_of_their_calls() -> None:
    done: list[int] = []
    async with open_worker("test") as worker, trio.open_nursery() as nursery:
        for number in range(50):

            async def hand_over(number: int = number) -> None:
                await worker.run(lambda: done.append(number))

            nursery.start_soon(hand_over)
            await trio.testing.wait_all_tasks_blocked()

    assert done == list(range(50))


async def test_a_job_returns_and_raises_where_it_is_waited_for() -> None:
    def fail() -> None:
        raise LookupError("of the job")

    async with open_worker("test") as worker:
        assert await worker.run(lambda: 7) == 7
        with pytest.raises(LookupError, match="of the job"):
            await worker.run(fail)
        assert await worker.run(lambda: 8) == 8


async def test_pending_counts_what_is_not_reported_back() -> None:
    gate: SimpleQueue[None] = SimpleQueue()
    async with open_worker("test") as worker:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run, gate.get)
            nursery.start_soon(worker.run, gate.get)
            await trio.testing.wait_all_tasks_blocked()
            assert worker.pending == 2
            nursery.cancel_scope.cancel()
        assert worker.pending == 2
        gate.put(None)
        gate.put(None)
        await worker.run(lambda: None)

        assert worker.pending == 0


async def test_what_follows_a_job_comes_before_the_next_one() -> None:
    done: list[str] = []
    async with open_worker("test") as worker:
        await worker.run(lambda: done.append("a"), afterwards=lambda: done.append("after a"))
        await worker.run(lambda: done.append("b"))

    assert done == ["a", "after a", "b"]


async def test_the_thread_outlives_a_failure_of_what_follows_a_job(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> None:
        raise LookupError("of what follows")

    async with open_worker("test") as worker:
        await worker.run(lambda: None, afterwards=fail)

        assert await worker.run(lambda: 1) == 1

    assert "of what follows" in caplog.text


async def test_stopping_finishes_the_queue_and_takes_no_more() -> None:
    done: list[int] = []
    gate: SimpleQueue[None] = SimpleQueue()
    worker = Worker("test")
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run, gate.get)
            nursery.start_soon(worker.run, lambda: done.append(1))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(worker.stop)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.ClosedResourceError):
                await worker.run(lambda: done.append(2))
            gate.put(None)
        await worker.stop()

    assert done == [1]


async def test_a_thread_that_hangs_is_left_behind(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    gate: SimpleQueue[None] = SimpleQueue()
    async with open_worker("test") as worker:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run, gate.get)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    assert "a thread hangs" in caplog.text
    gate.put(None)


class Counting(GilHandover):
    """Counts how often it gives way, and does not."""

    times = 0

    def give_way(self) -> None:
        self.times += 1


async def test_only_a_busy_loop_with_an_open_job_gives_way() -> None:
    gate: SimpleQueue[None] = SimpleQueue()
    async with open_worker("idle") as idle, open_worker("test") as worker:
        handover = Counting(idle, worker)
        handover.before_io_wait(0)
        assert handover.times == 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run, gate.get)
            await trio.testing.wait_all_tasks_blocked()

            handover.before_io_wait(0.01)
            assert handover.times == 0
            handover.before_io_wait(0)
            assert handover.times == 1
            gate.put(None)


async def test_a_busy_loop_gives_way_only_now_and_then() -> None:
    gate: SimpleQueue[None] = SimpleQueue()
    async with open_worker("test") as worker, trio.open_nursery() as nursery:
        handover = Counting(worker)
        nursery.start_soon(worker.run, gate.get)
        await trio.testing.wait_all_tasks_blocked()

        for _ in range(1000):
            handover.before_io_wait(0)

        assert 1 <= handover.times < 500
        gate.put(None)
