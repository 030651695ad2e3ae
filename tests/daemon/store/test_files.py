"""The store of files: what outlives a process, and what is refused when it is opened."""

import os
import sys
from pathlib import Path
from subprocess import PIPE, Popen

import pytest
import trio

from moorage_daemon.store.files.journal import name_of, session_of
from moorage_daemon.store.files.opening import open_shelf
from moorage_daemon.store.files.reading import Reader
from moorage_daemon.store.port import Change, StoreBroken, StoreUnreadable
from tests.daemon.store.directories import (
    SMALL,
    copy,
    journal,
    opened,
    write,
)
from tests.daemon.store.platters import Platter, TestDisk
from tests.daemon.store.samples import (
    HOSTILE,
    a_head,
    all_entries,
    creation,
    entries,
    seqs,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


# ---- restarts


async def test_a_restart_finds_everything(path: Path) -> None:
    async with opened(path) as store:
        await store.commit([creation("s1", 700), creation("s2")])
        await store.commit([Change("s1", entries(701, 705), a_head("s1", title="t"))])
        await store.delete("s2")

    async with opened(path) as store:
        stored = await store.load("s1")
        assert stored is not None
        assert (stored.head.title, stored.seq) == ("t", 705)
        assert await all_entries(store, "s1") == list(entries(1, 705))
        assert len(await store.list()) == 1
        await store.commit([Change("s1", entries(706, 706))])
    async with opened(path) as store:
        assert await store.tip("s1") == 706


async def test_a_closed_store_has_all_in_its_journals(path: Path) -> None:
    async with opened(path) as store:
        await store.commit([creation("s1", 3), creation("s2")])

    assert {file.name for file in path.iterdir()} == {
        "commits.2.spare",
        "lock",
        "reserve",
        "sessions",
        "store.json",
    }
    assert {file.name for file in (path / "sessions").iterdir()} == {name_of("s1"), name_of("s2")}
    assert b'"kind":"message"' in journal(path, "s1").read_bytes()


async def test_only_the_owner_may_look_into_any_of_it(path: Path) -> None:
    umask = os.umask(0)
    try:
        async with opened(path) as store:
            await store.commit([creation("s1", 1)])
    finally:
        os.umask(umask)

    modes = {file.stat().st_mode & 0o777 for file in path.rglob("*") if file.is_file()}
    assert modes == {0o600}
    assert [folder.stat().st_mode & 0o777 for folder in (path, path / "sessions")] == [0o700] * 2


WRITES_UNTIL_KILLED = """
import sys
from pathlib import Path
import trio
from moorage_daemon.store.disk import Disk
from moorage_daemon.store.files.store import open_files
from moorage_daemon.store.port import Change
from tests.daemon.store.platters import Platter, TestDisk
from tests.daemon.store.samples import a_head, creation, entries

async def main():
    async with open_files(Disk(Path(sys.argv[1])), 2**14) as store:
        seq = await store.tip("s1")
        if seq is None:
            await store.commit([creation("s1"), creation("s2")])
            seq = 0
        while True:
            seq += 1
            same = entries(seq, seq, b'{"x":"%b"}' % (b"x" * (seq * 37 % 3000)))
            await store.commit([Change("s1", same, a_head("s1", title=f"{seq}")),
                                Change("s2", same)])
            sys.stdout.buffer.write(b"%d\\n" % seq)
            sys.stdout.buffer.flush()

trio.run(main)
"""


async def test_killing_the_process_takes_no_acknowledged_entry(path: Path) -> None:
    for acks in (1, 40, 3, 150, 17):
        acked = await trio.to_thread.run_sync(killed_after, path, acks)
        async with opened(path) as store:
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


async def test_a_deleted_session_does_not_come_back_from_the_log_of_commits(path: Path) -> None:
    image = path.with_name("image")
    async with opened(path) as store:
        await store.commit([creation("s1", 3), creation("s2", 1)])
        await store.delete("s1")
        await store.commit([creation("s1", 1)])
        await store.delete("s2")
        copy(path, image)  # as a crash here would leave it

    async with opened(image) as store:
        assert [(stored.head.id, stored.seq) for stored in await store.list()] == [("s1", 1)]
    async with opened(image) as store:
        assert seqs(await store.entries("s1")) == [1]
        assert await store.load("s2") is None


@pytest.mark.parametrize("reopens", [False, True])
def test_a_session_under_a_removed_ones_id_may_be_copied_anew(path: Path, reopens: bool) -> None:
    """The log of commits tells to remove a file; that is not the copy, which holds what it says."""
    disk = TestDisk(path, Platter())
    shelf = open_shelf(disk)
    write(shelf, creation("s1", 30), creation("s2", 1))
    shelf.remove("s1")
    write(shelf, creation("s1", 10))
    if reopens:
        shelf.close()
        shelf = open_shelf(disk)

    copy = shelf.begin_trim("s1", 5)
    assert copy is not None
    shelf.place(copy)
    write(shelf, Change("s1", entries(11, 11)), Change("s2", entries(2, 2)))
    shelf.close()

    shelf = open_shelf(disk)
    assert shelf.damaged == {}
    for session, numbers in (("s1", list(range(5, 12))), ("s2", [1, 2])):
        assert seqs(Reader(shelf).entries(session, 0, 100, 10**6, None)) == numbers
    shelf.close()


async def test_many_sessions_move_into_their_journals_between_commits(path: Path) -> None:
    async with opened(path) as store:
        for number in range(0, 200, 10):
            await store.commit([creation(f"s{n}", 2) for n in range(number, number + 10)])
        assert len(list((path / "sessions").iterdir())) > 100
        assert sum(file.stat().st_size for file in path.glob("commits.*")) < 8 * SMALL

    async with opened(path) as store:
        assert len(await store.list()) == 200


# ---- names


async def test_every_id_has_a_file_of_its_own_inside_the_directory(path: Path) -> None:
    async with opened(path) as store:
        for number, session in enumerate(HOSTILE):
            await store.commit([creation(session, number)])
    async with opened(path) as store:
        listed = {stored.head.id: stored.seq for stored in await store.list()}

    assert listed == {session: number for number, session in enumerate(HOSTILE)}
    assert len(list((path / "sessions").iterdir())) == len(HOSTILE)
    assert {file.name for file in path.parent.iterdir()} == {"store"}
    names = [name_of(session) for session in HOSTILE]
    assert len({name.lower() for name in names}) == len(names)
    assert max(map(len, names)) < 255


def test_a_name_gives_its_id_back_where_it_holds_it() -> None:
    assert session_of(name_of("a/b")) == "a/b"
    assert session_of(name_of("x" * 1000)) == name_of("x" * 1000)
    assert session_of(name_of("s1")) == "s1"
    for name in ("Stray.journal", "=zz.journal", "=6.journal", "=6131.journal", "s.j.journal"):
        assert session_of(name) == name


def test_a_person_finds_the_file_of_a_session_by_its_id() -> None:
    assert name_of("cmkd5o64amdt5ppkpgauciytr4") == "cmkd5o64amdt5ppkpgauciytr4.journal"


# ---- what is refused


async def refused(path: Path) -> str:
    """Why the directory cannot be opened."""
    with pytest.RaisesGroup(pytest.RaisesExc(StoreBroken)) as caught:
        async with trio.open_nursery(strict_exception_groups=True), opened(path):
            pass
    return str(caught.value.exceptions[0])


async def test_a_second_process_is_refused(path: Path) -> None:
    async with opened(path):
        assert "in use by another process" in await refused(path)
    async with opened(path):
        pass


async def test_a_newer_format_is_refused_and_left_alone(path: Path) -> None:
    async with opened(path) as store:
        await store.commit([creation("s1", 1)])
    (path / "store.json").write_bytes(b'{"format":2,"more":true}')
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}

    reason = await refused(path)

    assert "newer version: its format is 2, this version knows 1" in reason
    assert before == {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


async def test_a_directory_of_something_else_is_refused_and_left_alone(path: Path) -> None:
    (path / "holiday.jpg").write_bytes(b"precious")

    assert "holds files of something else" in await refused(path)
    assert {file.name for file in path.iterdir()} == {"holiday.jpg", "lock"}


async def test_a_first_start_that_died_is_begun_again(path: Path) -> None:
    for name in ("lock", "store.json.new", "reserve"):
        (path / name).touch()

    async with opened(path) as store:
        await store.commit([creation("s1")])


@pytest.mark.parametrize("name", ["lock", "store.json", "commits.1", "sessions"])
async def test_a_symbolic_link_in_the_place_of_a_file_is_refused(path: Path, name: str) -> None:
    elsewhere = path.with_name("elsewhere")
    elsewhere.write_bytes(b"not ours")
    async with opened(path):
        pass
    for file in path.glob(name):
        file.rename(path.with_name("moved"))
    (path / name).symlink_to(elsewhere)

    await refused(path)

    assert elsewhere.read_bytes() == b"not ours"


async def test_a_link_in_the_place_of_a_journal_concerns_its_session_alone(path: Path) -> None:
    async with opened(path) as store:
        await store.commit([creation("s1", 2), creation("s2", 2)])
    moved = journal(path, "s1").rename(path.with_name("moved"))
    journal(path, "s1").symlink_to(moved)

    async with opened(path) as store:
        with pytest.raises(StoreUnreadable, match="symbolic link"):
            await store.load("s1")
        assert [stored.head.id for stored in await store.list()] == ["s2"]
