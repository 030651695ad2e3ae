"""A disk that fails under the store of files."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from moorage_daemon.store.files.store import FileStore, open_files
from moorage_daemon.store.port import Change, Store, StoreBroken, StoreError, StoreFull
from tests.daemon.store.platters import Platter, Step, TestDisk, broken, full
from tests.daemon.store.samples import a_head, all_entries, an_entry, creation, entries, seqs


SMALL = 2**13  # bytes of commits before they are moved into the journals


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@asynccontextmanager
async def opened(path: Path, platter: Platter) -> AsyncGenerator[FileStore]:
    async with open_files(TestDisk(path, platter), SMALL) as store:
        yield store


def failing(what: str, of: str = "") -> Callable[[Step], None]:
    """Fail at this kind of step on files whose names begin so."""

    def before(step: Step) -> None:
        if step.what == what and step.name.startswith(of):
            raise broken(step)

    return before


async def test_a_failed_fsync_is_never_tried_again_on_the_same_handle(path: Path) -> None:
    platter = Platter()
    async with opened(path, platter) as store:
        await store.commit([creation("s1", 1)])
        platter.before = failing("sync")
        with pytest.raises(StoreBroken):
            await store.commit([Change("s1", entries(2, 2))])
        platter.before = lambda _: None
        before = len(platter.steps)

        with pytest.raises(StoreBroken, match="not opened anew"):
            await store.commit([Change("s1", entries(2, 2))])
        with pytest.raises(StoreBroken, match="not opened anew"):
            await store.delete("s1")
        assert platter.steps[before:] == []
        assert await store.tip("s1") == 1

        await store.reopen()
        found = await store.tip("s1")
        assert found in (1, 2)  # nobody can say which: hence the port's rule to ask
        await store.commit([Change("s1", entries(found + 1, 3))])
        assert seqs(await store.entries("s1")) == [1, 2, 3]


async def test_what_is_found_after_a_failed_fsync_is_written_anew_before_it_is_told(
    path: Path,
) -> None:
    platter = Platter()
    async with opened(path, platter) as store:
        await store.commit([creation("s1", 1)])
        platter.before = failing("sync")
        with pytest.raises(StoreBroken):
            await store.commit([Change("s1", (an_entry(2, b'{"found":1}'),))])
        platter.before = lambda _: None
        before = len(platter.steps)

        await store.reopen()

        assert await store.tip("s1") == 2
        after = platter.steps[before:]
        anew = next(i for i, s in enumerate(after) if s.what == "write" and b"found" in s.data)
        assert "sync" in [step.what for step in after[anew:] if step.name == after[anew].name]


async def test_a_journal_whose_sync_failed_is_written_anew(path: Path) -> None:
    """Its bytes look right when they are read back, and may never have reached the disk."""
    platter = Platter()
    async with opened(path, platter) as store:
        await store.commit([creation("s1")])
        platter.before = failing("sync", "s")  # journals, and not the log of commits
        seq = await commit_until_broken(store)
        platter.before = lambda _: None
        before = len(platter.steps)
        await store.reopen()
        assert await store.tip("s1") == seq

    rewritten = [s for s in platter.steps[before:] if s.folder == "sessions" and s.what == "write"]
    assert b'"version":1,' in rewritten[0].data


async def commit_until_broken(store: Store) -> int:
    """Append entries; return the last that was acknowledged."""
    for seq in range(1, 999):
        try:
            await store.commit([Change("s1", (an_entry(seq, b'{"x":"%b"}' % (b"x" * 99)),))])
        except StoreBroken:
            return seq - 1
    raise AssertionError("nothing broke")


async def test_a_store_that_cannot_be_reopened_says_so_until_it_can(path: Path) -> None:
    platter = Platter()
    async with opened(path, platter) as store:
        await store.commit([creation("s1", 1)])
        platter.before = failing("write")
        with pytest.raises(StoreBroken):
            await store.commit([Change("s1", entries(2, 2))])
        with pytest.raises(StoreBroken):
            await store.reopen()
        for use in (store.commit([]), store.load("s1"), store.list(), store.entries("s1")):
            with pytest.raises(StoreBroken):
                await use

        platter.before = lambda _: None
        await store.reopen()
        await store.commit([Change("s1", entries(2, 2))])

        assert await store.tip("s1") == 2


async def test_a_torn_commit_that_there_is_no_room_to_keep_leaves_no_half_of_it(
    path: Path,
) -> None:
    async with opened(path, Platter()) as store:
        await store.commit([creation("s1", 1)])
        (segment,) = path.glob("commits.[0-9]")
        content = segment.read_bytes().rstrip(b"\0")
    segment.write_bytes(content + content[: len(content) // 2])

    def before(step: Step) -> None:
        if step.what == "write" and "torn" in step.name:
            raise full(step)

    async with opened(path, Platter(before=before)) as store:
        assert await store.tip("s1") == 1
        assert not list(path.glob("*torn*"))


@pytest.mark.parametrize("error", [broken, full])
async def test_no_acknowledged_entry_is_lost_or_doubled_wherever_the_disk_fails(
    tmp_path: Path, error: Callable[[Step], StoreError]
) -> None:
    """The failure hits every single step of a small life in turn, once."""
    point, met = 0, True
    while met:
        folder = tmp_path / f"{point}"
        folder.mkdir()
        met = await live(folder, Platter(), point, error)
        point += 1

    assert point > 100


async def live(
    path: Path, platter: Platter, point: int, error: Callable[[Step], StoreError]
) -> bool:
    """Commit 16 entries, asking what is there after each failure; whether `point` was reached."""
    async with opened(path, platter) as store:
        await store.commit([creation("s1"), creation("s2")])
        count = 0

        def before(step: Step) -> None:
            nonlocal count
            count += 1
            if count == point + 1:
                raise error(step)

        platter.before = before
        acked = 0
        while acked < 16:
            acked = await attempt(store, acked)
            if acked % 5 == 0:
                await rescue(store)
            if acked % 4 == 0:
                await trimmed(store, acked - 2)
    platter.before = lambda _: None
    async with opened(path, platter) as store:
        for session, first in (("s1", 14), ("s2", 1)):
            found = await all_entries(store, session, first - 1)
            assert found == list(entries(first, 16, BODY))
            stored = await store.load(session)
            assert stored is not None
            assert (stored.head.title, stored.first) == ("16", first)
    return count > point


async def trimmed(store: Store, before: int) -> None:
    """Trim "s1", whatever it takes."""
    try:
        await store.trim("s1", before)
    except StoreFull:
        await store.trim("s1", before)
    except StoreBroken:
        await rescue(store)
        await store.trim("s1", before)


BODY = b'{"x":"%b"}' % (b"x" * 1500)


async def attempt(store: Store, acked: int) -> int:
    seq = acked + 1
    head = {session: a_head(session, title=f"{seq}") for session in ("s1", "s2")}
    try:
        await store.commit([Change(s, entries(seq, seq, BODY), head[s]) for s in ("s1", "s2")])
    except StoreFull:
        assert await store.tip("s1") == await store.tip("s2") == acked
        return acked
    except StoreBroken:
        await rescue(store)
        found = await store.tip("s1")
        assert found in (acked, seq)
        assert await store.tip("s2") == found
        return found or 0
    return seq


async def rescue(store: Store) -> None:
    try:
        await store.reopen()
    except StoreError:
        await store.reopen()  # it failed once, and fails no more
