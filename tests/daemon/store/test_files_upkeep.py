"""Looking through a store of files, and giving back what its journals hold in vain."""

from pathlib import Path

import pytest

from moorage_daemon.store.files.opening import open_shelf
from moorage_daemon.store.files.reading import Reader
from moorage_daemon.store.port import Change, StoreUnreadable
from tests.daemon.store.directories import journal, opened, settled, write
from tests.daemon.store.platters import Platter, TestDisk
from tests.daemon.store.samples import (
    a_head,
    an_entry,
    creation,
    entries,
    in_chunks,
    raw,
    seqs,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


async def test_a_check_finds_damage_and_what_was_cut_off(path: Path) -> None:
    await settled(path)
    for session, place in (("s1", 30), ("s2", 400)):
        content = bytearray(journal(path, session).read_bytes())
        content[place] ^= 1
        journal(path, session).write_bytes(content)
    with journal(path, "s3").open("ab") as file:
        file.write(b"half of a fra")

    async with opened(path) as store:
        report = await store.check()
        assert (report.sessions, report.entries) == (3, 1)
        cut, *damaged = report.problems
        assert "it was cut off and is kept as" in cut.problem
        assert sorted(problem.session or "" for problem in damaged) == ["s1", "s2"]
        (unreadable,) = await store.damaged()  # what a head alone can show
        assert unreadable.session == "s1"


async def test_a_check_finds_blobs_that_are_damaged_or_missing(path: Path) -> None:
    async with opened(path) as store:
        blobs = [await store.put_blob(in_chunks(b"%d" % n), max_bytes=9) for n in range(3)]
        log = tuple(an_entry(n, raw({"sha256": b.sha256})) for n, b in enumerate(blobs, 1))
        await store.commit([Change("s1", log, a_head("s1"), create=True)])
        (path / "blobs" / blobs[0].sha256).write_bytes(b"X")
        (path / "blobs" / blobs[1].sha256).unlink()

        report = await store.check()

    assert report.blobs == 2
    assert [problem.problem for problem in report.problems] == [
        f"the blob {blobs[1].sha256} is missing",
        f"the blob {blobs[0].sha256} is damaged",
    ]


async def test_a_journal_that_is_mostly_old_heads_is_copied_without_them(path: Path) -> None:
    async with opened(path) as store:
        await store.commit([creation("s1", 2), creation("s2", 2)])
        for number in range(300):
            await store.commit([Change("s1", head=a_head("s1", title="x" * 300 + f"{number}"))])
        await store.commit([Change("s1", (an_entry(3),))])
        await store.reopen()

        given = await store.compact()

        assert given > 100_000
        assert journal(path, "s1").stat().st_size < 3000
        assert await store.compact() == 0
    async with opened(path) as store:
        stored = await store.load("s1")
        assert stored is not None
        assert stored.head.title == "x" * 300 + "299"
        assert seqs(await store.entries("s1")) == [1, 2, 3]
        assert (await store.check()).problems == []


def test_heads_that_are_in_no_journal_yet_count_once(path: Path) -> None:
    shelf = open_shelf(TestDisk(path, Platter()))
    write(shelf, Change("s1", entries(1, 8, raw({"x": "x" * 10_000})), a_head("s1"), create=True))
    shelf.settle("s1")
    reader = Reader(shelf)

    for number in range(20):
        write(shelf, Change("s1", head=a_head("s1", title="x" * 1500 + f"{number}")))
        assert not reader.is_wasteful("s1")

    for number in range(60):
        write(shelf, Change("s1", head=a_head("s1", title="x" * 1500 + f"{number}")))
    assert reader.is_wasteful("s1")
    shelf.close()


async def test_a_damaged_journal_is_not_trimmed_and_left_as_it_is(path: Path) -> None:
    await settled(path)
    content = bytearray(journal(path, "s2").read_bytes())
    content[400] ^= 1
    journal(path, "s2").write_bytes(content)

    async with opened(path) as store:
        with pytest.raises(StoreUnreadable):
            await store.trim("s2", 10)
        await store.commit([Change("s1", (an_entry(2),))])

    assert journal(path, "s2").read_bytes() == content
    assert not list((path / "sessions").glob("*.new"))


async def test_trimming_makes_a_journal_shorter(path: Path) -> None:
    async with opened(path) as store:
        await store.commit([creation("s1")])
        for seq in range(1, 101):
            await store.commit([Change("s1", (an_entry(seq, b'{"x":"%b"}' % (b"x" * 900)),))])

        await store.trim("s1", 91)

        assert journal(path, "s1").stat().st_size < 11_000
        assert len((await store.entries("s1", 90)).entries) == 10
