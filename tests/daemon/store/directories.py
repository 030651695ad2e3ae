"""Stores of files for tests, and their files as anybody can see and change them."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from moorage_daemon.store.files.journal import name_of
from moorage_daemon.store.files.pieces import drafted
from moorage_daemon.store.files.shelf import Shelf
from moorage_daemon.store.files.store import FileStore, open_files
from moorage_daemon.store.port import Change
from tests.daemon.store.platters import Platter, TestDisk
from tests.daemon.store.samples import a_head, an_entry, creation


SMALL = 2**14  # bytes of commits before they are moved into the journals


@asynccontextmanager
async def opened(path: Path, segment: int = SMALL) -> AsyncGenerator[FileStore]:
    async with open_files(TestDisk(path, Platter()), segment) as store:
        yield store


def journal(path: Path, session: str) -> Path:
    return path / "sessions" / name_of(session)


def copy(path: Path, target: Path) -> None:
    """The files as they are, without the lock that somebody has on them."""
    (target / "sessions").mkdir(parents=True)
    for file in path.rglob("*"):
        if file.is_file() and file.name != "reserve":
            (target / file.relative_to(path)).write_bytes(file.read_bytes())


def write(shelf: Shelf, *changes: Change) -> None:
    shelf.commit(changes, [drafted(change) for change in changes])


async def settled(path: Path) -> None:
    """A store whose journals hold all of three sessions, "s2" in 20 frames."""
    async with opened(path) as store:
        await store.commit([creation("s1", 1), creation("s2"), creation("s3", 1)])
        for seq in range(1, 20):
            change = Change("s2", (an_entry(seq, b'{"n":%d}' % seq),), a_head("s2", title=f"{seq}"))
            await store.commit([change])


def ends_of_frames(content: bytes) -> list[int]:
    return [at + 1 for at, byte in enumerate(content) if byte == ord("\n")]
