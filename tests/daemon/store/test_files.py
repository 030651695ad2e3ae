"""The store of files: what outlives a process, and what is refused when it is opened."""

import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE, Popen

import pytest
import trio

from moorage_daemon.store.files.journal import name_of, session_of
from moorage_daemon.store.files.opening import open_shelf
from moorage_daemon.store.files.pieces import drafted
from moorage_daemon.store.files.reading import Reader
from moorage_daemon.store.files.shelf import Shelf
from moorage_daemon.store.files.store import FileStore, open_files
from moorage_daemon.store.port import Change, StoreBroken, StoreFull, StoreUnreadable
from tests.daemon.store.platters import Platter, Step, TestDisk, full
from tests.daemon.store.samples import (
    HOSTILE,
    a_head,
    all_entries,
    an_entry,
    creation,
    entries,
    in_chunks,
    raw,
    seqs,
)


SMALL = 2**14  # bytes of commits before they are moved into the journals


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@asynccontextmanager
async def opened(path: Path, segment: int = SMALL) -> AsyncGenerator[FileStore]:
    async with open_files(TestDisk(path, Platter()), segment) as store:
        yield store


def journal(path: Path, session: str) -> Path:
    return path / "sessions" / name_of(session)


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


def copy(path: Path, target: Path) -> None:
    """The files as they are, without the lock that somebody has on them."""
    (target / "sessions").mkdir(parents=True)
    for file in path.rglob("*"):
        if file.is_file() and file.name != "reserve":
            (target / file.relative_to(path)).write_bytes(file.read_bytes())


def write(shelf: Shelf, *changes: Change) -> None:
    shelf.commit(changes, [drafted(change) for change in changes])


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


# ---- damage


async def settled(path: Path) -> None:
    """A store whose journals hold all of three sessions, "s2" in 20 frames."""
    async with opened(path) as store:
        await store.commit([creation("s1", 1), creation("s2"), creation("s3", 1)])
        for seq in range(1, 20):
            change = Change("s2", (an_entry(seq, b'{"n":%d}' % seq),), a_head("s2", title=f"{seq}"))
            await store.commit([change])


def ends_of_frames(content: bytes) -> list[int]:
    return [at + 1 for at, byte in enumerate(content) if byte == ord("\n")]


async def test_a_journal_cut_anywhere_has_its_whole_frames_and_the_rest_is_kept(
    path: Path,
) -> None:
    await settled(path)
    content = journal(path, "s2").read_bytes()
    ends = ends_of_frames(content)
    assert len(ends) == 20
    for cut in [*range(1, 400, 7), *range(ends[-2] - 3, len(content))]:
        journal(path, "s2").write_bytes(content[:cut])
        whole = sum(end <= cut for end in ends)
        async with opened(path) as store:
            if whole == 0:
                with pytest.raises(StoreUnreadable):
                    await store.load("s2")
                continue
            assert await store.tip("s2") == whole - 1
            assert seqs(await all_entries(store, "s2")) == list(range(1, whole))
            await store.commit([Change("s2", (an_entry(whole),))])
        torn = list((path / "sessions").glob("*.torn"))
        rest = content[ends[whole - 1] : cut]
        assert [file.read_bytes() for file in torn] == ([rest] if rest else [])
        for file in torn:
            file.unlink()


async def test_an_empty_journal_is_damage_and_no_absence(path: Path) -> None:
    await settled(path)
    journal(path, "s2").write_bytes(b"")

    async with opened(path) as store:
        with pytest.raises(StoreUnreadable) as caught:
            await store.load("s2")
        assert caught.value.session == "s2"
        assert [stored.head.id for stored in await store.list()] == ["s1", "s3"]
        with pytest.raises(StoreUnreadable):
            await store.commit([creation("s2")])
        assert await store.delete("s2")
        await store.commit([creation("s2", 1)])


async def test_a_damaged_journal_whose_name_does_not_tell_its_id_is_nobody_elses(
    path: Path,
) -> None:
    long = "x" * 1000
    async with opened(path) as store:
        await store.commit([creation(long, 3), creation("s1", 1)])
    journal(path, long).write_bytes(b"damaged")

    async with opened(path) as store:
        with pytest.raises(StoreUnreadable):
            await store.commit([creation(long, 1)])
        with pytest.raises(StoreUnreadable):
            await store.load(long)
        assert await store.load("x" * 999) is None
    assert journal(path, long).read_bytes() == b"damaged"
    async with opened(path) as store:
        assert await store.delete(long)
        assert await store.damaged() == []
        await store.commit([creation(long, 1)])
    async with opened(path) as store:
        assert seqs(await store.entries(long)) == [1]


async def test_no_flipped_bit_before_the_last_frame_goes_unnoticed(path: Path) -> None:
    await settled(path)
    content = journal(path, "s2").read_bytes()
    last = ends_of_frames(content)[-2]
    for at in range(0, last, 13):
        flipped = bytearray(content)
        flipped[at] ^= 1 << (at % 8)
        journal(path, "s2").write_bytes(flipped)
        async with opened(path) as store:
            with pytest.raises(StoreUnreadable) as caught:
                await all_entries(store, "s2")
            assert caught.value.session == "s2"
            assert seqs(await store.entries("s1")) == [1]
        assert journal(path, "s2").read_bytes() == flipped  # refused is left as it is


async def test_a_frame_that_was_taken_out_whole_is_missed(path: Path) -> None:
    await settled(path)
    content = journal(path, "s2").read_bytes()
    ends = ends_of_frames(content)
    journal(path, "s2").write_bytes(content[: ends[4]] + content[ends[5] :])

    async with opened(path) as store:
        with pytest.raises(StoreUnreadable):
            await all_entries(store, "s2")


async def test_a_journal_under_another_sessions_name_is_refused(path: Path) -> None:
    await settled(path)
    journal(path, "s9").write_bytes(journal(path, "s1").read_bytes())

    async with opened(path) as store:
        with pytest.raises(StoreUnreadable, match="another session's"):
            await store.load("s9")
        assert await store.tip("s1") == 1


async def test_a_length_beyond_all_bounds_is_damage_and_asks_for_no_memory(path: Path) -> None:
    await settled(path)
    content = journal(path, "s2").read_bytes()
    journal(path, "s2").write_bytes(content[:9] + b"ffffffff" + content[17:])

    async with opened(path) as store:
        with pytest.raises(StoreUnreadable, match="damaged at byte 0"):
            await all_entries(store, "s2")


async def test_a_journal_that_ends_before_the_log_of_commits_goes_on_is_refused(
    path: Path,
) -> None:
    image = path.with_name("image")
    await settled(path)
    async with opened(path) as store:
        await store.commit([Change("s2", (an_entry(20),)), Change("s3", (an_entry(2),))])
        copy(path, image)
    content = journal(image, "s2").read_bytes()
    journal(image, "s2").write_bytes(content[: ends_of_frames(content)[-3]])

    async with opened(image) as store:
        with pytest.raises(StoreUnreadable):
            await store.load("s2")
        assert await store.tip("s3") == 2


async def test_what_a_crash_left_in_a_journal_is_overwritten_by_the_log_of_commits(
    path: Path,
) -> None:
    image = path.with_name("image")
    await settled(path)
    async with opened(path) as store:
        await store.commit([Change("s2", (an_entry(20, b'{"true":1}'),))])
        copy(path, image)
    with journal(image, "s2").open("ab") as file:
        file.write(b"half of a frame that is longer than the one that counts" * 20)

    async with opened(image) as store:
        assert (await store.entries("s2", 19)).entries == [an_entry(20, b'{"true":1}')]
    assert b"half of" not in journal(image, "s2").read_bytes()
    async with opened(image) as store:
        assert len(await all_entries(store, "s2")) == 20
    assert not list((image / "sessions").glob("*.torn"))


async def crashed(path: Path) -> Path:
    """What a crash leaves after three commits that are in no journal yet: its segment."""
    async with opened(path) as store:
        for number in range(3):
            await store.commit([creation(f"s{number}", 1)])
        copy(path, path.with_name("image"))
    (segment,) = path.with_name("image").glob("commits.[0-9]*")
    return segment


def test_segments_that_a_killed_recovery_left_are_read_in_the_order_of_the_commits(
    path: Path,
) -> None:
    """It wrote all of them anew and removed the first of them, but not the second."""
    disk = TestDisk(path, Platter())
    sessions = [f"s{number}" for number in range(8)]
    shelf = open_shelf(disk, SMALL)
    write(shelf, *(creation(session, 3) for session in sessions))
    write(shelf, *(Change(session, (an_entry(4, raw("x" * 2000)),)) for session in sessions))
    shelf.settle_some(lambda: False)
    write(shelf, *(Change(session, (an_entry(5),)) for session in sessions))
    shelf.close()
    first, second = sorted(path.glob("commits.[0-9]"))
    content = second.read_bytes()

    open_shelf(disk, SMALL).close()
    second.write_bytes(content)

    assert not first.exists()
    shelf = open_shelf(disk, SMALL)
    assert shelf.damaged == {}
    assert [stored.seq for stored in shelf.sessions()] == [5] * 8
    shelf.close()


async def damaged_with_commits_in_the_log(path: Path) -> bytes:
    """A crash left commits of "s2" in the log alone; gives its journal, which is then damaged."""
    await settled(path)
    shelf = open_shelf(TestDisk(path, Platter()), SMALL)
    write(shelf, Change("s2", entries(20, 20)), Change("s3", entries(2, 2)))
    write(shelf, Change("s2", entries(21, 22)))
    shelf.close()
    content = journal(path, "s2").read_bytes()
    journal(path, "s2").write_bytes(b"x" * len(content))
    return content


async def test_commits_of_a_damaged_journal_are_kept_and_mend_it(path: Path) -> None:
    content = await damaged_with_commits_in_the_log(path)

    for _ in range(2):
        async with opened(path) as store:
            assert [problem.session for problem in await store.damaged()] == ["s2"]
            assert await store.tip("s3") == 2

    assert not list(path.glob("commits.[0-9]"))  # the log has forgotten them
    (kept,) = (path / "sessions").glob("*.torn")
    assert kept.name == f"{name_of('s2')}.{len(content)}.commits.torn"
    journal(path, "s2").write_bytes(content + kept.read_bytes())
    async with opened(path) as store:
        assert seqs(await all_entries(store, "s2")) == list(range(1, 23))
        await store.delete("s2")
    assert not kept.exists()


async def test_commits_of_a_damaged_journal_go_with_their_session(path: Path) -> None:
    await damaged_with_commits_in_the_log(path)

    async with opened(path) as store:
        assert await store.delete("s2")

    assert not list((path / "sessions").glob("*.torn"))
    async with opened(path) as store:
        assert [stored.head.id for stored in await store.list()] == ["s1", "s3"]


def no_room_beside_journals(step: Step) -> None:
    if step.what == "write" and ".torn" in step.name:
        raise full(step)


async def test_commits_that_there_is_no_room_to_keep_stay_in_the_log(path: Path) -> None:
    content = await damaged_with_commits_in_the_log(path)
    shelf = open_shelf(TestDisk(path, Platter(before=no_room_beside_journals)), SMALL)
    shelf.settle_some(lambda: True)
    with pytest.raises(StoreFull):
        shelf.settle_all(lambda: False)
    shelf.close()

    async with opened(path):
        pass

    (kept,) = (path / "sessions").glob("*.torn")
    assert kept.name.endswith(f".{len(content)}.commits.torn")


async def test_a_torn_last_commit_is_kept_aside_and_was_never_there(path: Path) -> None:
    segment = await crashed(path)
    content = segment.read_bytes()
    whole = ends_of_frames(content)[:3]
    for cut in range(whole[1] + 30, whole[2], 3):
        segment.write_bytes(content[:cut] + bytes(len(content) - cut))
        found = path.with_name(f"cut{cut}")
        copy(segment.parent, found)

        async with opened(found) as store:
            assert [stored.head.id for stored in await store.list()] == ["s0", "s1"]

        (torn,) = found.glob("*.torn")
        assert torn.read_bytes() == content[whole[1] : cut].rstrip(b"\0")


async def test_drafts_of_a_process_that_died_over_them_are_removed(path: Path) -> None:
    await settled(path)
    for name in ("commits.1.torn.new", "commits.7.new", f"sessions/{name_of('s1')}.9.torn.new"):
        (path / name).write_bytes(b"half")

    async with opened(path):
        pass

    assert not list(path.rglob("*.new"))


async def test_one_spare_segment_is_kept_however_many_a_crash_brought_back(path: Path) -> None:
    await settled(path)
    for epoch in (1, 3):
        (path / f"commits.{epoch}.spare").write_bytes(bytes(SMALL))

    async with opened(path) as store:
        assert await store.tip("s1") == 1

    assert len(list(path.glob("commits.*"))) == 1


# ---- looking through everything


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
