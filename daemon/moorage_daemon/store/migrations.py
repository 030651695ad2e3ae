"""The shape of the SQLite file, and how an older one gets the newest.

The steps are in order, each is one transaction, and a file knows how many it has seen. A step that
was ever released is never changed: what comes later is a step of its own. A file that has seen
more steps than there are here was written by a newer version, and is left alone.
"""

from collections.abc import Callable, Sequence

from moorage_daemon.store.connection import Connection
from moorage_daemon.store.naming import digests_in
from moorage_daemon.store.port import StoreBroken


INCREMENTAL = 2  # pages that get free are given back when asked for, not by each deletion

# Entries lie in the order of replay, so a page of them is one walk. A body stays the bytes it was.
_TABLES = """
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
"""

# Which entries name which blobs, so that nobody has to read all entries to find out.
_NAMING = """
    create table naming (
        session text not null,
        seq integer not null,
        sha256 text not null,
        primary key (session, seq, sha256)
    ) strict, without rowid;
"""

NAMED = "insert or ignore into naming values (?, ?, ?)"


def _tables(connection: Connection) -> None:
    connection.execute(_TABLES)


def _naming(connection: Connection) -> None:
    connection.execute(_NAMING)
    naming = "select session, seq, body from entry where instr(body, ?)"
    for session, seq, body in connection.execute(naming, (b"sha256",)).fetchall():
        for digest in digests_in(body):
            connection.execute(NAMED, (session, seq, digest))


Step = Callable[[Connection], None]

MIGRATIONS: Sequence[Step] = (_tables, _naming)


def migrate(connection: Connection, stored: int, steps: Sequence[Step] = MIGRATIONS) -> None:
    """Bring the file from its shape to the newest; what fails leaves it at the step before.

    A new file takes all steps at once: what starts quickly has few syncs.
    """
    stops = range(stored + 1, len(steps) + 1) if stored else [len(steps)]
    for stop in stops:
        connection.execute("begin immediate")
        try:
            for step in steps[stored:stop]:
                step(connection)
            connection.execute("insert or replace into meta values ('schema', ?)", (stop,))
            connection.execute("commit")
        except BaseException:
            if connection.in_transaction:  # SQLite rolls back by itself after some errors
                connection.execute("rollback")
            raise
        stored = stop


def has_tables(connection: Connection) -> bool | None:
    """Whether the file has the tables of ours; None if it has none at all."""
    tables = {name for (name,) in connection.execute("select name from sqlite_schema")}
    return {"meta", "session", "entry"} <= tables if tables else None


def stored_shape(connection: Connection) -> int:
    """The number of steps that the file has seen, 0 for an empty one.

    Raises `StoreBroken` for a file that is none of ours or of a newer version.
    """
    is_ours = has_tables(connection)
    if is_ours is None:
        return 0
    stored: object = None
    if is_ours:
        stored = connection.execute("select value from meta where key = 'schema'").get
    if not isinstance(stored, int):
        raise StoreBroken(f"{connection.filename} is a database of something else")
    if stored > len(MIGRATIONS):
        raise StoreBroken(
            f"{connection.filename} was written by a newer version: its schema is {stored}, "
            f"this version knows {len(MIGRATIONS)}"
        )
    return stored
