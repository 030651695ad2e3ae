"""Looking at all of the SQLite file, through a connection of its own."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import apsw

from moorage_daemon.store.connection import Connection, store_error
from moorage_daemon.store.database import open_readable
from moorage_daemon.store.model import Head
from moorage_daemon.store.port import Problem, Report, StoreUnreadable
from moorage_daemon.store.reading import called, decoded_head
from moorage_daemon.store.rules import fault_of


MOST = 100  # problems that SQLite is asked to tell

HEADS = "select cast(id as blob), head from session"
LOGS = "select cast(session as blob), count(*), min(seq), max(seq) from entry group by session"
TEXTS = """select distinct cast(session as blob), cast(kind as blob), cast(origin as blob)
    from entry"""
BODIES = "select cast(session as blob), seq, body from entry"


def check_database(path: Path) -> Report:
    """Look at every page, head and log; raises `StoreError` if the file cannot be opened."""
    connection = open_readable(path)
    try:
        return _Check(connection).all()
    finally:
        connection.close()


class _Check:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._entries = 0
        self._problems: list[Problem] = []

    def all(self) -> Report:
        with self._noting("the database"):
            self._connection.execute("begin")  # one moment for all that follows
            for (line,) in self._connection.execute(f"pragma integrity_check({MOST})").fetchall():
                if line != "ok":
                    self._note(f"the database is damaged: {line}")
        known: set[str] = set()
        with self._noting("the sessions"):
            known = self._heads()
        with self._noting("the entries"):
            self._logs(known)
            self._texts()
            self._bodies()
        return Report(len(known), self._entries, 0, self._problems)

    def _heads(self) -> set[str]:
        known: set[str] = set()
        for name, head in self._connection.execute(HEADS):
            session = called(name)
            known.add(session)
            try:
                if decoded_head(session, head, Head).id != session:
                    self._note("its head is another session's", session)
            except StoreUnreadable as error:
                self._note(error.problem, session)
        return known

    def _logs(self, known: set[str]) -> None:
        for name, count, first, last in self._connection.execute(LOGS):
            session = called(name)
            self._entries += count
            if not isinstance(first, int) or not isinstance(last, int):
                self._note("the number of an entry is damaged", session)
            elif last - first + 1 != count:
                self._note(f"of its entries {first} to {last} some are missing", session)
            if session not in known:
                self._note("it has entries and no head", session)

    def _texts(self) -> None:
        """Look at those that the entries have; SQLite itself takes any bytes for a text."""
        for session, *texts in self._connection.execute(TEXTS):
            if not all(map(_is_text, texts)):
                self._note("an entry is damaged", called(session))

    def _bodies(self) -> None:
        """Look at one after the other; of each session the first that is wrong is told."""
        told: set[bytes] = set()
        for session, seq, body in self._connection.execute(BODIES):
            if session in told:
                continue
            fault = (
                fault_of(seq, body) if isinstance(body, bytes) else f"its entry {seq} is damaged"
            )
            if fault is not None:
                told.add(session)
                self._note(fault, called(session))

    def _note(self, problem: str, session: str | None = None) -> None:
        self._problems.append(Problem(problem, session))

    @contextmanager
    def _noting(self, what: str) -> Generator[None]:
        """What cannot be looked at is a problem, and does not hide the others."""
        try:
            yield
        except apsw.Error as error:
            self._note(f"{what} cannot be read: {store_error(error, self._connection)}")


def _is_text(found: bytes | None) -> bool:
    try:
        (found or b"").decode()
    except UnicodeDecodeError:
        return False
    return True
