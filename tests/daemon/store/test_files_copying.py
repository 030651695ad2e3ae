"""Trimming a journal, beside commits: none waits for it, none is lost, wherever it is cut short."""

import os
import random
import threading  # noqa: TID251  # the store's threads are stopped where a test wants them
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from moorage_daemon.store.files.copying import DRAFT, LOOKS, REST, SLICE, Copy, Progress
from moorage_daemon.store.files.journal import name_of
from moorage_daemon.store.files.opening import open_shelf
from moorage_daemon.store.files.pieces import drafted
from moorage_daemon.store.files.reading import Reader
from moorage_daemon.store.files.shelf import Shelf
from moorage_daemon.store.files.store import FileStore, open_files
from moorage_daemon.store.port import Change
from tests.daemon.store.platters import Platter, Step, TestDisk, power_cut
from tests.daemon.store.samples import a_head, all_entries, an_entry, creation, seqs


BODY = b'{"x":"%b"}' % (b"x" * 3000)
COUNT = 60  # entries before the trim
CUT = 31  # the first that stays


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def log(first: int, last: int) -> Change:
    """Entries of "s1", and a head that names the last of them."""
    found = tuple(an_entry(seq, BODY) for seq in range(first, last + 1))
    return Change("s1", found, a_head("s1", title=f"{last}"))


def write(shelf: Shelf, *changes: Change) -> None:
    shelf.commit(changes, [drafted(change) for change in changes])
    shelf.settle_some(lambda: False)


# ---- the shelf, step by step


def filled(disk: TestDisk, segment: int = 2**14) -> Shelf:
    """A shelf with a session to trim, on its way into its journal."""
    shelf = open_shelf(disk, segment)
    write(shelf, creation("s1"), creation("s2"))
    for seq in range(1, COUNT + 1):
        write(shelf, log(seq, seq))
    return shelf


class Busy:
    """Commits to the session at every fifth pause of the copying; `seq` is its last entry."""

    def __init__(self, shelf: Shelf, platter: Platter) -> None:
        self._shelf = shelf
        self._platter = platter
        self._pauses = 0
        self.seq = COUNT

    def pause(self) -> None:
        self._pauses += 1
        if self._pauses % 5 == 0:
            self.commit()

    def commit(self) -> None:
        self.seq += 1
        write(self._shelf, log(self.seq, self.seq), Change("s2", (an_entry(self.seq - COUNT),)))
        self._platter.ack(self.seq)


def carried_out(shelf: Shelf, copy: Copy, pause: Callable[[], None]) -> Progress:
    while copy.progress is Progress.GOING:
        while copy.left > 0:
            copy.go_on(shelf.folder, pause)
        shelf.place(copy)
    copy.release(shelf.folder)
    return copy.progress


def trimmed(shelf: Shelf, pause: Callable[[], None] = lambda: None) -> Progress:
    copy = shelf.begin_trim("s1", CUT)
    assert copy is not None
    return carried_out(shelf, copy, pause)


def numbers(shelf: Shelf, session: str = "s1") -> list[int]:
    assert shelf.damaged == {}
    return seqs(Reader(shelf).entries(session, 0, 2**20, 2**30, None))


@pytest.mark.parametrize("segment", [2**14, 2**20], ids=["settled", "in the log"])
def test_what_is_committed_meanwhile_is_in_the_copy(path: Path, segment: int) -> None:
    disk = TestDisk(path, platter := Platter())
    shelf = filled(disk, segment)
    busy = Busy(shelf, platter)

    assert trimmed(shelf, busy.pause) is Progress.PLACED

    assert busy.seq > COUNT + 10
    write(shelf, log(busy.seq + 1, busy.seq + 1))
    assert numbers(shelf) == list(range(CUT, busy.seq + 2))
    stored = {found.head.id: found.head for found in shelf.sessions()}
    shelf.close()  # as a crash leaves it: the log of commits still holds what came meanwhile
    again = open_shelf(disk, segment)
    assert numbers(again) == list(range(CUT, busy.seq + 2))
    assert {found.head.id: found.head for found in again.sessions()} == stored
    assert stored["s1"].title == f"{busy.seq + 1}"
    assert Reader(again).verify("s1") == busy.seq + 2 - CUT
    again.close()


def test_a_session_that_never_rests_is_trimmed_all_the_same(path: Path) -> None:
    shelf = filled(TestDisk(path, Platter()), 2**20)
    seq, looks = COUNT, 0

    def flood() -> None:
        nonlocal seq, looks
        looks += 1
        more = REST // len(BODY) + 2
        write(shelf, log(seq + 1, seq + more))
        seq += more

    copy = shelf.begin_trim("s1", CUT)
    assert copy is not None
    while copy.progress is Progress.GOING:
        copy.go_on(shelf.folder, lambda: None)
        flood()
        shelf.place(copy)

    assert looks == LOOKS
    assert numbers(shelf) == list(range(CUT, seq + 1))
    shelf.close()


def test_no_power_cut_in_a_trim_takes_what_was_committed_before_and_meanwhile(
    tmp_path: Path, path: Path
) -> None:
    platter = Platter()
    shelf = filled(TestDisk(path, platter))
    platter.ack(COUNT)
    begun = len(platter.steps)
    busy = Busy(shelf, platter)
    trimmed(shelf, busy.pause)
    busy.commit()
    shelf.close()

    firsts = set[int]()
    for at in range(begun, len(platter.steps) + 1):
        image = tmp_path / f"{at}"
        acked = power_cut(platter.steps, at, image, random.Random(at))
        found = open_shelf(TestDisk(image, Platter()), 2**14)
        there = numbers(found)
        firsts.add(there[0])
        assert there == list(range(there[0], there[-1] + 1))
        assert there[-1] >= acked
        assert len(numbers(found, "s2")) == there[-1] - COUNT
        found.close()
    assert firsts == {1, CUT}


def test_the_power_cuts_do_find_a_draft_that_is_not_synced(tmp_path: Path, path: Path) -> None:
    platter = Platter()
    shelf = filled(TestDisk(path, platter))
    begun = len(platter.steps)
    trimmed(shelf, Busy(shelf, platter).pause)
    shelf.close()
    steps = [s for s in platter.steps if not (s.what == "sync" and s.name.endswith(DRAFT))]

    bad = 0
    for at in range(begun, len(steps) + 1):
        image = tmp_path / f"{at}"
        power_cut(steps, at, image, random.Random(at))
        found = open_shelf(TestDisk(image, Platter()), 2**14)
        bad += "s1" in found.damaged or len(numbers(found)) < COUNT + 1 - CUT
        found.close()

    assert bad > 0


def test_the_old_journal_is_held_until_somebody_has_time_to_give_it_up(path: Path) -> None:
    shelf = filled(TestDisk(path, Platter()))
    copy = shelf.begin_trim("s1", CUT)
    assert copy is not None

    while copy.left > 0:
        copy.go_on(shelf.folder, lambda: None)
    shelf.place(copy)

    assert copy.progress is Progress.PLACED
    assert copy.replaced is not None
    assert os.fstat(copy.replaced.descriptor).st_nlink == 0
    descriptor = copy.replaced.descriptor
    copy.release(shelf.folder)
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(descriptor)
    assert numbers(shelf) == list(range(CUT, COUNT + 1))
    shelf.close()


@pytest.mark.parametrize("is_made_anew", [False, True])
def test_a_session_that_is_removed_meanwhile_stays_removed(
    path: Path, *, is_made_anew: bool
) -> None:
    disk = TestDisk(path, Platter())
    shelf = filled(disk)
    copy = shelf.begin_trim("s1", CUT)
    assert copy is not None
    copy.go_on(shelf.folder, lambda: None)
    shelf.remove("s1")
    if is_made_anew:
        write(shelf, creation("s1", 2))

    shelf.place(copy)

    assert copy.progress is Progress.OVERTAKEN
    assert numbers(shelf) == ([1, 2] if is_made_anew else [])
    shelf.close()


def test_a_long_journal_is_copied_slice_by_slice(path: Path) -> None:
    shelf = open_shelf(TestDisk(path, Platter()), 2**20)
    entry = b'{"x":"%b"}' % (b"x" * (SLICE // 8))
    changes = [creation("s1"), *(Change("s1", (an_entry(n, entry),)) for n in range(1, 25))]
    write(shelf, *changes)
    copy = shelf.begin_trim("s1", 2)
    assert copy is not None

    turns = 0
    while copy.left > 0:
        before = copy.copied
        copy.go_on(shelf.folder, lambda: None)
        assert copy.copied - before <= SLICE * 9 // 8 + 1000
        turns += 1
    shelf.place(copy)

    assert turns >= 3
    assert copy.progress is Progress.PLACED
    assert numbers(shelf) == list(range(2, 25))
    shelf.close()


# ---- the store, with its threads


class Gate:
    """Holds the thread that copies at its first write, until it is opened."""

    def __init__(self) -> None:
        self.reached = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        self._open = threading.Event()
        self._is_used = False

    def before(self, step: Step) -> None:
        if step.what == "write" and step.name.endswith(DRAFT) and not self._is_used:
            self._is_used = True
            self._token.run_sync_soon(self.reached.set)
            assert self._open.wait(10)

    def open(self) -> None:
        self._open.set()


@asynccontextmanager
async def stored(path: Path, platter: Platter) -> AsyncGenerator[FileStore]:
    """A store with a session to trim."""
    async with open_files(TestDisk(path, platter)) as store:
        await store.commit([creation("s1"), creation("s2")])
        await store.commit([log(1, COUNT)])
        yield store


@asynccontextmanager
async def halted(store: FileStore, platter: Platter) -> AsyncGenerator[list[int]]:
    """A trim that stands still in its copying inside the block, and its result behind it."""
    gate, result = Gate(), list[int]()
    platter.before = gate.before

    async def trim() -> None:
        result.append(await store.trim("s1", CUT))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trim)
        with trio.fail_after(5):
            await gate.reached.wait()
        try:
            yield result
        finally:
            gate.open()


async def test_no_commit_waits_for_a_trim(path: Path) -> None:
    platter = Platter()
    async with stored(path, platter) as store:
        async with halted(store, platter) as result:
            with trio.fail_after(5):
                await store.commit([Change("s2", (an_entry(1),)), log(COUNT + 1, COUNT + 1)])
                assert await store.tip("s1") == COUNT + 1
            assert not result

        assert result == [CUT - 1]
        assert seqs(await store.entries("s1")) == list(range(CUT, COUNT + 2))
        await store.commit([log(COUNT + 2, COUNT + 2)])
        assert (await store.check()).problems == []
    async with open_files(TestDisk(path, Platter())) as store:
        assert seqs(await store.entries("s1")) == list(range(CUT, COUNT + 3))
        assert seqs(await store.entries("s2")) == [1]


async def test_a_session_that_is_removed_meanwhile_is_not_trimmed(path: Path) -> None:
    platter = Platter()
    async with stored(path, platter) as store:
        async with halted(store, platter) as result:
            assert await store.delete("s1")

        assert result == [0]
        assert await store.load("s1") is None
        assert drafts(path) == []


async def test_a_store_that_is_opened_anew_meanwhile_trims_once_more(path: Path) -> None:
    platter = Platter()
    async with stored(path, platter) as store:
        async with halted(store, platter) as result:
            await store.reopen()
            await store.commit([log(COUNT + 1, COUNT + 1)])

        assert result == [CUT - 1]
        assert [e.seq for e in await all_entries(store, "s1", CUT - 1)] == list(
            range(CUT, COUNT + 2)
        )
        assert drafts(path) == []


async def test_a_trim_that_is_cancelled_leaves_nothing_behind(path: Path) -> None:
    platter = Platter()
    async with stored(path, platter) as store:
        gate = Gate()
        platter.before = gate.before
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.trim, "s1", CUT)
            await gate.reached.wait()
            nursery.cancel_scope.cancel()
            gate.open()

        assert drafts(path) == []
        assert seqs(await store.entries("s1")) == list(range(1, COUNT + 1))
        assert await store.trim("s1", CUT) == CUT - 1


async def test_a_store_that_is_closed_meanwhile_is_closed_in_order(path: Path) -> None:
    platter = Platter()
    async with stored(path, platter) as store:
        gate = Gate()
        platter.before = gate.before

        async def trim() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await store.trim("s1", CUT)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trim)
            await gate.reached.wait()
            nursery.start_soon(store.aclose)
            await wait_all_tasks_blocked()
            gate.open()

    assert drafts(path) == []
    async with open_files(TestDisk(path, Platter())) as store:
        assert seqs(await store.entries("s1")) == list(range(1, COUNT + 1))


def drafts(path: Path) -> list[str]:
    return [file.name for file in (path / "sessions").glob(f"*{DRAFT}")]


def test_a_draft_is_none_of_the_sessions(path: Path) -> None:
    disk = TestDisk(path, Platter())
    filled(disk).close()
    (path / "sessions" / (name_of("s1") + DRAFT)).write_bytes(b"half")

    shelf = open_shelf(disk)

    assert drafts(path) == []
    assert numbers(shelf) == list(range(1, COUNT + 1))
    shelf.close()
