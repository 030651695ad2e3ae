"""What other sessions notice of a trim: one of them commits, one entry after the other, while half
of a long session is removed."""

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import trio

from moorage_daemon.store.model import Entry, Kind
from moorage_daemon.store.port import Change, Store
from scripts.benchmark.figures import spread
from scripts.benchmark.heads import head_of
from scripts.benchmark.wire import Json


MIB = 2**20
BODY = b'{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"%b"}}' % (
    b"x" * 2000
)
ALONE = 300  # commits to compare with
LONG, OTHER = "trimmed", "beside"  # the sessions

Opening = Callable[[], AbstractAsyncContextManager[Store]]


def trim_figures(opened: Opening, mib: int) -> Json:
    """Commits beside the trim of a session of so many MiB."""
    return trio.run(_measure, opened, mib)


async def _measure(opened: Opening, mib: int) -> Json:
    async with opened() as store:
        await store.commit([Change(name, (), head_of(name), create=True) for name in (LONG, OTHER)])
        count = mib * MIB // len(BODY)
        for first in range(1, count + 1, 1000):
            last = min(first + 999, count)
            await store.commit([Change(LONG, tuple(map(_entry, range(first, last + 1))))])
        alone = await _commits(store, 0, trio.Event(), ALONE)
        seconds, beside = await _trimmed(store, count // 2, len(alone))
    return {
        "mib": mib,
        "seconds": round(seconds, 3),
        "commits_meanwhile": len(beside),
        "commit_ms": {**spread(beside), "max": round(max(beside) * 1e3, 3)},
        "commit_ms_alone": {**spread(alone), "max": round(max(alone) * 1e3, 3)},
    }


async def _trimmed(store: Store, before: int, tip: int) -> tuple[float, list[float]]:
    """The seconds of the trim, and of each commit to the other session meanwhile."""
    over, seconds, beside = trio.Event(), 0.0, list[float]()

    async def trim() -> None:
        nonlocal seconds
        began = time.perf_counter()
        if await store.trim(LONG, before) != before - 1:
            raise RuntimeError("entries were not removed")
        seconds = time.perf_counter() - began
        over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trim)
        beside = await _commits(store, tip, over)
    return seconds, beside


async def _commits(store: Store, tip: int, over: trio.Event, most: int = 2**30) -> list[float]:
    """The seconds of each commit until it is over, or so many are done."""
    seconds: list[float] = []
    while not over.is_set() and len(seconds) < most:
        tip += 1
        before = time.perf_counter()
        await store.commit([Change(OTHER, (_entry(tip),))])
        seconds.append(time.perf_counter() - before)
    return seconds


def _entry(seq: int) -> Entry:
    return Entry(seq, 1000.0 + seq, Kind.MESSAGE, BODY, 1)
