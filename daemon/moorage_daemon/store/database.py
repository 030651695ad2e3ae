"""The SQLite file: how it is opened, which shape it has, and what its errors mean.

Durable means WAL with `synchronous=FULL`. Under NORMAL a power cut takes acknowledged commits;
a rollback journal needs EXTRA for the same promise and an fsync more for each commit.
"""

import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast

import apsw

from moorage_daemon.store.disk import NO_SPACE, disk_error
from moorage_daemon.store.port import StoreBroken, StoreError, StoreFull


Value: TypeAlias = str | int | float | bytes | None

BUSY_PATIENCE = 2000  # milliseconds that a backup or a person's shell may hold the file
WAL_KEPT = 16 * 2**20  # bytes; a WAL that a burst made longer is cut back to this

# Entries lie in the order of replay, so a page of them is one walk. A body stays the bytes it was.
MIGRATIONS = (
    """
    create table meta (key text primary key, value any) strict, without rowid;
    create table session (id text primary key, head blob not null) strict;
    create table entry (
        session text not null,
        seq integer not null,
        at real not null,
        generation integer,
        kind text not null,
        origin text,
        body blob not null,
        primary key (session, seq)
    ) strict, without rowid;
    """,
)

# After a failed fsync nobody knows what is on the medium, whatever the reason was.
SYNC_FAILED = frozenset({apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_DIR_FSYNC})

# A page that cannot be read concerns who asked for it; what was written before it still holds.
READ_FAILED = frozenset({apsw.SQLITE_IOERR_READ, apsw.SQLITE_IOERR_SHORT_READ})


class Cursor(Protocol):
    """The rows of a statement; the strict tables vouch for their types."""

    @property
    def get(self) -> Any:
        """The first row, or its value if it has one; None if there is no row."""
        ...

    def __iter__(self) -> Iterator[tuple[Any, ...]]: ...
    def fetchone(self) -> tuple[Any, ...] | None: ...
    def fetchall(self) -> list[Any]: ...
    def close(self) -> None: ...


class Connection(Protocol):
    """What is used of apsw's connection; its own types need a newer Python than this project."""

    filename: str
    in_transaction: bool
    system_errno: int

    def execute(self, statements: str, bindings: Sequence[Value] = ()) -> Cursor: ...
    def pragma(self, name: str, value: Value = None) -> Any: ...
    def changes(self) -> int: ...
    def status(self, op: int, reset: bool) -> tuple[int, int]: ...
    def wal_checkpoint(self, *, mode: int) -> tuple[int, int]: ...
    def config(self, op: int, value: int) -> int: ...
    def close(self) -> None: ...


def store_error(error: apsw.Error, connection: Connection) -> StoreError:
    """What an error of SQLite means for whoever waits for the store."""
    code = extended_code(error)
    text = f"{connection.filename}: {error} (SQLite code {code})"
    if isinstance(error, apsw.FullError):
        return StoreFull(text)
    # A shared-memory file that cannot grow on a full disk is no SQLITE_FULL, a quota neither.
    is_io = isinstance(error, apsw.IOError | apsw.CantOpenError) and code not in SYNC_FAILED
    if is_io and connection.system_errno in NO_SPACE:
        return StoreFull(text)
    return StoreBroken(text)


def extended_code(error: apsw.Error) -> int:
    """SQLite's own number of an error; 0 for those that the binding raises by itself."""
    code: int = getattr(error, "extendedresult", 0)
    return code


def is_write_fault(error: apsw.Error) -> bool:
    """Whether nothing more may be trusted to the handle that the error came from."""
    return isinstance(error, apsw.IOError) and extended_code(error) not in READ_FAILED


def claim(path: Path) -> Path:
    """Create the file if it is missing, for its owner alone; return its real path.

    Only to be called while this process has no connection to it: closing any descriptor of a
    file drops all POSIX locks on it.
    """
    try:
        path = path.parent.resolve(strict=True) / path.name
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


def lock(path: Path) -> int:
    """Make the file this process's own, by the kernel's lock on one beside it; a descriptor.

    Whoever closes it gives the file up. Raises `StoreBroken` if another process has it.
    """
    beside = path.with_name(f"{path.name}-lock")
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


def migrate(connection: Connection, stored: int) -> None:
    """Bring the file from its shape to the one that this version knows, each step at once."""
    for number, script in enumerate(MIGRATIONS[stored:], stored + 1):
        connection.execute("begin immediate")
        connection.execute(script)
        connection.execute("insert or replace into meta values ('schema', ?)", (number,))
        connection.execute("commit")


def stored_shape(connection: Connection) -> int:
    """The number of migrations that the file has seen, 0 for an empty one.

    Raises `StoreBroken` for a file that is none of ours or of a newer version.
    """
    tables = {name for (name,) in connection.execute("select name from sqlite_schema")}
    if not tables:
        return 0
    stored: object = None
    if {"meta", "session", "entry"} <= tables:
        stored = connection.execute("select value from meta where key = 'schema'").get
    if not isinstance(stored, int):
        raise StoreBroken(f"{connection.filename} is a database of something else")
    if stored > len(MIGRATIONS):
        raise StoreBroken(
            f"{connection.filename} was written by a newer version: its schema is {stored}, "
            f"this version knows {len(MIGRATIONS)}"
        )
    return stored
