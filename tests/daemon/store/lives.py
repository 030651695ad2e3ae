"""The life of a store, written down step by step, and what a power cut in it leaves.

A life is commits, now and then a restart, and all that stores do between. Every commit is
acknowledged on the tape, so an image of the disk can be held against what was promised by then.
"""

import random
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import apsw

from moorage_daemon.store.connection import Connection
from moorage_daemon.store.database import claim, open_writable
from moorage_daemon.store.disk import Disk
from moorage_daemon.store.files.opening import open_shelf
from moorage_daemon.store.files.reading import Reader as FilesReader
from moorage_daemon.store.files.store import open_files
from moorage_daemon.store.port import Change
from moorage_daemon.store.reading import Reader
from moorage_daemon.store.sqlite import open_sqlite
from tests.daemon.store import platters
from tests.daemon.store.media import Step, Tape, open_medium
from tests.daemon.store.samples import a_head, an_entry, creation


COMMITS = 40
SEGMENT = 2**14  # bytes: lines move into the journals early, so that a short life sees all of it


# ---- SQLite


class Meddler:
    """Before every transaction of the store, in its thread: spare it the syncs, if asked to, and
    now and then move the WAL into the database, which the store does only after megabytes."""

    def __init__(self, *, careless: bool) -> None:
        self._is_careless = careless
        self._transactions = 0

    def meet(self, connection: apsw.Connection) -> None:
        connection.exec_trace = self._before

    def _before(self, cursor: apsw.Cursor, statement: str, bindings: object) -> bool:
        if statement == "begin immediate":
            connection = cast("Connection", cursor.connection)
            if self._is_careless:
                connection.pragma("synchronous", "normal")
            self._transactions += 1
            if self._transactions % 6 == 0:
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        return True


@contextmanager
def meddling(*, careless: bool) -> Generator[None]:
    """All connections opened meanwhile are meddled with."""
    hook = Meddler(careless=careless).meet
    apsw.connection_hooks.append(hook)
    try:
        yield
    finally:
        apsw.connection_hooks.remove(hook)


async def record_sqlite(
    path: Path, *, careless: bool, commits: int = COMMITS, seed: int = 7
) -> list[Step]:
    """Everything the store asks of its medium in a life of commits, checkpoints and restarts."""
    tape = Tape()
    chance = random.Random(seed)
    with open_medium(tape.steps.append), meddling(careless=careless):
        async with open_sqlite(path) as store:
            await store.commit([creation("s1")])
            for seq in range(1, commits + 1):
                body = b"x" * chance.choice([20, 900, 5000])
                await store.commit(
                    [Change("s1", (an_entry(seq, body),), a_head("s1", title=f"{seq}"))]
                )
                tape.ack(seq)
                if seq % 15 == 0:
                    await store.reopen()
    return tape.steps


def found_in_sqlite(folder: Path) -> tuple[int, str]:
    """How many entries are there, and what is wrong with the file ("ok" for nothing)."""
    with open_medium(lambda _: None):
        connection = open_writable(claim(folder / "sessions.db"))
        try:
            verdict = str(connection.pragma("integrity_check"))
            page = Reader(connection).entries("s1", 0, 2**20, 2**30, None)
        finally:
            connection.close()
    assert [entry.seq for entry in page.entries] == list(range(1, len(page.entries) + 1))
    return len(page.entries), verdict


# ---- files


async def record_files(
    path: Path, careless: frozenset[str] = frozenset(), commits: int = COMMITS, seed: int = 7
) -> list[platters.Step]:
    """Everything the store asks of its disk in a life of commits, deletions and restarts.

    "s1" is trimmed now and then, "s2" never.
    """
    platter = platters.Platter(careless=careless)
    chance = random.Random(seed)
    path.mkdir()
    async with open_files(platters.TestDisk(path, platter), SEGMENT) as store:
        await store.commit([creation("s1"), creation("s2")])
        for seq in range(1, commits + 1):
            body = b'{"x":"%b"}' % (b"x" * chance.choice([20, 900, 5000]))
            entry = (an_entry(seq, body),)
            both = [Change(s, entry, a_head(s, title=f"{seq}")) for s in ("s1", "s2")]
            await store.commit([*both, creation(f"of{seq}", 1)])
            if seq > 1:
                await store.delete(f"of{seq - 1}")
            platter.ack(seq)
            if seq % 7 == 0:
                await store.trim("s1", seq - 3)
            if seq % 15 == 0:
                await store.reopen()
    return platter.steps


def found_in_files(folder: Path) -> int:
    """How many entries are there; raises if anything is not as it was written."""
    disk = Disk(folder)
    shelf = open_shelf(disk, SEGMENT)
    try:
        assert shelf.damaged == {}
        seqs = {stored.head.id: stored.seq for stored in shelf.sessions()}
        found = seqs.pop("s1", 0)
        assert seqs.pop("s2", 0) == found  # of one commit
        assert set(seqs) - {f"of{found}"} <= {f"of{found - 1}"}
        for session, firsts in (("s1", (1, *range(4, found, 7))), ("s2", (1,))):
            first = shelf.standing[session].place.first if found else 1
            page = FilesReader(shelf).entries(session, 0, 2**20, 2**30, None)
            assert first in firsts
            assert [entry.seq for entry in page.entries] == list(range(first, found + 1))
        return found
    finally:
        shelf.close()
        disk.close()
