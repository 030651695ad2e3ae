"""The SQLite file and how it is opened.

Durable means WAL with `synchronous=FULL`. Under NORMAL a power cut takes acknowledged commits;
a rollback journal needs EXTRA for the same promise and an fsync more for each commit.
"""

import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import cast

import apsw

from moorage_daemon.store.connection import Connection, store_error
from moorage_daemon.store.disk import disk_error
from moorage_daemon.store.migrations import INCREMENTAL, has_tables, migrate, stored_shape
from moorage_daemon.store.port import StoreBroken, StoreError


BUSY_PATIENCE = 2000  # milliseconds that a backup or a person's shell may hold the file
WAL_KEPT = 16 * 2**20  # bytes; a WAL that a burst made longer is cut back to this


def claim(path: Path) -> Path:
    """Create the file if it is missing, for its owner alone; return its real path.

    Raises `StoreBroken` for a file of something else, and leaves it as it is.

    Only to be called while this process has no connection to it: closing any descriptor of a
    file drops all POSIX locks on it.
    """
    try:
        path = path.parent.resolve(strict=True) / path.name
        _must_be_ours(path)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise StoreBroken(f"{path} is not a regular file")
            os.fchmod(handle, 0o600)
        finally:
            os.close(handle)
    except OSError as error:
        raise disk_error(path, "opened", error) from error
    return path


def _must_be_ours(path: Path) -> None:
    """Raise `StoreBroken` if the file is of something else; touches nothing, beside it neither.

    Only the names of its tables tell: they come all at once, and what a crash left of the rest is
    for its write-ahead log to mend, of which nothing is read here.
    """
    if not path.exists() or path.is_symlink() or path.stat().st_size == 0:
        return
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    try:
        connection = apsw.Connection(f"{path.absolute().as_uri()}?immutable=1", flags=flags)
        try:
            is_ours = has_tables(cast("Connection", connection)) is not False
        finally:
            connection.close()
    except apsw.NotADBError as error:
        raise StoreBroken(f"{path} is of something else: it is not a database") from error
    except apsw.Error:
        return  # whoever opens it to read and write says why it cannot be
    if not is_ours:
        raise StoreBroken(f"{path} is a database of something else")


def lock(path: Path) -> int:
    """Make the file this process's own, by the kernel's lock on one beside it; a descriptor.

    Whoever closes it gives the file up. Raises `StoreBroken` if another process has it, or if it
    is a file of something else.
    """
    beside = path.with_name(f"{path.name}-lock")
    if not beside.exists():
        _must_be_ours(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(beside, flags, 0o600)
    except OSError as error:
        raise disk_error(beside, "opened", error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StoreBroken(f"{path} is in use by another process") from error
    return descriptor


def open_writable(path: Path, *, alone: bool = False) -> Connection:
    """The connection that writes; with `alone` no other one can be opened beside it.

    Alone, SQLite keeps its index of the WAL in memory instead of in a file, so a full disk can
    still be opened.
    """

    def prepare(connection: Connection) -> None:
        if alone:
            connection.pragma("locking_mode", "exclusive")
        shape = stored_shape(connection)  # before anything is changed in a file of someone else
        if shape == 0:
            connection.pragma("auto_vacuum", INCREMENTAL)  # later it takes a copy of the file
        mode = connection.pragma("journal_mode", "wal")
        if mode != "wal":
            raise StoreBroken(f"{path} allows no write-ahead log, only journal mode {mode}")
        connection.pragma("synchronous", "full")
        connection.pragma("wal_autocheckpoint", 0)
        connection.pragma("journal_size_limit", WAL_KEPT)
        migrate(connection, shape)

    return _open(path, apsw.SQLITE_OPEN_READWRITE, prepare)


def open_readable(path: Path) -> Connection:
    """A connection that reads beside the writing one."""
    return _open(path, apsw.SQLITE_OPEN_READONLY, lambda _: None)


def inspect(path: Path) -> None:
    """Raise the `StoreError` with which the file could not be opened, if any; changes nothing.

    Blocks, and is not for a process that has the file open: see `claim`.
    """

    def prepare(connection: Connection) -> None:
        stored_shape(connection)

    _open(path, apsw.SQLITE_OPEN_READONLY, prepare).close()


def _open(path: Path, flags: int, prepare: Callable[[Connection], None]) -> Connection:
    try:
        opened = apsw.Connection(str(path), flags=flags | apsw.SQLITE_OPEN_NOFOLLOW)
    except apsw.Error as error:
        raise StoreBroken(f"{path} cannot be opened: {error}") from error
    opened.set_busy_timeout(BUSY_PATIENCE)
    connection = cast("Connection", opened)
    try:
        prepare(connection)
    except apsw.Error as error:
        failure = store_error(error, connection)
        connection.close()
        raise failure from error
    except StoreError:
        connection.close()
        raise
    return connection
