"""Damage in the SQLite file concerns whom it hits, and is told."""

import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from moorage_daemon.store.model import SCHEMA
from moorage_daemon.store.port import Change, StoreBroken, StoreUnreadable
from moorage_daemon.store.sqlite import open_sqlite
from tests.daemon.store.samples import all_entries, creation, entries, seqs


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@contextmanager
def by_hand(path: Path) -> Generator[sqlite3.Connection]:
    """The file as anybody with SQLite can change it."""
    with closing(sqlite3.connect(path)) as connection, connection:
        yield connection


def damage(path: Path, wanted: Callable[[bytes], bool]) -> None:
    """Overwrite the pages of the closed file that are wanted."""
    content = path.read_bytes()
    pages = [content[start : start + 4096] for start in range(0, len(content), 4096)]
    damaged = [b"\xa5" * 4096 if wanted(page) else page for page in pages]
    assert damaged != pages
    path.write_bytes(b"".join(damaged))


async def test_a_head_that_cannot_be_read_concerns_its_session_alone(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_sqlite(path) as store:
        await store.commit([creation("s1", 1), creation("s2", 2), creation("s3", 3)])
    with by_hand(path) as database:
        database.execute("update session set head = ? where id = 's2'", (b'{"id": "s2", "m',))

    async with open_sqlite(path) as store:
        assert [stored.head.id for stored in await store.list()] == ["s1", "s3"]
        assert "a session is left out" in caplog.text
        (problem,) = await store.damaged()
        assert (problem.session, problem.problem[:24]) == ("s2", "its head cannot be read:")
        with pytest.raises(StoreUnreadable) as caught:
            await store.load("s2")
        assert caught.value.session == "s2"
        with pytest.raises(StoreUnreadable):
            await store.commit([Change("s2", entries(3, 3))])
        assert seqs(await store.entries("s2")) == [1, 2]
        await store.commit([Change("s1", entries(2, 2))])


async def test_a_head_with_fields_of_tomorrow_is_listed_and_kept(path: Path) -> None:
    head = (
        b'{"id":"s1","principal":"p","owner":"o","agent":"a","mode":"code","cwd":"/",'
        b'"created_at":1,"updated_at":2,"schema":9,"tomorrow":{"x":1}}'
    )
    async with open_sqlite(path):
        pass
    with by_hand(path) as database:
        database.execute("insert into session values ('s1', ?)", (head,))

    async with open_sqlite(path) as store:
        (stored,) = await store.list()

    assert stored.head.schema == 9 > SCHEMA
    with by_hand(path) as database:
        assert database.execute("select head from session").fetchone() == (head,)


async def test_a_damaged_page_concerns_the_sessions_on_it(path: Path) -> None:
    async with open_sqlite(path) as store:
        await store.commit([creation("s1"), creation("s2")])
        await store.commit([Change("s1", entries(1, 100, b"a" * 200))])
        await store.commit([Change("s2", entries(1, 100, b"b" * 200))])
    damage(path, lambda page: b"a" * 200 in page and b"b" * 200 not in page)

    async with open_sqlite(path) as store:
        with pytest.raises(StoreUnreadable, match="damaged") as caught:
            await all_entries(store, "s1")
        assert caught.value.session == "s1"
        assert len(await all_entries(store, "s2")) == 100
        await store.commit([Change("s2", entries(101, 101)), creation("s3", 1)])


async def test_damaged_heads_leave_the_other_sessions_listed(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_sqlite(path) as store:
        await store.commit([creation(f"s{number:03}", 1) for number in range(300)])
    damage(path, lambda page: b'"id":"s150"' in page)

    async with open_sqlite(path) as store:
        listed = [stored.head.id for stored in await store.list()]
        assert 250 < len(listed) < 300
        assert listed == sorted({f"s{number:03}" for number in range(300)} & set(listed))
        assert "s150" not in listed
        assert "a session is left out" in caplog.text
        with pytest.raises(StoreUnreadable):
            await store.load("s150")
        with pytest.raises(StoreUnreadable):
            await store.tip("s150")


async def test_a_list_that_cannot_be_read_at_all_is_no_empty_list(path: Path) -> None:
    async with open_sqlite(path) as store:
        await store.commit([creation(f"s{number:03}", 1) for number in range(300)])
    damage(path, lambda page: b"s150" in page)

    async with open_sqlite(path) as store:
        with pytest.raises(StoreBroken, match="malformed"):
            await store.list()


async def test_a_check_finds_what_is_wrong_and_where(path: Path) -> None:
    async with open_sqlite(path) as store:
        await store.commit([creation(f"s{number}", 3) for number in range(1, 6)])
    with by_hand(path) as database:
        database.execute("update session set head = ? where id = 's2'", (b'{"id": "s2", "m',))
        database.execute("delete from entry where session = 's3' and seq = 2")
        database.execute("delete from session where id = 's4'")

    async with open_sqlite(path) as store:
        report = await store.check()

    assert (report.sessions, report.entries) == (4, 14)
    assert [(p.session, p.problem.split(":")[0]) for p in report.problems] == [
        ("s2", "its head cannot be read"),
        ("s3", "of its entries 1 to 3 some are missing"),
        ("s4", "it has entries and no head"),
    ]


async def test_a_check_finds_a_damaged_page(path: Path) -> None:
    async with open_sqlite(path) as store:
        await store.commit([creation("s1"), creation("s2")])
        await store.commit([Change("s1", entries(1, 100, b"a" * 200))])
        await store.commit([Change("s2", entries(1, 100, b"b" * 200))])
    damage(path, lambda page: b"a" * 200 in page and b"b" * 200 not in page)

    async with open_sqlite(path) as store:
        report = await store.check()

        assert any("damaged" in problem.problem for problem in report.problems)
        await store.commit([Change("s2", entries(101, 101))])


NO_TEXT = "cast(x'7332ff' as text)"


async def test_an_id_that_is_no_text_concerns_its_session_alone(path: Path) -> None:
    async with open_sqlite(path) as store:
        await store.commit([creation("s1", 1), creation("s2", 2), creation("s3", 3)])
    with by_hand(path) as database:
        database.execute(f"update session set id = {NO_TEXT} where id = 's2'")
        database.execute(f"update entry set session = {NO_TEXT} where session = 's2'")

    async with open_sqlite(path) as store:
        assert [stored.head.id for stored in await store.list()] == ["s1", "s3"]
        problems = [(p.session, p.problem) for p in await store.damaged()]
        assert problems == [("s2\\xff", "its id is damaged")]
        report = await store.check()
        assert not await store.delete("s2\\xfe")
        assert await store.delete("s2\\xff")
        assert not await store.delete("s2\\xff")
        left = await store.check()

    assert (left.sessions, left.entries, left.problems) == (2, 4, [])
    assert (report.sessions, report.entries) == (3, 6)
    assert [(p.session, p.problem) for p in report.problems] == [
        ("s2\\xff", "its head is another session's")
    ]


@pytest.mark.parametrize(
    "damage",
    [
        f"update entry set kind = {NO_TEXT} where session = 's2' and seq = 2",
        f"update entry set origin = {NO_TEXT} where session = 's2' and seq = 2",
        "delete from entry where session = 's2' and seq = 2",
    ],
)
async def test_an_entry_that_is_none_or_missing_makes_its_session_unreadable(
    path: Path, damage: str
) -> None:
    async with open_sqlite(path) as store:
        await store.commit([creation("s1", 3), creation("s2", 3)])
    with by_hand(path) as database:
        database.execute(damage)

    async with open_sqlite(path) as store:
        for after, limit in ((0, 500), (1, 1)):
            with pytest.raises(StoreUnreadable) as caught:
                await store.entries("s2", after, limit=limit)
            assert caught.value.session == "s2"
        assert seqs(await store.entries("s2", 2)) == [3]
        assert len(await all_entries(store, "s1")) == 3
        (problem,) = (await store.check()).problems
        assert problem.session == "s2"


async def test_a_row_of_other_types_than_its_table_concerns_its_session_alone(path: Path) -> None:
    async with open_sqlite(path) as store:
        await store.commit([creation("s1", 1), creation("s2", 1), creation("s3", 1)])
    with by_hand(path) as database:  # as flipped bits in the header of a record do
        database.execute("pragma writable_schema = 1")
        database.execute("update sqlite_schema set sql = replace(sql, 'strict', '')")
        database.execute("update sqlite_schema set sql = replace(sql, ') ,', '),')")
    with by_hand(path) as database:
        database.execute("update session set head = 17 where id = 's2'")
        database.execute("update entry set seq = x'05' where session = 's3'")

    async with open_sqlite(path) as store:
        assert [stored.head.id for stored in await store.list()] == ["s1"]
        assert [problem.session for problem in await store.damaged()] == ["s2", "s3"]
        for session in ("s2", "s3"):
            with pytest.raises(StoreUnreadable):
                await store.load(session)
            with pytest.raises(StoreUnreadable):
                await store.commit([Change(session, entries(2, 2))])
        with pytest.raises(StoreUnreadable):
            await store.tip("s3")
        with pytest.raises(StoreUnreadable):
            await store.entries("s3")
        assert {problem.session for problem in (await store.check()).problems} == {"s2", "s3"}
