"""The SQLite file: what outlives a process, and what is refused when it is opened."""

import sqlite3
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from typing import cast

import apsw
import pytest
import trio

from moorage_daemon.store.connection import Connection
from moorage_daemon.store.migrations import MIGRATIONS, migrate, stored_shape
from moorage_daemon.store.port import Change, StoreBroken
from moorage_daemon.store.sqlite import open_sqlite
from tests.daemon.store.samples import a_head, all_entries, an_entry, creation, entries, seqs


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@contextmanager
def by_hand(path: Path) -> Generator[sqlite3.Connection]:
    """The file as anybody with SQLite can change it."""
    with closing(sqlite3.connect(path)) as connection, connection:
        yield connection


# ---- restarts


async def test_a_restart_finds_everything(path: Path) -> None:
    async with open_sqlite(path) as store:
        await store.commit([creation("s1", 700), creation("s2")])
        await store.commit([Change("s1", entries(701, 705), a_head("s1", title="t"))])
        await store.delete("s2")

    async with open_sqlite(path) as store:
        stored = await store.load("s1")
        assert stored is not None
        assert (stored.head.title, stored.seq) == ("t", 705)
        assert await all_entries(store, "s1") == list(entries(1, 705))
        assert len(await store.list()) == 1
        await store.commit([Change("s1", entries(706, 706))])


async def test_only_the_owner_may_read_the_files(path: Path) -> None:
    path.touch(mode=0o644)
    async with open_sqlite(path) as store:
        await store.commit([creation("s1", 1)])
        await store.load("s1")

        modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}

    assert modes == {
        "sessions.db": 0o600,
        "sessions.db-wal": 0o600,
        "sessions.db-shm": 0o600,
        "sessions.db-lock": 0o600,
        "sessions.db-reserve": 0o600,
    }


async def test_a_closed_store_leaves_no_log_beside_its_file(path: Path) -> None:
    async with open_sqlite(path) as store:
        await store.commit([creation("s1", 1)])

    assert {file.name for file in path.parent.iterdir()} == {
        "sessions.db",
        "sessions.db-lock",
        "sessions.db-reserve",
    }


WRITES_UNTIL_KILLED = """
import sys
from pathlib import Path
import trio
from moorage_daemon.store.port import Change
from moorage_daemon.store.sqlite import open_sqlite
from tests.daemon.store.samples import a_head, creation, entries

async def main():
    async with open_sqlite(Path(sys.argv[1])) as store:
        seq = await store.tip("s1")
        if seq is None:
            await store.commit([creation("s1"), creation("s2")])
            seq = 0
        while True:
            seq += 1
            same = entries(seq, seq, b"x" * (seq * 37 % 3000))
            await store.commit([Change("s1", same, a_head("s1", title=f"{seq}")),
                                Change("s2", same)])
            sys.stdout.buffer.write(b"%d\\n" % seq)
            sys.stdout.buffer.flush()

trio.run(main)
"""


async def test_killing_the_process_takes_no_acknowledged_entry(path: Path) -> None:
    for acks in (1, 40, 3, 150, 17):
        acked = await trio.to_thread.run_sync(killed_after, path, acks)
        async with open_sqlite(path) as store:
            stored = await store.load("s1")
            assert stored is not None
            assert stored.seq >= acked
            assert stored.head.title == f"{stored.seq}"
            assert await store.tip("s2") == stored.seq  # of one commit, all or nothing
            found = await all_entries(store, "s1")
            assert seqs(found) == list(range(1, stored.seq + 1))


def killed_after(path: Path, acks: int) -> int:
    """Kill a writing process after so many acks; return the last that it gave."""
    with Popen([sys.executable, "-c", WRITES_UNTIL_KILLED, str(path)], stdout=PIPE) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(acks)]
        process.kill()
        lines += [line for line in process.stdout if line.endswith(b"\n")]
    return int(lines[-1])


# ---- files that are refused


async def refused(path: Path) -> str:
    """Why the file cannot be opened."""
    with pytest.RaisesGroup(pytest.RaisesExc(StoreBroken)) as caught:
        async with trio.open_nursery(strict_exception_groups=True), open_sqlite(path):
            pass
    return str(caught.value.exceptions[0])


async def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    async with open_sqlite(path) as store:
        await store.commit([creation("s1", 1)])
    with by_hand(path) as database:
        database.execute("update meta set value = ? where key = 'schema'", (len(MIGRATIONS) + 1,))
    content = path.read_bytes()

    reason = await refused(path)

    assert "newer version: its schema is 3, this version knows 2" in reason
    assert path.read_bytes() == content


async def test_a_second_process_is_refused(path: Path) -> None:
    async with open_sqlite(path):
        assert "in use by another process" in await refused(path)
    async with open_sqlite(path):
        pass


async def test_a_symbolic_link_is_refused(path: Path) -> None:
    elsewhere = path.with_name("elsewhere.db")
    elsewhere.touch()
    path.symlink_to(elsewhere)

    assert "symbolic link" in await refused(path)
    assert elsewhere.read_bytes() == b""


async def test_a_directory_that_is_a_link_is_fine(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")

    async with open_sqlite(tmp_path / "link" / "sessions.db") as store:
        await store.commit([creation("s1")])

    assert (tmp_path / "real" / "sessions.db").exists()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"not a database, but long enough to look at. " * 50, "not a database"),
        (b"SQLite format 3\x00" + b"\xff" * 9000, "not a database"),
    ],
    ids=["text", "header"],
)
async def test_a_file_of_something_else_is_refused_and_left_alone(
    path: Path, content: bytes, why: str
) -> None:
    path.write_bytes(content)
    path.chmod(0o644)

    reason = await refused(path)

    assert why in reason
    assert str(path) in reason
    assert left_there(path) == {path.name: (0o644, content)}


@pytest.mark.parametrize("mode", ["delete", "wal"])
async def test_a_database_of_something_else_is_refused_and_left_alone(
    path: Path, mode: str
) -> None:
    with by_hand(path) as database:
        database.execute(f"pragma journal_mode = {mode}")
        database.execute("create table session (cookie text)")
    path.chmod(0o644)
    there = left_there(path)

    assert "something else" in await refused(path)
    assert left_there(path) == there
    assert there[path.name][0] == 0o644


def left_there(path: Path) -> dict[str, tuple[int, bytes]]:
    """The files beside that one, with their modes."""
    files = list(path.parent.iterdir())
    return {file.name: (file.stat().st_mode & 0o777, file.read_bytes()) for file in files}


async def test_a_file_of_ours_without_its_lock_is_opened(path: Path) -> None:
    async with open_sqlite(path) as store:
        await store.commit([creation("s1", 1)])
    path.with_name("sessions.db-lock").unlink()

    async with open_sqlite(path) as store:
        assert await store.tip("s1") == 1


async def test_a_missing_directory_and_a_directory_as_file_are_refused(tmp_path: Path) -> None:
    assert "No such file" in await refused(tmp_path / "missing" / "sessions.db")
    assert "Is a directory" in await refused(tmp_path)


# ---- older files


def of_shape_1(path: Path) -> None:
    """A file as the first version wrote it, with one session that names two blobs."""
    head = (
        b'{"id":"s1","principal":"p","owner":"o","agent":"a","mode":"code","cwd":"/",'
        b'"created_at":1,"updated_at":2}'
    )
    with by_hand(path) as database:
        database.executescript("""
            create table meta (key text primary key, value any) strict, without rowid;
            create table session (id text primary key, head blob not null) strict;
            create table entry (session text not null, seq integer not null, at real not null,
                generation integer, kind text not null, origin text, body blob not null,
                primary key (session, seq)) strict, without rowid;
            insert into meta values ('schema', 1);
        """)
        database.execute("insert into session values ('s1', ?)", (head,))
        for seq, body in enumerate([b"{}", b'{"sha256":"%b"}' % (b"a" * 64), b"{}"], 1):
            row = ("s1", seq, 1000.25 + seq, 1, "message", "c1", body)
            database.execute("insert into entry values (?,?,?,?,?,?,?)", row)


async def test_an_older_file_is_brought_up_to_date_and_keeps_everything(path: Path) -> None:
    of_shape_1(path)

    async with open_sqlite(path) as store:
        assert [stored.head.id for stored in await store.list()] == ["s1"]
        assert seqs(await store.entries("s1")) == [1, 2, 3]
        await store.commit([Change("s1", entries(4, 4))])

    with by_hand(path) as database:
        assert database.execute("select value from meta where key = 'schema'").fetchone() == (2,)
        assert database.execute("select * from naming").fetchall() == [("s1", 2, "a" * 64)]


def test_a_step_that_fails_leaves_the_file_at_the_step_before(path: Path) -> None:
    def fails(connection: Connection) -> None:
        connection.execute("create table half (done text)")
        raise apsw.FullError("full for the test")

    of_shape_1(path)
    connection = cast("Connection", apsw.Connection(str(path)))

    with pytest.raises(apsw.FullError):
        migrate(connection, 1, (*MIGRATIONS, fails))

    assert stored_shape(connection) == 2
    tables = {name for (name,) in connection.execute("select name from sqlite_schema")}
    assert "naming" in tables
    assert "half" not in tables
    connection.close()


# ---- space


async def test_space_of_what_was_removed_is_given_back(path: Path) -> None:
    async with open_sqlite(path) as store:
        await store.commit([creation("s1"), creation("s2", 5)])
        await store.commit([Change("s1", entries(1, 500, bytes(4000)))])
        await store.delete("s1")

        given = await store.compact()

        assert given > 1_500_000
        assert await store.compact() == 0
        assert seqs(await store.entries("s2")) == [1, 2, 3, 4, 5]
    assert path.stat().st_size < 200_000


# ---- the write-ahead log


async def test_the_log_beside_the_file_stays_bounded(path: Path) -> None:
    async with open_sqlite(path) as store:
        await store.commit([creation("s1")])
        for seq in range(1, 65):
            await store.commit([Change("s1", (an_entry(seq, bytes(2**19)),))])
            cut = await store.entries("s1", limit=1)  # a cursor left open would pin the log
            assert len(cut.entries) == 1

        assert path.with_name("sessions.db-wal").stat().st_size < 16 * 2**20
