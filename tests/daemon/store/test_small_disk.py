"""The SQLite store on a disk that is really full: a small tmpfs of the test's own."""

import os
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from moorage_daemon.store.port import Change, StoreFull
from moorage_daemon.store.sqlite import SqliteStore, open_sqlite
from tests.daemon.store.samples import all_entries, creation, entries, seqs


@pytest.fixture
def disk(tmp_path: Path) -> Generator[Path]:
    """An empty disk of 8 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", str(path)]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"NOT TESTED: a full disk; no small one can be mounted: {mounted.stderr!r}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(disk: Path) -> None:
    """Leave not a byte."""
    handle = os.open(disk / "filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        while os.write(handle, bytes(2**16)):
            pass
    except OSError:
        pass
    finally:
        os.close(handle)
    assert os.statvfs(disk).f_bavail == 0


async def commit_until_full(store: SqliteStore, session: str, size: int = 4000) -> int:
    """Append entries until there is no space; return the last that was acknowledged."""
    acked = await store.tip(session)
    assert acked is not None
    while True:
        try:
            await store.commit([Change(session, entries(acked + 1, acked + 20, b"x" * size))])
        except StoreFull:
            return acked
        acked += 20


async def test_a_full_disk_refuses_the_whole_commit_and_stays_readable(disk: Path) -> None:
    async with open_sqlite(disk / "sessions.db") as store:
        await store.commit([creation("s1"), creation("s2")])
        acked = await commit_until_full(store, "s1")
        fill(disk)

        for _ in range(3):
            with pytest.raises(StoreFull):
                await store.commit([Change("s2", entries(1, 1, b"x" * 4000)), creation("s3")])

        assert acked > 100
        assert [(stored.head.id, stored.seq) for stored in await store.list()] == [
            ("s1", acked),
            ("s2", 0),
        ]
        assert await all_entries(store, "s1") == list(entries(1, acked, b"x" * 4000))


async def test_the_reserve_lets_small_commits_through(disk: Path) -> None:
    async with open_sqlite(disk / "sessions.db") as store:
        await store.commit([creation("s1")])
        fill(disk)
        acked = await commit_until_full(store, "s1")

        assert store.release_reserve()
        for seq in range(acked + 1, acked + 31):
            await store.commit([Change("s1", entries(seq, seq))])

        assert not store.restore_reserve()
        assert not store.release_reserve()
        assert await store.tip("s1") == acked + 30


async def test_a_full_disk_is_left_behind_when_space_returns(disk: Path) -> None:
    async with open_sqlite(disk / "sessions.db") as store:
        await store.commit([creation("s1")])
        fill(disk)
        acked = await commit_until_full(store, "s1")
        store.release_reserve()
        (disk / "filler").unlink()

        assert store.restore_reserve()
        await store.commit([Change("s1", entries(acked + 1, acked + 500))])

        assert (disk / "sessions.db-reserve").exists()
        assert await store.tip("s1") == acked + 500
    async with open_sqlite(disk / "sessions.db") as store:
        assert len(await all_entries(store, "s1")) == acked + 500


async def test_a_log_that_cannot_be_moved_into_the_file_breaks_nothing(
    disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log takes most of the disk before it is due to be moved: there is no room for both."""
    async with open_sqlite(disk / "sessions.db") as store:
        await store.commit([creation("s1")])
        acked = await commit_until_full(store, "s1", size=20_000)

        assert "no space to move" in caplog.text
        assert await store.tip("s1") == acked
        await store.reopen()
        assert seqs(await all_entries(store, "s1")) == list(range(1, acked + 1))


async def test_reopening_on_a_full_disk_loses_nothing(disk: Path) -> None:
    async with open_sqlite(disk / "sessions.db") as store:
        await store.commit([creation("s1")])
        fill(disk)
        acked = await commit_until_full(store, "s1")
        await store.reopen()

        assert await store.tip("s1") == acked
        assert store.release_reserve()
        await store.commit([Change("s1", entries(acked + 1, acked + 1))])


@pytest.mark.parametrize("has_reserve", [True, False])
async def test_a_store_opens_on_a_full_disk(disk: Path, has_reserve: bool) -> None:
    """With a reserve there is room to write; without, all can be read until space returns."""
    path = disk / "sessions.db"
    async with open_sqlite(path) as store:
        await store.commit([creation("s1", 50)])
    if not has_reserve:
        (disk / "sessions.db-reserve").unlink()
    fill(disk)

    async with open_sqlite(path) as store:
        assert [stored.seq for stored in await store.list()] == [50]
        assert await all_entries(store, "s1") == list(entries(1, 50))
        if not has_reserve:
            with pytest.raises(StoreFull):
                await store.commit([Change("s1", entries(51, 51))])
            (disk / "filler").unlink()
        await store.commit([Change("s1", entries(51, 51))])
        assert await store.tip("s1") == 51
        await store.reopen()
        await store.health()
        assert await store.tip("s1") == 51


async def test_a_new_store_on_a_full_disk_says_so(disk: Path) -> None:
    fill(disk)

    with pytest.raises(StoreFull, match=r"sessions\.db"):
        async with open_sqlite(disk / "sessions.db"):
            pass
