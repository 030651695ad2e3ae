"""One session's file: what it is called, and what its end says of the session.

A name is made from the id so that no two ids share one, on file systems without case too. A file
is read from its end, where all stands that has to be known of a session; what lies before it is
looked at when somebody asks for entries.
"""

import hashlib
import logging
import re
from collections import deque
from dataclasses import dataclass, field

import msgspec
from msgspec import Raw

from moorage_daemon.store.disk import Disk, File
from moorage_daemon.store.files.frames import Frames, frame_size, last_frame, next_frame
from moorage_daemon.store.files.pieces import Place
from moorage_daemon.store.model import Head
from moorage_daemon.store.port import StoreBroken, Stored, StoreFull, StoreUnreadable
from moorage_daemon.store.rules import Tip


logger = logging.getLogger(__name__)

ENDING = ".journal"
CUT = ".torn"  # what was cut off a journal's end, with the place where it stood
UNPLACED = ".commits"  # before that: it was durable in the log of commits, and never in the journal
LONGEST = 100  # bytes of an id that stands in its file's name; a longer one's digest does
TORN = 2**26  # bytes; a longer rest was never one unfinished write

_MARK = b'{"version":'
_PLAIN = re.compile(rf"[0-9a-z_][0-9a-z_-]{{,{LONGEST - 1}}}")  # an id that can be a file's name


def name_of(session: str) -> str:
    """The name of a session's file: its id, or where that is none for a file its bytes."""
    if _PLAIN.fullmatch(session):
        return session + ENDING
    encoded = session.encode()
    if len(encoded) > LONGEST:
        return f"@{hashlib.sha256(encoded).hexdigest()}{ENDING}"
    return f"={encoded.hex()}{ENDING}"


def session_of(name: str) -> str:
    """The id in a file's name; the name itself where a digest stands for it."""
    text = name.removesuffix(ENDING)
    try:
        session = bytes.fromhex(text[1:]).decode() if text.startswith("=") else text
    except ValueError:
        return name
    return session if name_of(session) == name else name


def is_cut_from(aside: str, name: str) -> bool:
    """Whether a file holds what belongs at the end of the journal of that name."""
    return aside.startswith(f"{name}.") and aside.endswith(CUT)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a session stands; never changed, but replaced by the next one.

    Its file holds frames up to `size`, from there to `end` they are the first `count` of `lines`:
    durable in the log of commits. `copy` tells a file from the one that took its place.
    """

    place: Place
    schema: int
    head: bytes
    size: int
    end: int
    copy: int
    lines: list[bytes] = field(default_factory=list[bytes])
    count: int = 0

    def tip(self) -> Tip:
        """What the next change must continue."""
        return Tip(self.place.seq, self.schema)

    def stored(self) -> Stored:
        """As it is loaded: decoded anew each time."""
        return Stored(msgspec.json.decode(self.head, type=Head), self.place.seq, self.place.first)


class Seen(Place, frozen=True, gc=False):
    """A frame without its entries."""

    head: Raw = Raw(b"")


SEEN = msgspec.json.Decoder(Seen)


def look(disk: Disk, name: str, end: int | None, copy: int) -> Standing:
    """Where the session of a file stands at `end`, or at the file's own.

    A torn last frame is cut off and kept aside. Raises `StoreUnreadable`, also when the file ends
    before `end`.
    """
    try:
        file = disk.open(name)
        if file is None:
            raise StoreUnreadable(session_of(name), "its journal is missing")
        try:
            return _Look(disk, name, file).standing(end, copy)
        finally:
            disk.shut(file)
    except (StoreBroken, StoreFull) as error:
        raise StoreUnreadable(session_of(name), str(error)) from error


@dataclass(frozen=True, slots=True)
class _Look:
    disk: Disk
    name: str
    file: File

    def standing(self, end: int | None, copy: int) -> Standing:
        stop = self.disk.size(self.file) if end is None else end
        found = last_frame(self.disk, self.file, stop)
        if found is None:
            found = self._last_whole(stop, may_cut=end is None)
        at, payload = found
        try:
            seen = SEEN.decode(payload)
            head, head_at = bytes(seen.head), at
            if not head:
                head, head_at = self._head_at(seen.head_at), seen.head_at
            known = msgspec.json.decode(head, type=Head)
        except msgspec.DecodeError as error:
            raise self._unreadable(f"its head cannot be read: {error}") from error
        if name_of(known.id) != self.name:
            raise self._unreadable("its journal is another session's")
        size = at + frame_size(payload)
        place = Place(seen.version, seen.seq, seen.first, head_at)
        return Standing(place, known.schema, head, size, size, copy)

    def _head_at(self, at: int) -> bytes:
        frames = Frames(self.disk, self.file, at, self.disk.size(self.file), chunk=0)
        for _, payload in frames:
            return bytes(SEEN.decode(payload).head)
        raise self._unreadable(f"its head at byte {at} is damaged")

    def _last_whole(self, stop: int, *, may_cut: bool) -> tuple[int, bytes]:
        """The last whole frame, where only a torn one follows it."""
        frames = Frames(self.disk, self.file, 0, stop)
        last = deque(frames, maxlen=1)
        rest = self.disk.read(self.file, frames.at, min(stop - frames.at, TORN))
        if not last or not may_cut or len(rest) == TORN or next_frame(rest, _MARK) is not None:
            raise self._unreadable(f"its journal is damaged at byte {frames.at}")
        self._cut(frames.at, rest)
        return last[0]

    def _cut(self, at: int, rest: bytes) -> None:
        aside = f"{self.name}.{at}{CUT}"
        logger.error("a journal ends in the middle of an entry: cut", extra={"kept": aside})
        self.disk.put(aside, rest)
        self.disk.truncate(self.file, at)
        self.disk.sync(self.file)

    def _unreadable(self, problem: str) -> StoreUnreadable:
        return StoreUnreadable(session_of(self.name), problem)
