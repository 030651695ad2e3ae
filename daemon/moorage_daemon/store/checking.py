"""Looking at all of the SQLite file, through a connection of its own."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import apsw
import msgspec

from moorage_daemon.store.connection import Connection, store_error
from moorage_daemon.store.database import open_readable
from moorage_daemon.store.model import Head
from moorage_daemon.store.port import Problem, Report


MOST = 100  # problems that SQLite is asked to tell

HEADS = "select id, head from session"
LOGS = "select session, count(*), min(seq), max(seq) from entry group by session"


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
        return Report(len(known), self._entries, 0, self._problems)

    def _heads(self) -> set[str]:
        known: set[str] = set()
        for session, head in self._connection.execute(HEADS):
            known.add(session)
            try:
                if msgspec.json.decode(head, type=Head).id != session:
                    self._note("its head is another session's", session)
            except msgspec.DecodeError as error:
                self._note(f"its head cannot be read: {error}", session)
        return known

    def _logs(self, known: set[str]) -> None:
        for session, count, first, last in self._connection.execute(LOGS):
            self._entries += count
            if last - first + 1 != count:
                self._note(f"of its entries {first} to {last} some are missing", session)
            if session not in known:
                self._note("it has entries and no head", session)

    def _note(self, problem: str, session: str | None = None) -> None:
        self._problems.append(Problem(problem, session))

    @contextmanager
    def _noting(self, what: str) -> Generator[None]:
        """What cannot be looked at is a problem, and does not hide the others."""
        try:
            yield
        except apsw.Error as error:
            self._note(f"{what} cannot be read: {store_error(error, self._connection)}")
