"""The life of a store, written down step by step, and what a crash in it leaves.

A life is commits, deletions, sessions that come again under the same id, trims, also beside commits
to the same session, compactions, blobs that are collected, now and then a restart, and all that
stores do between. Each change is acknowledged on the tape, and `Life.states` says what may be there
after it, so an image of the disk can be held against what was promised by then: all changes that
were acknowledged, and any of those that were being made.
"""

import hashlib
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import apsw
import msgspec
import trio

from moorage_daemon.store.connection import Connection
from moorage_daemon.store.database import claim, open_writable
from moorage_daemon.store.disk import Disk
from moorage_daemon.store.files.directory import BLOBS
from moorage_daemon.store.files.opening import open_shelf
from moorage_daemon.store.files.pieces import drafted
from moorage_daemon.store.files.reading import Reader as FilesReader
from moorage_daemon.store.files.shelf import Shelf
from moorage_daemon.store.files.store import FileStore, open_files
from moorage_daemon.store.model import Entry
from moorage_daemon.store.naming import blobs_named
from moorage_daemon.store.port import Change, Page, Store, Stored
from moorage_daemon.store.reading import Reader
from moorage_daemon.store.sqlite import open_sqlite
from moorage_daemon.store.wal import keep_if_damaged, kept
from moorage_daemon.store.writing import Writer, blob_names, entry_rows
from tests.daemon.store import media, platters
from tests.daemon.store.samples import a_head, an_entry, in_chunks


COMMITS = 24
SEGMENT = 2**14  # bytes: lines move into the journals early, so that a short life sees all of it
EVERYTHING = 2**30

AGAIN = ("again", "x" * 200)  # ids that are used again, one of which no file's name tells


class Known(msgspec.Struct, frozen=True):
    """What is known of a session. `born` tells it from others that had its id before."""

    born: int
    title: int
    seq: int
    first: int = 1


State = dict[str, Known]


class Wrong(Exception):
    """An image is not what was promised."""


@dataclass(eq=False)
class Life:
    """Everything that a store asked of its medium, and `states[n]`: what may be there from ack n
    on, until the next; first what was promised then."""

    steps: Sequence[Any]
    states: list[list[State]]

    def judge(self, found: State, acked: int) -> None:
        """Raise `Wrong` unless the found state is one that there may be after that ack."""
        may_be = self.states[acked]
        if found not in may_be:
            raise Wrong(f"after ack {acked}: {_difference(found, may_be[0])}")


def _difference(found: State, promised: State) -> str:
    names = sorted(found.keys() | promised.keys())
    return "; ".join(
        f"{name[:9]}: {found.get(name)}, promised {promised.get(name)}"
        for name in names
        if found.get(name) != promised.get(name)
    )


# ---- what is done


def body(born: int, seq: int, digest: str | None = None) -> bytes:
    """The body of an entry: what it says follows from whose it is."""
    size = (20, 900, 5000)[hash((born, seq)) % 3]
    named = b',"sha256":"%b"' % digest.encode() if digest else b""
    return b'{"born":%d,"seq":%d,"x":"%b"%b}' % (born, seq, b"x" * size, named)


Effect = Callable[[State], State]


@dataclass(eq=False)
class Script:
    """Does things to a store and notes what is promised after each.

    `now` is what was acknowledged, `going_on` what is being done. A `hold` stops copies of
    journals.
    """

    store: Store
    ack: Callable[[int], None]
    has_blobs: bool
    restart: Callable[[], Awaitable[None]]
    hold: platters.Hold | None = None
    on_recreation: Callable[[bool], None] = lambda _: None
    now: State = field(default_factory=dict[str, Known])
    going_on: list[Effect] = field(default_factory=list[Effect])
    states: list[list[State]] = field(default_factory=lambda: [[{}]])
    born: int = 0

    async def run(self, commits: int) -> None:
        """A whole life."""
        await self._commit(self._creation("s1"), self._creation("s2"))
        for number in range(1, commits + 1):
            await self._append("s1", "s2", create=f"of{number}")
            if number > 1:
                await self._delete(f"of{number - 1}")
            if number % 3 == 0:
                await self._come_again(AGAIN[number // 3 % len(AGAIN)])
            if number % 4 == 0 and self.has_blobs:
                await self._name_a_blob(number // 4 % 3)
            if number % 7 == 0:
                await self._trim("s1", number - 3)
            if number % 6 == 5 and self.hold is not None:
                await self._trim_beside_commits("s1", number - 1, self.hold)
            if number % 11 == 0:
                await self.store.compact()
            if number % 9 == 0:
                await self.store.collect(-1)
            if number % 10 == 0:
                await self.restart()

    async def _come_again(self, session: str) -> None:
        """Delete a session and create another one under its id, which goes on."""
        self.on_recreation(True)
        if session in self.now:
            await self._delete(session)
        await self._commit(self._creation(session, 2))
        self.on_recreation(False)
        await self._append(session)
        await self._trim(session, 3)

    async def _name_a_blob(self, number: int) -> None:
        content = b"blob %d" % number * 500
        blob = await self.store.put_blob(in_chunks(content), max_bytes=2**20)
        await self._append("s1", digest=blob.sha256)

    async def _append(self, *sessions: str, create: str = "", digest: str | None = None) -> None:
        changes = [appending(session, self.now[session], digest) for session in sessions]
        await self._commit(*changes, *([self._creation(create, 1)] if create else []))

    def _creation(self, session: str, count: int = 0) -> Change:
        self.born += 1
        log = tuple(an_entry(seq, body(self.born, seq)) for seq in range(1, count + 1))
        return Change(session, log, a_head(session, title=f"{self.born} 0"), create=True)

    async def _trim_beside_commits(self, session: str, before: int, hold: platters.Hold) -> None:
        """Trim, and commit to that session and to others: in the middle of the copy, and then
        whenever the writing thread comes to it."""
        async with trio.open_nursery() as nursery:
            with hold.next_copy() as reached:
                nursery.start_soon(self._trim, session, before)
                with trio.fail_after(10):
                    await reached.wait()
                await self._append(session)
                await self._append(session, "s2", create="beside")
                await self._delete("beside")
            await self._append("s2", session)

    async def _commit(self, *changes: Change) -> None:
        await self._do(self.store.commit(changes), lambda state: after(state, changes))

    async def _delete(self, session: str) -> None:
        await self._do(
            self.store.delete(session),
            lambda state: {name: known for name, known in state.items() if name != session},
        )

    async def _trim(self, session: str, before: int) -> None:
        def trimmed(state: State) -> State:
            known = state[session]
            first = max(known.first, min(before, known.seq))
            return state | {session: msgspec.structs.replace(known, first=first)}

        await self._do(self.store.trim(session, before), trimmed)

    async def _do(self, act: Awaitable[object], effect: Effect) -> None:
        self.going_on.append(effect)
        self.states[-1] = self._may_be()
        await act
        self.going_on.remove(effect)
        self.now = effect(self.now)
        self.states.append(self._may_be())
        self.ack(len(self.states) - 1)

    def _may_be(self) -> list[State]:
        """What is acknowledged, with none, some or all of what is being done."""
        found = [self.now]
        for effect in self.going_on:
            found += [effect(state) for state in found]
        return found


@asynccontextmanager
async def _script(
    opening: Callable[[], AbstractAsyncContextManager[Store]],
    ack: Callable[[int], None],
    *,
    has_blobs: bool,
    hold: platters.Hold | None = None,
) -> AsyncGenerator[Script]:
    """A script for a store, which by turns is opened anew and closed and opened."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(opening())
        turns = itertools.count()

        async def restart() -> None:
            nonlocal store
            if next(turns) % 2:
                await stack.aclose()
                script.store = store = await stack.enter_async_context(opening())
            else:
                await store.reopen()

        script = Script(store, ack, has_blobs, restart, hold)
        yield script


def appending(session: str, known: Known, digest: str | None = None) -> Change:
    """One entry more, and a new title."""
    entry = an_entry(known.seq + 1, body(known.born, known.seq + 1, digest))
    return Change(session, (entry,), a_head(session, title=f"{known.born} {known.title + 1}"))


def after(state: State, changes: Sequence[Change]) -> State:
    """What is there after these changes."""
    changed: State = {}
    for change in changes:
        old = state.get(change.session)
        assert change.head is not None
        born, title = map(int, str(change.head.title).split())
        seq = change.entries[-1].seq if change.entries else 0
        changed[change.session] = Known(born, title, seq, old.first if old else 1)
    return state | changed


def stated(stored: Stored, page: Page) -> Known:
    """What is known of a session of which all entries were read; raises `Wrong`."""
    born, title = map(int, str(stored.head.title).split())
    numbers = range(stored.first, stored.seq + 1)
    if [entry.seq for entry in page.entries] != list(numbers):
        raise Wrong(f"{stored.head.id}: its entries are not {numbers}")
    for entry in page.entries:
        _must_be_of(born, entry)
    return Known(born, title, stored.seq, stored.first)


def _must_be_of(born: int, entry: Entry) -> None:
    (*_, digest) = (None, *blobs_named(entry))
    if entry.body != body(born, entry.seq, digest):
        raise Wrong(f"entry {entry.seq} is not what was written")


# ---- SQLite


class Meddler:
    """Before every transaction of the store, in its thread: spare it the syncs, while asked to,
    and now and then move the WAL into the database, which the store does only after megabytes."""

    def __init__(self, *, careless: bool) -> None:
        self.is_careless = careless
        self._transactions = 0

    def meet(self, connection: apsw.Connection) -> None:
        connection.exec_trace = self._before

    def _before(self, cursor: apsw.Cursor, statement: str, bindings: object) -> bool:
        if statement == "begin immediate":
            connection = cast("Connection", cursor.connection)
            connection.pragma("synchronous", "normal" if self.is_careless else "full")
            self._transactions += 1
            if self._transactions % 6 == 0:
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        return True


@contextmanager
def meddling(*, careless: bool) -> Generator[Meddler]:
    """All connections opened meanwhile are meddled with."""
    meddler = Meddler(careless=careless)
    hook = meddler.meet
    apsw.connection_hooks.append(hook)
    try:
        yield meddler
    finally:
        apsw.connection_hooks.remove(hook)


async def sqlite_life(path: Path, *, careless: bool | None = False, commits: int = COMMITS) -> Life:
    """A life in SQLite; a careless one waits for no sync, with None not while a session is deleted
    and comes again."""
    tape = media.Tape()
    with media.open_medium(tape.steps.append), meddling(careless=careless is True) as meddler:

        def on_recreation(begins: bool) -> None:
            meddler.is_careless = begins if careless is None else careless

        async with _script(lambda: open_sqlite(path), tape.ack, has_blobs=False) as script:
            script.on_recreation = on_recreation
            await script.run(commits)
    return Life(tape.steps, script.states)


@contextmanager
def _writing(folder: Path) -> Generator[Writer]:
    """The database as the store opens it."""
    path = claim(folder / "sessions.db")
    writer = Writer(open_writable(path))
    try:
        keep_if_damaged(path, writer.checkpoint())
        if problems := kept(path):
            raise Wrong(f"what a crash left is taken for damage: {problems}")
        yield writer
    finally:
        writer.close()


def _state_of_database(writer: Writer) -> State:
    try:
        verdict = str(writer.connection.pragma("integrity_check"))
    except apsw.Error as error:
        raise Wrong(f"the database cannot be checked: {error}") from error
    if verdict != "ok":
        raise Wrong(f"the database is damaged: {verdict}")
    reader = Reader(writer.connection)
    found: State = {}
    for stored in reader.sessions():
        page = reader.entries(stored.head.id, 0, EVERYTHING, EVERYTHING, None)
        found[stored.head.id] = stated(stored, page)
    if problems := reader.damaged():
        raise Wrong(f"not readable: {problems}")
    return found


def found_in_sqlite(folder: Path) -> State:
    """What is there; raises `Wrong`, or `StoreError`."""
    with media.open_medium(lambda _: None), _writing(folder) as writer:
        return _state_of_database(writer)


# ---- files


async def files_life(
    path: Path,
    forgets: Callable[[platters.Step], bool] = lambda _: False,
    commits: int = COMMITS,
) -> Life:
    """A life in files, on a disk that only says that it does some of the steps."""
    hold = platters.Hold()
    platter = platters.Platter(before=hold.meet, forgets=forgets)
    path.mkdir()

    def opening() -> AbstractAsyncContextManager[FileStore]:
        return open_files(platters.TestDisk(path, platter), SEGMENT)

    async with _script(opening, platter.ack, has_blobs=True, hold=hold) as script:
        await script.run(commits)
    return Life(platter.steps, script.states)


def _state_of_files(shelf: Shelf, folder: Path) -> State:
    if shelf.damaged:
        raise Wrong(f"not readable: {shelf.damaged}")
    reader = FilesReader(shelf)
    if leftovers := [cut for cut in shelf.cuts if ".commits." in cut]:
        raise Wrong(f"acknowledged commits have no place: {leftovers}")
    found: State = {}
    for stored in shelf.sessions():
        page = reader.entries(stored.head.id, 0, EVERYTHING, EVERYTHING, None)
        found[stored.head.id] = stated(stored, page)
        for digest in frozenset[str]().union(*map(blobs_named, page.entries)):
            _must_be_whole(folder / BLOBS / digest)
    return found


def _must_be_whole(blob: Path) -> None:
    content = blob.read_bytes() if blob.exists() else b""
    if hashlib.sha256(content).hexdigest() != blob.name:
        raise Wrong(f"the blob {blob.name} is named, and not there")


def found_in_files(folder: Path) -> State:
    """What is there; raises `Wrong`, or `StoreError`."""
    disk = Disk(folder)
    shelf = open_shelf(disk, SEGMENT)
    try:
        return _state_of_files(shelf, folder)
    finally:
        shelf.close()
        disk.close()


# ---- recoveries


@dataclass(eq=False)
class Recovery:
    """What opening an image told, and all that it asked of the medium until and after that.

    After `told` steps it had said what is there; then every session got an entry more, which was
    acknowledged after `acked` steps, and in the end the store was closed.
    """

    steps: list[Any]
    state: State
    told: int
    acked: int

    def judge(self, life: Life, acked: int, at: int, found: State) -> None:
        """Raise `Wrong` unless a crash before step `at` left what was promised by then.

        `acked` was the last ack before the recovery.
        """
        later = after(self.state, self.changes(self.state))
        may_be = [self.state, later] if at < self.acked else [later]
        if at >= self.told and found not in may_be:
            raise Wrong(f"after it was told: {_difference(found, may_be[0])}")
        if at < self.told:
            life.judge(found, acked)

    @staticmethod
    def changes(state: State) -> list[Change]:
        """What is written after it was told."""
        return [appending(session, known) for session, known in state.items()]


def recover_sqlite(folder: Path, forgets: Callable[[media.Step], bool]) -> Recovery:
    """Open an image, look, write and close; some steps are only said to be done."""
    steps: list[media.Step] = []

    def before(step: media.Step) -> None:
        if not forgets(step):
            steps.append(step)

    with media.open_medium(before), _writing(folder) as writer:
        state, told = _state_of_database(writer), len(steps)
        changes = Recovery.changes(state)
        writer.commit(changes, entry_rows(changes), blob_names(changes))
        acked = len(steps)
    return Recovery(steps, state, told, acked)


def recover_files(folder: Path, forgets: Callable[[platters.Step], bool]) -> Recovery:
    """The same of a store of files."""
    platter = platters.Platter(forgets=forgets)
    disk = platters.TestDisk(folder, platter)
    shelf = open_shelf(disk, SEGMENT)
    try:
        state, told = _state_of_files(shelf, folder), len(platter.steps)
        changes = Recovery.changes(state)
        shelf.commit(changes, [drafted(change) for change in changes])
        acked = len(platter.steps)
        shelf.settle_all(lambda: False)
    finally:
        shelf.close()
        disk.close()
    return Recovery(platter.steps, state, told, acked)
