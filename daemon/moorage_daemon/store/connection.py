"""A connection to the SQLite file, as far as it is used, and what its errors mean."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeAlias

import apsw

from moorage_daemon.store.disk import NO_SPACE
from moorage_daemon.store.port import StoreBroken, StoreError, StoreFull


Value: TypeAlias = str | int | float | bytes | None

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
    def limit(self, what: int, /) -> int: ...
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
