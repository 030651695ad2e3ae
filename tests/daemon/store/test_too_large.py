"""More in one commit than could be read back is refused, and nothing of it is written."""

from collections.abc import Generator
from pathlib import Path

import apsw
import pytest

from moorage_daemon.store.files import frames, shelf
from moorage_daemon.store.files.commits import MAX_PUTS
from moorage_daemon.store.files.opening import open_shelf
from moorage_daemon.store.files.pieces import drafted
from moorage_daemon.store.port import Change, StoreTooLarge
from tests.daemon.store.backends import Backend
from tests.daemon.store.platters import Platter, TestDisk
from tests.daemon.store.samples import a_head, all_entries, an_entry, creation, raw


MOST = 2**18  # bytes of a frame, and of a row, in these tests
BESIDE = frames.MAX_FRAME - MAX_PUTS


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Stores that can read back no more than so much at once."""

    def limit(connection: apsw.Connection) -> None:
        connection.limit(apsw.SQLITE_LIMIT_LENGTH, MOST)

    monkeypatch.setattr(frames, "MAX_FRAME", MOST)
    monkeypatch.setattr(shelf, "MAX_PUTS", MOST - BESIDE)
    apsw.connection_hooks.append(limit)
    yield
    apsw.connection_hooks.remove(limit)


def of_size(size: int) -> bytes:
    return raw({"x": "x" * size})


@pytest.mark.usefixtures("small")
async def test_what_could_not_be_read_back_is_refused_for_its_session(durable: Backend) -> None:
    async with durable.open() as store:
        await store.commit([creation("s1"), creation("s2")])
        large = Change("s1", (an_entry(1, of_size(MOST)),), a_head("s1", title="t"))
        with pytest.raises(StoreTooLarge) as caught:
            await store.commit([Change("s2", (an_entry(1),)), large])
        labelled = a_head("s1", title="x" * MOST)
        with pytest.raises(StoreTooLarge):
            await store.commit([Change("s1", head=labelled)])

        assert caught.value.session == "s1"
        assert [await store.tip(session) for session in ("s1", "s2")] == [0, 0]
        await store.commit([Change("s2", (an_entry(1),))])

    async with durable.open() as store:
        assert [await store.tip(session) for session in ("s1", "s2")] == [0, 1]
        assert (await store.check()).problems == []


@pytest.mark.usefixtures("small")
async def test_the_most_that_is_taken_is_read_back(durable: Backend) -> None:
    entry = an_entry(1, of_size(MOST - BESIDE - 1000))
    async with durable.open() as store:
        await store.commit([creation("s1"), creation("s2")])
        await store.commit([Change("s1", (entry,), a_head("s1", title="t"))])

    async with durable.open() as store:
        assert await all_entries(store, "s1") == [entry]
        await store.trim("s1", 1)
        assert (await store.check()).problems == []


@pytest.mark.usefixtures("small")
def test_the_most_that_is_taken_is_found_in_the_log_of_commits(tmp_path: Path) -> None:
    changes = [creation("s1"), Change("s1", (an_entry(1, of_size(MOST - BESIDE - 1000)),))]
    for _ in range(3):  # each time it is written into another segment
        disk = TestDisk(tmp_path, Platter())
        opened = open_shelf(disk)
        if changes:
            opened.commit(changes, [drafted(change) for change in changes])
            changes = []

        assert opened.standing["s1"].place.seq == 1
        opened.close()
        disk.close()
