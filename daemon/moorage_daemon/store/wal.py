"""What SQLite's recovery passes over: commits in the write-ahead log behind damage.

SQLite takes the first frame of the log that is not whole for its end. After a crash it is: a
commit that was being written. But each commit is synced before the next one begins, so where two
more follow, what is not whole was whole once, and they were acknowledged. SQLite then writes over
them. Which sessions they were of nobody can tell without the pages before them, so all of the log
is kept beside the database, and reported.
"""

import logging
import struct
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from moorage_daemon.store.disk import DRAFT, Disk, File
from moorage_daemon.store.port import Problem, StoreFull


logger = logging.getLogger(__name__)

HEADER = 32  # bytes, before the first frame
FRAME = 24  # bytes before each page
SALT = 8  # bytes in a frame before its salt; the last four say whether it ends a commit
CHUNK = 2**20  # bytes read at once

_MAGIC = 0x377F0682  # or one more, where checksums are of numbers with the high byte first
_DAMAGED = "-damaged-"
_TOLD = (
    "the write-ahead log was damaged: sessions may lack their last commits, and removed ones may "
    "be back; it is kept as"
)


def keep_if_damaged(database: Path, taken: int) -> None:
    """Keep the log beside the database, durably, if it holds commits behind the first `taken`
    frames, which are those that SQLite took for whole. To be called before it is written to.

    Where there is no room for that, the daemon's own log tells. Raises `StoreBroken`.
    """
    name = _log_of(database)
    disk = Disk(database.parent, is_ours=False)
    try:
        file = disk.open(name)
        if file is None:
            return
        try:
            if _is_damaged(disk, file, taken):
                _keep(disk, file, f"{name}{_DAMAGED}{disk.read(file, 12, 12).hex()}")
        finally:
            disk.shut(file)
    finally:
        disk.close()


def kept(database: Path) -> list[Problem]:
    """What was ever damaged, until a person has removed it."""
    prefix = f"{_log_of(database)}{_DAMAGED}"
    disk = Disk(database.parent, is_ours=False)
    try:
        names = [name for name in disk.names() if name.startswith(prefix)]
    finally:
        disk.close()
    return [Problem(f"{_TOLD} {name}") for name in sorted(names) if not name.endswith(DRAFT)]


def _log_of(database: Path) -> str:
    return f"{database.name}-wal"


def _is_damaged(disk: Disk, file: File, taken: int) -> bool:
    header = disk.read(file, 0, HEADER)
    if len(header) < HEADER or not any(header):
        return False  # the first commit waits until it is durable
    if not _is_whole(header):
        return disk.size(file) > HEADER
    (page_size,) = struct.unpack(">I", header[8:12])
    behind = _commits(disk, file, HEADER + taken * (FRAME + page_size), header[16:24])
    return len(list(islice(behind, 2))) > 1


def _commits(disk: Disk, file: File, at: int, salt: bytes) -> Iterator[int]:
    """Where frames behind byte `at` stand that end a commit, of this use of the file.

    They are known by its salt, wherever they stand: what was lost or put in moves all behind it.
    """
    rest = b""
    while data := disk.read(file, at, CHUNK):
        rest += data
        at += len(data)
        place = rest.find(salt, SALT)
        while place >= 0:
            if any(rest[place - SALT // 2 : place]):
                yield at - len(rest) + place - SALT
            place = rest.find(salt, place + 1)
        rest = rest[1 - 2 * SALT :]  # in which no whole salt has enough before it


def _is_whole(header: bytes) -> bool:
    (magic,) = struct.unpack(">I", header[:4])
    if magic & ~1 != _MAGIC:
        return False
    first = second = 0
    numbers = struct.unpack(f"{'>' if magic & 1 else '<'}6I", header[:24])
    for left, right in zip(numbers[::2], numbers[1::2], strict=True):
        first = (first + left + second) & 0xFFFFFFFF
        second = (second + right + first) & 0xFFFFFFFF
    return struct.pack(">2I", first, second) == header[24:]


def _keep(disk: Disk, file: File, name: str) -> None:
    logger.error("commits in the write-ahead log are damaged: kept", extra={"kept": name})
    if disk.has(name):
        return
    draft = disk.create(f"{name}{DRAFT}")
    try:
        disk.truncate(draft, 0)
        for at in range(0, disk.size(file), CHUNK):
            disk.write(draft, at, disk.read(file, at, CHUNK))
        disk.sync(draft)
        disk.rename(draft.name, name)
        disk.sync_names()
    except StoreFull:
        logger.exception("no space to keep the damaged write-ahead log")
        disk.remove(draft.name)
    finally:
        disk.shut(draft)
