"""The one task that writes to the store, for all sessions.

A commit starts at once when none runs; what arrives meanwhile, from all sessions, is the next
one. There is no timer: batches form by themselves when the disk is the slower side.

When there is no space the batch stays first and is tried again; nothing of it was told. While it
waits, agents wait too, and verdicts, answers and kills may use the store's reserve. When the
medium fails, the store is opened anew and asked what it has before anything is written twice.
"""

import logging
import time
from collections.abc import Callable, Sequence
from itertools import islice

import msgspec
import trio

from moorage_daemon.log.floor import Floor
from moorage_daemon.log.log import CONTROL_KINDS, Log, Urgency
from moorage_daemon.log.render import check_bodies
from moorage_daemon.store.port import (
    Change,
    Page,
    Store,
    StoreConflict,
    StoreError,
    StoreFull,
    StoreTooLarge,
)


logger = logging.getLogger(__name__)

ROOM_FOR_ALL = 8 * 2**20  # bytes of all sessions that may wait for the disk before agents do
BATCH = 2**19  # bytes of output in one commit: more would keep those waiting who wait for the next
MAX_LOGS = 32  # sessions with output in one commit: each is at least a page of its own to write
RETRY_FULL = 0.25  # seconds between attempts while the disk is full
READ_ENTRIES = 1000  # rows of one page: bounded beside its bytes


class _Part(msgspec.Struct, frozen=True):
    """What one commit does to one log; `size` bytes waited for it."""

    log: Log
    change: Change
    size: int


class Committer:
    """Batches what logs submit and commits it; `run` is its task.

    `patience` is how many seconds a full disk is waited for before those are told who cannot
    wait any longer. With fewer than `floor` bytes of free space nothing new is to begin.
    """

    def __init__(
        self,
        store: Store,
        *,
        patience: float,
        floor: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store = store
        self.now = clock
        self.floor = floor
        self._floor = Floor(store.free, floor)
        self._removal = trio.Event()
        self._full_since: float | None = None
        self._failed = False  # the last that was to be written
        self._patience = patience
        self._dirty: dict[Log, int] = {}
        self._awaited: dict[Log, None] = {}
        self._waiting_bytes = 0
        self._control_waits = False
        self._was_alone = False
        self._work = trio.Event()
        self._progress = trio.Event()
        self._closing = False
        self._written = trio.Event()

    # ---- for logs

    @property
    def full(self) -> bool:
        """Whether the disk has no room for more than verdicts."""
        return self._full_since is not None

    @property
    def is_well(self) -> bool:
        """Whether the last that was to be written is durable, and the disk takes more.

        Known without asking the disk; `prove` asks it.
        """
        return not self._failed and not self.full

    async def prove(self) -> None:
        """Try every step of durable writing; raises `StoreError`."""
        try:
            await self.store.health()
        except StoreError:
            self._failed = True
            raise
        self._failed = False

    @property
    def low(self) -> bool:
        """Whether nothing new may begin, for want of space."""
        return self.full or self._floor.is_reached

    @property
    def exhausted(self) -> bool:
        """Whether it has been full for longer than `patience`."""
        since = self._full_since
        return since is not None and trio.current_time() - since >= self._patience

    def submit(self, log: Log, size: int, urgency: Urgency) -> None:
        """The log has something new to write."""
        self._dirty[log] = self._dirty.get(log, 0) + size
        self._waiting_bytes += size
        if urgency is not Urgency.STREAMED:
            self._awaited[log] = None
            self._control_waits |= urgency is Urgency.CONTROL
        self._work.set()

    def has_room(self) -> bool:
        """Whether agents may go on."""
        return self._waiting_bytes <= ROOM_FOR_ALL

    async def progress(self) -> None:
        """Wait until a commit has ended, well or not."""
        await self._progress.wait()

    async def read(self, session: str, after: int, max_bytes: int) -> Page:
        """Stored entries beyond `after`, to be told."""
        page = await self.store.entries(session, after, limit=READ_ENTRIES, max_bytes=max_bytes)
        check_bodies(session, page.entries)
        return page

    async def delete(self, session: str) -> bool:
        """Remove all that is stored of a session; False if there was nothing.

        On a full disk that takes some of the reserve.
        """
        try:
            was_there = await self.store.delete(session)
        except StoreFull:
            if not self.store.release_reserve():
                raise
            was_there = await self.store.delete(session)
            self.store.restore_reserve()
        event, self._removal = self._removal, trio.Event()
        event.set()
        return was_there

    async def removal(self) -> None:
        """Wait until a session is removed."""
        await self._removal.wait()

    # ---- the task

    async def run(self) -> None:
        """Commit until `close` was called and nothing is left to write."""
        while not (self._closing and not self._dirty):
            await self._wait_for_work()
            if self._dirty:
                await self._write(self._take())
            if self.full and self.store.restore_reserve():
                self._full_since = None
            self._stir()
        self._written.set()

    def close(self) -> None:
        """Let `run` end when all is written."""
        self._closing = True
        self._work.set()

    async def written(self) -> None:
        """Wait for the end of `run`."""
        await self._written.wait()

    async def _wait_for_work(self) -> None:
        if self.full:
            with trio.move_on_after(RETRY_FULL):
                await self._work.wait()
        else:
            await self._work.wait()
        self._work = trio.Event()
        if self._closing:
            self._work.set()

    def _take(self) -> list[_Part]:
        """The next batch: what somebody waits for and, every other time at least, the output that
        has waited longest. Alone, the little that is waited for is written in no time."""
        urgent = [*self._awaited]
        self._awaited.clear()
        self._control_waits = False  # what there is of it is in this batch
        parts = [self._part(log) for log in urgent if log in self._dirty]
        self._was_alone = bool(parts) and not self._was_alone
        if not self._was_alone:
            parts += self._output(BATCH - sum(part.size for part in parts))
        if self._dirty:
            self._work.set()
        return parts

    def _output(self, room: int) -> list[_Part]:
        parts: list[_Part] = []
        for log in list(islice(self._dirty, MAX_LOGS)):
            parts.append(self._part(log))
            room -= parts[-1].size
            if room <= 0:
                break
        return parts

    def _part(self, log: Log) -> _Part:
        size = self._dirty.pop(log)
        return _Part(log, log.take(), size)

    async def _write(self, batch: list[_Part]) -> None:
        try:
            await self._commit(batch)
        except StoreConflict as conflict:
            await self._leave_out(conflict.session, batch)
        except StoreTooLarge as refusal:
            await self._write_less(refusal.session, batch)
        except StoreError:
            logger.exception("a commit failed: opening the store anew")
            await self._rescue(batch)
        else:
            for part in batch:
                self._tell(part)

    def _tell(self, part: _Part) -> None:
        self._waiting_bytes -= part.size
        part.log.committed(part.change, part.size)

    def _fail(self, part: _Part) -> None:
        later = self._dirty.pop(part.log, 0)  # it continues what was lost
        self._awaited.pop(part.log, None)
        self._waiting_bytes -= part.size + later
        part.log.fail()

    def _stir(self) -> None:
        event, self._progress = self._progress, trio.Event()
        event.set()

    # ---- a full disk

    async def _commit(self, batch: Sequence[_Part]) -> None:
        """Commit, however long the disk is full."""
        changes = [part.change for part in batch]
        urgent = any(_is_control(change) for change in changes)
        while True:
            try:
                await self.store.commit(changes)
            except StoreFull:
                self._found_full()
            else:
                self._failed = False
                return
            if (urgent or self._control_waits) and self.store.release_reserve():
                continue
            if self.exhausted:
                self._give_up(batch)
            await self._pause()

    def _found_full(self) -> None:
        if self._full_since is None:
            logger.warning("the disk is full: waiting for space")
            self._full_since = trio.current_time()

    def _give_up(self, batch: Sequence[_Part]) -> None:
        for log in {*self._dirty, *(part.log for part in batch)}:
            log.give_up()
        self._stir()

    async def _pause(self) -> None:
        """Wait for the next attempt; a verdict or a kill that arrives makes it at once."""
        self._control_waits = False
        with trio.move_on_after(RETRY_FULL):
            while not self._control_waits:
                self._work = trio.Event()
                await self._work.wait()
        self._work.set()

    # ---- a session that does not continue what is stored

    async def _leave_out(self, session: str, batch: list[_Part]) -> None:
        """Nothing was written, for the sake of one session: it stops here, the others go on."""
        logger.error("a session does not fit what is stored", extra={"session": session})
        fitting = [part for part in batch if part.change.session != session]
        for part in batch:
            if part not in fitting:
                self._fail(part)
        if fitting:
            await self._write(fitting)

    async def _write_less(self, session: str, batch: list[_Part]) -> None:
        """Nothing was written, for it was too much at once: a session that is too much by itself
        stops here, the others go on."""
        if len(batch) == 1:
            logger.error("a session has too much to write at once", extra={"session": session})
            self._fail(batch[0])
            return
        half = len(batch) // 2
        await self._write(batch[:half])
        await self._write(batch[half:])

    # ---- a broken medium

    async def _rescue(self, batch: Sequence[_Part]) -> None:
        """After a failure nobody knows what was written: ask the store, then write the rest.

        Session by session, so that one that cannot be written takes no other with it.
        """
        try:
            await self.store.reopen()
        except StoreError:
            logger.exception("the store cannot be opened")
            self._failed = True
            for part in batch:
                self._fail(part)
            return
        for part in batch:
            try:
                if not await self._is_stored(part.change):
                    await self._commit([part])
            except StoreError:
                logger.exception("a session cannot be written: it stops here")
                self._failed = True
                self._fail(part)
            else:
                self._tell(part)

    async def _is_stored(self, change: Change) -> bool:
        tip = await self.store.tip(change.session)
        if change.entries:
            return tip is not None and tip >= change.entries[-1].seq
        return change.create and tip is not None


def _is_control(change: Change) -> bool:
    return any(entry.kind in CONTROL_KINDS for entry in change.entries)
