"""What changes the SQLite file: one connection, one thread, one transaction for each commit.

A batch of entries is inserted by statements of many rows. SQLite gives the interpreter up at
each step, so rows one by one wait in a busy loop for 4.3 ms (500 rows) where this waits for 2.4;
the rows as one JSON argument took as long when busy and twice as long when idle.
"""

import logging
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager

import apsw
import msgspec
from msgspec import Struct

from moorage_daemon.store.connection import Connection, Value, is_write_fault, store_error
from moorage_daemon.store.migrations import NAMED
from moorage_daemon.store.naming import blobs_named
from moorage_daemon.store.port import (
    Change,
    StoreBroken,
    StoreError,
    StoreFull,
    StoreTooLarge,
)
from moorage_daemon.store.reading import NAMES, called, decoded_head, decoded_number
from moorage_daemon.store.rules import Tip, advance, is_text, trimmed_to


logger = logging.getLogger(__name__)

CHECKPOINT_AFTER = 4 * 2**20  # bytes of WAL: few enough to copy between two commits unnoticed

BESIDE = 2**12  # bytes of a row beside its longest value: ids and kinds are short

Name = tuple[str, int, str]  # a session, an entry's number, a digest

COLUMNS = 7
ROWS = 2**9  # the longest statement; a batch is cut into powers of two, each prepared once
INSERT = {
    2**power: "insert into entry (session, seq, at, generation, kind, origin, body) values "
    + ",".join(["(?,?,?,?,?,?,?)"] * 2**power)
    for power in range(ROWS.bit_length())
}

TIP = """select head, coalesce((select max(seq) from entry where session = id), 0)
    from session where id = ?"""


class _HeadSchema(Struct):
    """What must be known of a head of any version."""

    schema: int = 1


class Writer:
    """Writes through the one writing connection, in that connection's thread.

    It knows where the sessions stand that it wrote, and forgets it after any failure. Once a
    write failed it refuses more: an fsync that is repeated after an error may lie.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.fault: StoreError | None = None
        self._tips: dict[str, Tip] = {}
        self._page_size: int = connection.pragma("page_size")
        self._most = connection.limit(apsw.SQLITE_LIMIT_LENGTH) - BESIDE
        self._unmoved = 0  # bytes that went into the WAL since the last checkpoint

    def close(self) -> None:
        """Give up the connection; a sound one leaves no WAL behind."""
        if self.fault is not None:
            self.connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        try:
            self.connection.close()
        except apsw.Error:
            logger.exception("the database did not close cleanly: its log stays beside it")

    def commit(
        self, changes: Sequence[Change], rows: Sequence[Value], names: Sequence[Name]
    ) -> None:
        """Write heads, and what `entry_rows` and `blob_names` made of the same changes."""
        with self._transaction():
            tips = advance(changes, self._tip, self._count)
            for change in changes:
                self._must_fit(change)
                self._write_head(change)
            for statement, values in _inserts(rows):
                self.connection.execute(statement, values)
            for name in names:
                self.connection.execute(NAMED, name)
        self._tips |= tips

    def delete(self, session: str) -> bool:
        """Remove a session; False if there was none."""
        if not is_text(session):
            return False
        with self._transaction():
            self._tips.pop(session, None)
            self.connection.execute("delete from entry where session = ?", (session,))
            self.connection.execute("delete from naming where session = ?", (session,))
            self.connection.execute("delete from session where id = ?", (session,))
            return self.connection.changes() > 0 or self._delete_damaged(session)

    def _delete_damaged(self, session: str) -> bool:
        """Remove a session whose id is no text, by what it is called then."""
        if "\\x" not in session:
            return False
        for (name,) in self.connection.execute(NAMES).fetchall():
            if called(name) == session:
                for table in ("entry", "naming"):
                    self.connection.execute(
                        f"delete from {table} where cast(session as blob) = ?", (name,)
                    )
                self.connection.execute("delete from session where cast(id as blob) = ?", (name,))
                return self.connection.changes() > 0
        return False

    def trim(self, session: str, before: int, most: int) -> int:
        """Remove at most so many of a session's entries below `before`, the first ones; gives how
        many."""
        with self._transaction():
            tip = self._tip(session) if is_text(session) else None
            if tip is None:
                return 0
            found = "select min(seq) from entry where session = ?"
            lowest: int = self.connection.execute(found, (session,)).get or 0
            below = (session, min(trimmed_to(session, tip, 0, before), lowest + most))
            self.connection.execute("delete from naming where session = ? and seq < ?", below)
            self.connection.execute("delete from entry where session = ? and seq < ?", below)
            return self.connection.changes()

    def compact(self, pages: int) -> int:
        """Give back at most so many free pages at the end of the file; gives the bytes."""
        with self._transaction():
            before = self._pages()
            self.connection.execute(f"pragma incremental_vacuum({pages})").fetchall()
            return (before - self._pages()) * self._page_size

    def _pages(self) -> int:
        found: int = self.connection.pragma("page_count")
        return found

    def mark(self, value: int) -> None:
        """Write a value that `Reader.marked` finds."""
        with self._transaction():
            self.connection.execute("insert or replace into meta values ('mark', ?)", (value,))

    def checkpoint_if_due(self) -> None:
        """Move the WAL into the database once it has grown; a failure is told by the next commit.

        A full disk is none: what is in the WAL is durable there, and later there may be room.
        """
        pages, _ = self.connection.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE, True)
        self._unmoved += pages * self._page_size
        if self._unmoved < CHECKPOINT_AFTER or self.fault is not None:
            return
        try:
            self.checkpoint()
        except StoreFull:
            logger.warning("no space to move the write-ahead log into the database")
        except StoreError:
            logger.exception("the write-ahead log cannot be moved into the database")

    def checkpoint(self) -> int:
        """Move what is in the WAL into the database, as far as no reader needs it; gives how many
        frames it has."""
        self._unmoved = 0
        try:
            frames, _ = self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as error:
            raise self._failed(error) from error
        return frames

    def _must_fit(self, change: Change) -> None:
        """Raise `StoreTooLarge` for an entry that no row can hold."""
        largest = max((len(entry.body) for entry in change.entries), default=0)
        if largest > self._most:
            raise StoreTooLarge(change.session, f"an entry of {largest} bytes")

    def _write_head(self, change: Change) -> None:
        if change.head is None:
            return
        head = msgspec.json.encode(change.head)
        if len(head) > self._most:
            raise StoreTooLarge(change.session, f"a head of {len(head)} bytes")
        if change.create:
            self.connection.execute("insert into session values (?, ?)", (change.session, head))
        else:
            self.connection.execute(
                "update session set head = ? where id = ?", (head, change.session)
            )

    def _count(self) -> int:
        found: int = self.connection.execute("select count(*) from session").get
        return found

    def _tip(self, session: str) -> Tip | None:
        if session in self._tips:
            return self._tips[session]
        if not is_text(session):
            return None
        row = self.connection.execute(TIP, (session,)).fetchone()
        if row is None:
            return None
        head, seq = row
        return Tip(decoded_number(session, seq), decoded_head(session, head, _HeadSchema).schema)

    @contextmanager
    def _transaction(self) -> Generator[None]:
        """All or nothing; immediate, because it always writes."""
        if self.fault is not None:
            raise StoreBroken("the medium failed before and was not opened anew") from self.fault
        try:
            self.connection.execute("begin immediate")
            yield
            self.connection.execute("commit")
        except apsw.Error as error:
            self._roll_back()
            raise self._failed(error) from error
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        self._tips.clear()
        if not self.connection.in_transaction:  # SQLite rolls back by itself after some errors
            return
        try:
            self.connection.execute("rollback")
        except apsw.Error as error:
            self.fault = StoreBroken(f"a failed commit cannot be undone: {error}")

    def _failed(self, error: apsw.Error) -> StoreError:
        failure = store_error(error, self.connection)
        if is_write_fault(error) and not isinstance(failure, StoreFull):
            self.fault = failure
        return failure


def blob_names(changes: Iterable[Change]) -> list[Name]:
    """Which entries name which blobs."""
    return [
        (change.session, entry.seq, digest)
        for change in changes
        for entry in change.entries
        for digest in blobs_named(entry)
    ]


def entry_rows(changes: Iterable[Change]) -> list[Value]:
    """The columns of all entries, one row after the other."""
    rows: list[Value] = []
    for change in changes:
        session = change.session
        for entry in change.entries:
            rows += (
                session,
                entry.seq,
                entry.at,
                entry.generation,
                entry.kind,
                entry.origin,
                entry.body,
            )
    return rows


def _inserts(rows: Sequence[Value]) -> Generator[tuple[str, Sequence[Value]]]:
    """Statements with their values: as few as powers of two allow."""
    at, left = 0, len(rows) // COLUMNS
    while left:
        count = min(ROWS, 1 << (left.bit_length() - 1))
        yield INSERT[count], rows[at : at + count * COLUMNS]
        at += count * COLUMNS
        left -= count
