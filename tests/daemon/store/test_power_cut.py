"""A power cut takes nothing that was acknowledged, whatever order the medium wrote in.

The second arm shows that the first can fail: the same store, told to wait for no fsync.
"""

import random
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import apsw
import pytest

from moorage_daemon.store.connection import Connection
from moorage_daemon.store.database import claim, open_writable
from moorage_daemon.store.port import Change, StoreError
from moorage_daemon.store.reading import Reader
from moorage_daemon.store.sqlite import open_sqlite
from tests.daemon.store.media import Step, Tape, open_medium, power_cut
from tests.daemon.store.samples import a_head, an_entry, creation


COMMITS = 40
IMAGES = 800


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


async def record(path: Path, *, careless: bool) -> list[Step]:
    """Everything the store asks of its medium in a life of commits, checkpoints and restarts."""
    tape = Tape()
    chance = random.Random(7)
    with open_medium(tape.steps.append), meddling(careless=careless):
        async with open_sqlite(path) as store:
            await store.commit([creation("s1")])
            for seq in range(1, COMMITS + 1):
                body = b"x" * chance.choice([20, 900, 5000])
                await store.commit(
                    [Change("s1", (an_entry(seq, body),), a_head("s1", title=f"{seq}"))]
                )
                tape.ack(seq)
                if seq % 15 == 0:
                    await store.reopen()
    return tape.steps


def found_after(folder: Path) -> tuple[int, str]:
    """How many entries are there, and what is wrong with the file ("ok" for nothing)."""
    with open_medium(lambda _: None):
        connection = open_writable(claim(folder / "sessions.db"))
        try:
            verdict = str(connection.pragma("integrity_check"))
            page = Reader(connection).entries("s1", 0, COMMITS + 1, 2**30, None)
        finally:
            connection.close()
    assert [entry.seq for entry in page.entries] == list(range(1, len(page.entries) + 1))
    return len(page.entries), verdict


async def damage(tmp_path: Path, *, careless: bool) -> tuple[int, int]:
    """In how many images acknowledged entries are lost, and how many are corrupt."""
    steps = await record(tmp_path / "sessions.db", careless=careless)
    assert sum(step.what == "ack" for step in steps) == COMMITS
    chance = random.Random(11)
    losses = corruptions = 0
    for number in range(IMAGES):
        folder = tmp_path / f"image{number}"
        acked = power_cut(steps, chance.randrange(len(steps) + 1), folder, chance)
        try:
            found, verdict = found_after(folder)
        except StoreError:
            found, verdict = 0, "unreadable"
        losses += found < acked
        corruptions += verdict != "ok"
    return losses, corruptions


async def test_no_acknowledged_entry_is_lost_in_any_power_cut(tmp_path: Path) -> None:
    losses, corruptions = await damage(tmp_path, careless=False)

    assert (losses, corruptions) == (0, 0)


async def test_the_power_cuts_do_take_what_was_not_synced(tmp_path: Path) -> None:
    losses, _ = await damage(tmp_path, careless=True)

    assert losses > 0


@pytest.mark.parametrize("extra", [b"", b"torn"])
def test_a_power_cut_keeps_what_was_synced(tmp_path: Path, extra: bytes) -> None:
    steps = [
        Step("write", "a", 2, b"kept"),
        Step("sync", "a"),
        Step("ack", at=1),
        Step("truncate", "a", 6),
        Step("delete", "b"),
        Step("write", "c", 0, extra),
    ]

    acked = power_cut(steps, len(steps), tmp_path / "image", random.Random(1))

    assert acked == 1
    assert (tmp_path / "image" / "a").read_bytes() == b"\0\0kept"
