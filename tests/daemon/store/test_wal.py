"""Damage in the write-ahead log of the database is told, and what lies behind it is kept."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from moorage_daemon.store import wal
from moorage_daemon.store.port import Change, Store
from moorage_daemon.store.sqlite import open_sqlite
from tests.daemon.store.samples import creation, entries, in_chunks


PAGE = 4096
FRAME = wal.FRAME + PAGE


async def killed(tmp_path: Path, commits: int) -> Path:
    """The database of a process that was killed after so many commits, the first one moved."""
    path = tmp_path / "alive" / "sessions.db"
    path.parent.mkdir()
    async with open_sqlite(path) as store:
        await store.commit([creation("s1", 1)])
    async with open_sqlite(path) as store:
        for seq in range(2, commits + 1):
            await store.commit([Change("s1", entries(seq, seq))])
        shutil.copytree(path.parent, tmp_path / "killed")
    return tmp_path / "killed" / "sessions.db"


def log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def ends(path: Path) -> list[int]:
    """Where the frames begin that end commits."""
    content = log_of(path).read_bytes()
    places = range(wal.HEADER, len(content), FRAME)
    return [at for at in places if any(content[at + 4 : at + 8])]


def flip(path: Path, at: int) -> bytes:
    """Flip a bit of the log; gives what it is then."""
    content = bytearray(log_of(path).read_bytes())
    content[at] ^= 1
    log_of(path).write_bytes(content)
    return bytes(content)


def kept(path: Path) -> list[Path]:
    return sorted(path.parent.glob("*-wal-damaged-*"))


async def tip(store: Store) -> int | None:
    return await store.tip("s1")


def in_header(_: Path) -> int:
    return 2


def in_salt(_: Path) -> int:
    return 17


def in_first_frame(_: Path) -> int:
    return wal.HEADER + 8


def in_the_middle(path: Path) -> int:
    return ends(path)[3] + 100


def in_third_last(path: Path) -> int:
    return ends(path)[-3] + 100


@pytest.mark.parametrize(
    ("where", "left"),
    [(in_header, 1), (in_salt, 1), (in_first_frame, 1), (in_the_middle, 4), (in_third_last, 7)],
)
async def test_commits_behind_damage_in_the_log_are_kept_and_reported(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    where: Callable[[Path], int],
    left: int,
) -> None:
    path = await killed(tmp_path, 10)
    damaged = flip(path, where(path))

    for _ in range(2):
        async with open_sqlite(path) as store:
            assert await tip(store) == left
            await store.commit([creation(f"new{len(await store.list())}", 1)])
            (file,) = kept(path)
            assert file.read_bytes() == damaged
            assert file.stat().st_mode & 0o777 == 0o600
            (problem,) = (await store.check()).problems
            assert "write-ahead log was damaged" in problem.problem
            assert file.name in problem.problem
    assert "commits in the write-ahead log are damaged" in caplog.text

    kept(path)[0].unlink()
    async with open_sqlite(path) as store:
        assert (await store.check()).problems == []


@pytest.mark.parametrize("change", ["lost", "put in"])
async def test_commits_that_stand_elsewhere_than_they_did_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(wal, "CHUNK", 11)  # so that frames lie across two reads
    path = await killed(tmp_path, 10)
    content, at = log_of(path).read_bytes(), ends(path)[3] + 100
    moved = content[at + 77 :] if change == "lost" else b"x" * 77 + content[at:]
    log_of(path).write_bytes(content[:at] + moved)

    async with open_sqlite(path) as store:
        assert await tip(store) == 4
        assert len(kept(path)) == 1
        assert len((await store.check()).problems) == 1


async def test_blobs_stay_while_a_damaged_log_may_name_them(tmp_path: Path) -> None:
    path = await killed(tmp_path, 10)
    flip(path, ends(path)[3] + 100)

    async with open_sqlite(path) as store:
        await store.put_blob(in_chunks(b"x"), max_bytes=9)
        assert (await store.collect(-1)).blobs == 0
        kept(path)[0].unlink()
        assert (await store.collect(-1)).blobs == 1


async def test_a_log_that_is_whole_or_ends_in_an_unfinished_commit_is_no_damage(
    tmp_path: Path,
) -> None:
    path = await killed(tmp_path, 10)
    whole = log_of(path).read_bytes()
    last = ends(path)[-2] + FRAME
    for content, left in (
        (whole, 10),
        (whole[: last + 100], 9),
        (whole[:last] + bytes(FRAME) + whole[last + FRAME :], 9),
        (whole[: wal.HEADER], 1),
        (b"", 1),
        (bytes(wal.HEADER), 1),
    ):
        copy = tmp_path / f"copy-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(path.parent, copy)
        log_of(copy / path.name).write_bytes(content)

        async with open_sqlite(copy / path.name) as store:
            assert await tip(store) == left
            assert kept(copy / path.name) == []
            assert (await store.check()).problems == []


async def test_a_log_that_was_used_again_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    async with open_sqlite(path) as store:
        await store.commit([creation("s1", 3000)])
    async with open_sqlite(path) as store:
        for seq in range(3001, 3021):
            await store.commit([Change("s1", entries(seq, seq, b"x" * 5000))])
        await store.reopen()  # all of it is moved, and the next commit begins at the front
        for seq in range(3021, 3024):
            await store.commit([Change("s1", entries(seq, seq))])
        shutil.copytree(path.parent, tmp_path.parent / "again")
    copy = tmp_path.parent / "again" / path.name

    async with open_sqlite(copy) as store:
        assert await tip(store) == 3023
        assert kept(copy) == []
