"""What is asked of the SQLite file. A read ends with its cursor: one left open would hold its
snapshot, and the WAL could not start over."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, TypeVar

import apsw
import msgspec

from moorage_daemon.store.connection import Connection, Value, store_error
from moorage_daemon.store.model import Entry, Head
from moorage_daemon.store.port import Missing, Page, Problem, Stored, StoreError, StoreUnreadable
from moorage_daemon.store.rules import cut_page, is_text


T = TypeVar("T")

logger = logging.getLogger(__name__)

LAST = 2**63 - 1  # the largest integer of SQLite; beyond it there is no entry

# The last number of a session is one seek in the primary key of its entries.
TIP = "coalesce((select max(seq) from entry where session = id), 0)"
START = "coalesce((select min(seq) from entry where session = id), 1)"
LIST = f"select id, head, {TIP}, {START} from session order by id"
NAMES = "select cast(id as blob) from session order by id"  # read from the index alone
LOAD = f"select id, head, {TIP}, {START} from session where id = ?"
FIRST = "select min(seq) from entry where session = ?"
NAMED = "select distinct sha256 from naming"
NAMING = "select distinct session, sha256 from naming order by session"
MARK = "select value from meta where key = 'mark'"
ENTRIES = "select seq, at, kind, body, generation, origin from entry where session = ? and seq > ?"

DAMAGED = (apsw.CorruptError, UnicodeDecodeError)  # what is no row, and what is no text in one


class Reader:
    """Reads through one connection, in that connection's thread."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._was_listed = False
        self._problems: list[Problem] = []

    def close(self) -> None:
        """Give up the connection."""
        self._connection.close()

    def sessions(self) -> list[Stored]:
        """All sessions that can be read, by id."""
        self._was_listed, self._problems = True, []
        found: list[Stored] = []
        for row in self._rows():
            try:
                found.append(_stored(*row))
            except StoreUnreadable as error:
                self._leave_out(error.session, error.problem)
        return found

    def damaged(self) -> list[Problem]:
        """Those that cannot be, as they were listed last."""
        if not self._was_listed:
            self.sessions()
        return [*self._problems]

    def _leave_out(self, session: str, problem: str) -> None:
        extra = {"session": session, "problem": problem}
        logger.error("a session is left out: it cannot be read", extra=extra)
        self._problems.append(Problem(problem, session))

    def _rows(self) -> list[Any]:
        try:
            return self._connection.execute(LIST).fetchall()
        except DAMAGED:
            logger.exception("a part of the database is damaged: reading sessions one by one")
            return self._salvaged()
        except apsw.Error as error:
            raise store_error(error, self._connection) from error

    def _salvaged(self) -> list[Any]:
        rows: list[Any] = []
        try:
            for (name,) in self._connection.execute(NAMES).fetchall():
                session = called(name)
                try:
                    found = self._connection.execute(LOAD, (session,)).fetchall()
                except DAMAGED as error:
                    self._leave_out(session, f"its part of the database is damaged: {error}")
                    continue
                if not found:
                    self._leave_out(session, "its id is damaged")
                rows += found
        except apsw.Error as error:
            raise store_error(error, self._connection) from error
        return rows

    def load(self, session: str) -> Stored | None:
        """One session, None if it does not exist."""
        if not is_text(session):
            return None
        row = self._row(session)
        return None if row is None else _stored(*row)

    def tip(self, session: str) -> int | None:
        """The number of the last entry, whatever the head says."""
        if not is_text(session):
            return None
        row = self._row(session)
        return None if row is None else decoded_number(session, row[2])

    def _row(self, session: str) -> tuple[Any, ...] | None:
        try:
            return self._connection.execute(LOAD, (session,)).fetchone()
        except (apsw.Error, *DAMAGED) as error:
            raise self._about(session, error) from error

    def entries(
        self, session: str, after: int, limit: int, max_bytes: int, kinds: frozenset[str] | None
    ) -> Page:
        """One page of entries."""
        if not is_text(session):
            return Page([])
        query = ENTRIES
        wanted: list[Value] = [session, min(after, LAST)]
        if kinds is not None:
            query += f" and kind in ({','.join('?' * len(kinds))})"
            wanted += kinds
        try:
            with closing(self._connection.execute(f"{query} order by seq", wanted)) as cursor:
                page = cut_page(_entries(session, cursor), limit, max_bytes)
            first = decoded_number(session, self._connection.execute(FIRST, (session,)).get or 1)
        except (apsw.Error, *DAMAGED) as error:
            raise self._about(session, error) from error
        start = max(after + 1, first)
        if kinds is None:
            _check_follows(session, start, page.entries)
        return Page(page.entries, page.more, gap=start > max(after, 0) + 1)

    def named(self) -> frozenset[str]:
        """The digests of all blobs that entries name."""
        try:
            return frozenset(digest for (digest,) in self._connection.execute(NAMED).fetchall())
        except apsw.Error as error:
            raise store_error(error, self._connection) from error

    def naming(self, digests: frozenset[str]) -> list[Missing]:
        """Whose entries name these blobs, by digest."""
        found: dict[str, list[str]] = {digest: [] for digest in digests}
        try:
            for session, digest in self._connection.execute(NAMING):
                if digest in found:
                    found[digest].append(session)
        except apsw.Error as error:
            raise store_error(error, self._connection) from error
        return [Missing(digest, tuple(sessions)) for digest, sessions in sorted(found.items())]

    def marked(self) -> object:
        """What `Writer.mark` wrote last."""
        try:
            return self._connection.execute(MARK).get
        except apsw.Error as error:
            raise store_error(error, self._connection) from error

    def _about(self, session: str, error: apsw.Error | UnicodeDecodeError) -> StoreError:
        """A damaged page concerns the sessions on it, other errors the whole file."""
        if isinstance(error, DAMAGED):
            return StoreUnreadable(session, f"its part of the database is damaged: {error}")
        return store_error(error, self._connection)


def _stored(session: str, head: object, seq: object, first: object) -> Stored:
    known = decoded_head(session, head, Head)
    if known.id != session:
        raise StoreUnreadable(session, "its head is another session's")
    return Stored(known, decoded_number(session, seq), decoded_number(session, first))


def called(name: bytes | None) -> str:
    """An id, whatever damage has made of it."""
    return (name or b"").decode(errors="backslashreplace")


def decoded_head(session: str, head: object, shape: type[T]) -> T:
    """A head as it was found; raises `StoreUnreadable` if it is none."""
    if not isinstance(head, bytes):  # no table vouches for its types where its page is damaged
        raise StoreUnreadable(session, "its head cannot be read: it is no text")
    try:
        return msgspec.json.decode(head, type=shape)
    except msgspec.DecodeError as error:
        raise StoreUnreadable(session, f"its head cannot be read: {error}") from error


def decoded_number(session: str, found: object) -> int:
    """A number of an entry as it was found; raises `StoreUnreadable` if it is none."""
    if not isinstance(found, int):
        raise StoreUnreadable(session, "the number of an entry is damaged")
    return found


def _entries(session: str, rows: Iterable[tuple[Any, ...]]) -> Iterator[Entry]:
    for row in rows:
        seq, at, kind, body, generation, origin = row
        is_whole = (
            isinstance(seq, int)
            and isinstance(at, float)
            and isinstance(kind, str)
            and isinstance(body, bytes)
            and (generation is None or isinstance(generation, int))
            and (origin is None or isinstance(origin, str))
        )
        if not is_whole:
            raise StoreUnreadable(session, "an entry is damaged")
        yield Entry(*row)


def _check_follows(session: str, start: int, entries: Sequence[Entry]) -> None:
    """Raise `StoreUnreadable` if one is missing; those before `start` were trimmed meanwhile."""
    if not entries:
        return
    first, last = entries[0].seq, entries[-1].seq
    if first > start or last - first + 1 != len(entries):
        raise StoreUnreadable(session, f"of its entries {start} to {last} some are missing")
