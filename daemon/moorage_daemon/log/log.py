"""One session's log: gives numbers, keeps what is not yet told, wakes who waits.

Numbers are 1, 2, 3 … without gaps. An entry is told when it is durable and not before: readers
see `durable`, never `seq`. An entry that is in a commit never changes; text of the same kind,
message and turn joins the last entry while that is not yet in one, so a fast agent costs few
entries and no delay.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

import msgspec
import trio

from moorage_daemon.log.cursor import Cursor
from moorage_daemon.log.told import Told
from moorage_daemon.store.model import UPDATE_KINDS, Entry, Head, Kind, encode_body
from moorage_daemon.store.port import Change, Page, Stored, StoreError
from moorage_protocol.errors import CursorExpired, NotFound, StorageError


MAX_JOINED = 16 * 2**10  # characters of one joined text entry: small enough to flow, few to store
MAX_PIECE = 128 * 2**10  # characters of any text entry: escaped it still fits one wire message
ROOM = 2**20  # bytes of one session that may wait for the disk before its agent does
TAIL = 256 * 2**10  # bytes of told entries kept for readers that are a little behind

OnDurable = Callable[[StorageError | None], None]

CONTROL_KINDS = frozenset({Kind.VERDICT, Kind.STATE, Kind.ANSWER, Kind.RESULT, Kind.END})


class Urgency(IntEnum):
    """How much depends on an entry becoming durable soon."""

    STREAMED = 0  # output: the agent goes on meanwhile
    AWAITED = 1  # a turn or a client waits for it
    CONTROL = 2  # an end, or an answer: it may use the space kept in reserve


class Writes(Protocol):
    """What a log needs of the committer."""

    @property
    def full(self) -> bool:
        """Whether the disk has no room for more than verdicts."""
        ...

    @property
    def low(self) -> bool:
        """Whether nothing new may begin, for want of space."""
        ...

    @property
    def exhausted(self) -> bool:
        """Whether it has been full for longer than agents and prompts can wait."""
        ...

    def submit(self, log: "Log", size: int, urgency: Urgency) -> None:
        """The log has something new to write."""
        ...

    def has_room(self) -> bool:
        """Whether all logs together may let agents go on."""
        ...

    async def progress(self) -> None:
        """Wait until something was committed or has failed."""
        ...

    async def read(self, session: str, after: int, max_bytes: int) -> Page:
        """Stored entries beyond `after`."""
        ...

    def now(self) -> float:
        """Seconds since 1970."""
        ...


def _urgency(kind: str) -> Urgency:
    if kind in CONTROL_KINDS:
        return Urgency.CONTROL
    return Urgency.STREAMED if kind in UPDATE_KINDS else Urgency.AWAITED


@dataclass(slots=True)
class _Draft:
    """An entry that is in no commit yet; `text` is set while it may still grow."""

    seq: int
    at: float
    kind: str
    generation: int | None
    body: bytes = b""
    origin: str | None = None
    text: "_Text | None" = None

    def freeze(self) -> Entry:
        body = self.text.encode() if self.text is not None else self.body
        return Entry(self.seq, self.at, self.kind, body, self.generation, self.origin)


@dataclass(slots=True)
class _Text:
    update: str  # the sessionUpdate it becomes
    message_id: str
    pieces: list[str]
    length: int

    def encode(self) -> bytes:
        return b'{"sessionUpdate":"%b","content":{"type":"text","text":%b},"messageId":%b}' % (
            self.update.encode(),
            msgspec.json.encode("".join(self.pieces)),
            msgspec.json.encode(self.message_id),
        )


@dataclass(slots=True)
class _Waiter:
    seq: int
    call: OnDurable
    patient: bool


@dataclass(eq=False)
class Log:
    """The log of the session `stored` and its committer's view of it.

    `head` is the durable one, and a new session `exists` when its first commit is. Entries before
    `first` were trimmed.
    """

    stored_at: Stored
    writes: Writes
    is_new: bool = False
    seq: int = field(init=False)
    first: int = field(init=False)
    durable: int = field(init=False)
    told: Told = field(init=False)
    head: Head = field(init=False)
    exists: bool = field(init=False)
    failed: bool = field(init=False, default=False)
    cursors: set[Cursor] = field(init=False, default_factory=set[Cursor])
    _drafts: list[_Draft] = field(init=False, default_factory=list[_Draft])
    _head: Head | None = field(init=False, default=None)
    _waiting_bytes: int = field(init=False, default=0)
    _tail: deque[Entry] = field(init=False, default_factory=deque[Entry])
    _tail_bytes: int = field(init=False, default=0)
    _waiters: list[_Waiter] = field(init=False, default_factory=list[_Waiter])
    _watchers: list[Callable[[], None]] = field(
        init=False, default_factory=list[Callable[[], None]]
    )

    def __post_init__(self) -> None:
        self.session_id = self.stored_at.head.id
        self.head, self.exists = self.stored_at.head, not self.is_new
        self.seq = self.durable = self.stored_at.seq
        self.first = self.stored_at.first
        self.told = Told.at_rest(self.stored_at.head, self.stored_at.seq)

    # ---- writing

    def append(
        self,
        kind: Kind | str,
        body: msgspec.Struct | bytes,
        *,
        generation: int | None = None,
        origin: str | None = None,
        at: float | None = None,
    ) -> int:
        """Add an entry; gives its number. It is not told before it is durable.

        `at` is when it happened, if that was not now.
        """
        self.seq += 1
        if self.failed:
            return self.seq  # it will never be told
        encoded = body if isinstance(body, bytes) else encode_body(body)
        when = self.writes.now() if at is None else at
        self._drafts.append(_Draft(self.seq, when, kind, generation, encoded, origin))
        self._grown(len(encoded), _urgency(kind))
        return self.seq

    def append_text(self, update: str, text: str, message_id: str, generation: int) -> None:
        """Add a piece of streamed text, to the last entry if that is the same message."""
        if self.failed:
            return
        last = self._drafts[-1].text if self._drafts else None
        if (
            last is not None
            and last.message_id == message_id
            and last.update == update
            and last.length + len(text) <= MAX_JOINED
            and self._drafts[-1].generation == generation
        ):
            last.pieces.append(text)
            last.length += len(text)
            self._grown(len(text), Urgency.STREAMED)
            return
        for start in range(0, len(text), MAX_PIECE):
            self._new_text(update, text[start : start + MAX_PIECE], message_id, generation)

    def _new_text(self, update: str, text: str, message_id: str, generation: int) -> None:
        self.seq += 1
        joinable = _Text(update, message_id, [text], len(text))
        self._drafts.append(
            _Draft(self.seq, self.writes.now(), Kind.MESSAGE, generation, text=joinable)
        )
        self._grown(len(text), Urgency.STREAMED)

    def write_head(self, head: Head) -> None:
        """Have the head written with the next commit."""
        if not self.failed:
            self._head = head
            self._grown(0, Urgency.AWAITED)

    def _grown(self, size: int, urgency: Urgency) -> None:
        self._waiting_bytes += size
        self.writes.submit(self, size, urgency)

    async def room(self) -> None:
        """Wait until an agent may emit more; raises `StorageError` when it never can.

        Only what agents stream waits here: verdicts, answers and kills never do.
        """
        while not self.failed and not self.writes.exhausted:
            if self._waiting_bytes <= ROOM and not self.writes.full and self.writes.has_room():
                return
            await self.writes.progress()
        raise StorageError

    # ---- waiting

    def when_durable(self, seq: int, call: OnDurable, *, patient: bool = False) -> None:
        """Call back when the entry is durable, or with an error when it will not be in time.

        A patient waiter outlasts a full disk and is only told when the log has failed for good.
        """
        if seq <= self.durable:
            call(None)
        elif self.failed:
            call(StorageError())
        else:
            self._waiters.append(_Waiter(seq, call, patient))

    def when_in_trouble(self, call: Callable[[], None]) -> None:
        """Call back whenever the disk has been full for too long, and when the log has failed."""
        self._watchers.append(call)

    async def until(self, seq: int, *, patient: bool = False) -> None:
        """Wait until the entry is durable; raises `StorageError` as `when_durable` tells it."""
        done = trio.Event()
        problem: StorageError | None = None

        def settle(error: StorageError | None) -> None:
            nonlocal problem
            problem = error
            done.set()

        self.when_durable(seq, settle, patient=patient)
        await done.wait()
        if problem is not None:
            raise problem

    # ---- for the committer

    def take(self) -> Change:
        """All that is to be written, as it will stay."""
        entries = tuple(draft.freeze() for draft in self._drafts)
        self._drafts.clear()
        head, self._head = self._head, None
        create, self.is_new = self.is_new, False
        return Change(self.session_id, entries, head, create)

    @property
    def waiting_bytes(self) -> int:
        """Bytes that are not durable yet."""
        return self._waiting_bytes

    def committed(self, change: Change, size: int) -> None:
        """A change of this log is durable: fold it, keep it for readers, wake who waits."""
        self._waiting_bytes -= size
        self.exists = True
        if change.head is not None:
            self.head = change.head
        for entry in change.entries:
            self.told.apply(entry)
            self._tail.append(entry)
            self._tail_bytes += len(entry.body)
        if change.entries:
            self.durable = change.entries[-1].seq
        self._settle()
        self.moved()
        for cursor in self.cursors:
            cursor.wake()

    def _settle(self) -> None:
        due = [waiter for waiter in self._waiters if waiter.seq <= self.durable]
        if due:
            self._waiters = [waiter for waiter in self._waiters if waiter.seq > self.durable]
            for waiter in due:
                waiter.call(None)

    def give_up(self) -> None:
        """The disk has been full for too long: tell those who cannot wait for it."""
        self._tell_watchers()
        hasty = [waiter for waiter in self._waiters if not waiter.patient]
        self._waiters = [waiter for waiter in self._waiters if waiter.patient]
        for waiter in hasty:
            waiter.call(StorageError())

    def fail(self) -> None:
        """The store cannot go on with this log: nothing more of it will be durable."""
        self.failed = True
        self._drafts.clear()  # they continue what was lost
        self._head = None
        self._tell_watchers()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.call(StorageError())

    def _tell_watchers(self) -> None:
        for call in self._watchers:
            call()

    # ---- reading

    def open_cursor(self, after: int, wake: Callable[[], None]) -> Cursor:
        """A reader that gets the entries beyond `after`."""
        cursor = Cursor(self, after, wake)
        self.cursors.add(cursor)
        return cursor

    def recent(self, after: int, max_bytes: int) -> list[Entry] | None:
        """Durable entries beyond `after` from memory: at least one; None if they are not there."""
        first = self.durable - len(self._tail) + 1
        if after + 1 < first:
            return None
        entries: list[Entry] = []
        size = 0
        for index in range(after + 1 - first, len(self._tail)):
            entries.append(self._tail[index])
            size += len(self._tail[index].body)
            if size >= max_bytes:
                break
        return entries

    async def stored(self, after: int, max_bytes: int) -> Page:
        """Durable entries beyond `after` from the store; raises `CursorExpired` at a gap.

        The store may be a moment ahead of what has been folded: that is left for the next read.
        Raises `StorageError` if it cannot be read, `NotFound` if the session was removed.
        """
        try:
            page = await self.writes.read(self.session_id, after, max_bytes)
        except StoreError as error:
            raise StorageError from error
        if page.gap:
            raise CursorExpired
        if not page.entries and after < self.durable:
            raise NotFound
        return Page([entry for entry in page.entries if entry.seq <= self.durable])

    def moved(self) -> None:
        """Drop from memory what every reader has, and what is too much to keep for a slow one."""
        oldest = min((cursor.seq for cursor in self.cursors), default=self.durable)
        while self._tail and (self._tail[0].seq <= oldest or self._tail_bytes > TAIL):
            self._tail_bytes -= len(self._tail.popleft().body)

    def release(self, cursor: Cursor) -> None:
        """Forget a reader."""
        self.cursors.discard(cursor)
        self.moved()

    def end_readers(self, at: int) -> None:
        """Nothing follows entry `at`: readers stop there."""
        for cursor in self.cursors:
            cursor.end = at
            cursor.wake()
