"""A journal copied anew: without its first entries, and without heads that count no more.

It is copied beside commits, also of the same session: what they add follows in further turns, and
the little that is left at the end while no commit runs. The copy takes the journal's place at once
or not at all. Its frames have higher versions than all before, so what the log of commits still
holds of the session is known to be in it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

import msgspec

from moorage_daemon.store.disk import Disk, File
from moorage_daemon.store.files.frames import HEADER, Frames, frame, frame_size
from moorage_daemon.store.files.journal import Standing, name_of
from moorage_daemon.store.files.pieces import PIECES, Place, in_pieces, payload_of
from moorage_daemon.store.model import Entry
from moorage_daemon.store.port import StoreUnreadable


DRAFT = ".new"
AHEAD = 2**32  # versions: more than a session can take on while it is copied
SLICE = 2**22  # bytes copied at once, and synced; more would keep thread and medium from others
REST = 2**16  # bytes that are copied while commits wait: about a millisecond
LOOKS = 8  # a session that is written as fast as it is copied has to wait after so many


class Progress(Enum):
    """How far a copy is; it is overtaken when its session was removed, or the store reopened."""

    GOING = auto()
    PLACED = auto()
    OVERTAKEN = auto()


def _no_pause() -> None:
    pass


@dataclass(slots=True)
class Copy:
    """A copy in the making, from entry `first` on, in a file of its own: the `draft`.

    `source` is the session as it stood when somebody looked last. What stands before byte `copied`
    of its frames is durable in the draft, which is `end` bytes long. `owner` is whose session it
    is. Once it has its place it holds what it `replaced` until somebody calls `release`: the system
    takes tens of milliseconds to give back a long file, and commits need not wait for that.
    """

    session: str
    first: int
    source: Standing
    owner: object
    progress: Progress = Progress.GOING
    copied: int = 0
    end: int = 0
    replaced: File | None = None
    _looks: int = 0
    _place: Place = field(default_factory=lambda: Place(0, 0))
    _head: bytes = b""

    @property
    def draft(self) -> str:
        """The name of its file."""
        return name_of(self.session) + DRAFT

    @property
    def trimmed(self) -> int:
        """How many entries it lacks."""
        return self.first - self.source.place.first

    @property
    def given(self) -> int:
        """How many bytes it is shorter than the journal."""
        return self.source.end - self.end

    @property
    def left(self) -> int:
        """How many bytes of its source it has not."""
        return self.source.end - self.copied

    def look(self, standing: Standing) -> bool:
        """Take notice of where the session stands; whether the rest may be copied at once."""
        self.source = standing
        self._looks += 1
        return self.left <= REST or self._looks >= LOOKS

    def go_on(self, folder: Disk, pause: Callable[[], None]) -> None:
        """Copy a slice of what is left; `pause` is called every now and then.

        Raises `StoreUnreadable` if the journal is damaged or missing.
        """
        self._write(folder, lambda source: self._payloads(folder, source, SLICE, pause))

    def finish(self, folder: Disk, copy: int) -> Standing:
        """Copy what is left, and the newest head; where the session stands then, as `copy`."""
        self._write(folder, lambda source: self._last_payloads(folder, source))
        if self._place.seq != self.source.place.seq:
            raise StoreUnreadable(self.session, "its journal ends before its last entry")
        return Standing(self._place, self.source.schema, self._head, self.end, self.end, copy)

    def release(self, folder: Disk) -> None:
        """Give up what it replaced; a copy that has no place is removed."""
        if self.replaced is not None:
            folder.shut(self.replaced)
            self.replaced = None
        if self.progress is not Progress.PLACED:
            folder.remove(self.draft)

    def _write(self, folder: Disk, payloads: Callable[[File], Iterator[bytes]]) -> None:
        """Write frames, durably."""
        source = folder.open(name_of(self.session))
        if source is None:
            raise StoreUnreadable(self.session, "its journal is missing")
        target = folder.create(self.draft)
        try:
            if self.end == 0:
                folder.truncate(target, 0)
            for payload in payloads(source):
                data = frame(payload)
                folder.write(target, self.end, data)
                self.end += len(data)
            folder.sync(target)
        finally:
            folder.shut(target)
            folder.shut(source)

    # ---- what is written

    def _last_payloads(self, folder: Disk, source: File) -> Iterator[bytes]:
        yield from self._payloads(folder, source, self.left, _no_pause)
        if self._head != self.source.head:
            yield self._next(self._place.seq, self.source.head, b"")

    def _payloads(
        self, folder: Disk, source: File, size: int, pause: Callable[[], None]
    ) -> Iterator[bytes]:
        if self.end == 0:
            self._place = Place(self.source.place.version + AHEAD, self.first - 1, self.first)
            yield self._next(self.first - 1, self.source.head, b"")
        for seq, entries in in_pieces(self._entries(folder, source, size, pause)):
            yield self._next(seq, b"", entries)

    def _next(self, seq: int, head: bytes, entries: bytes) -> bytes:
        """The payload of the next frame."""
        head_at = self.end if head else self._place.head_at
        self._place = Place(self._place.version + 1, seq, self.first, head_at)
        self._head = head or self._head
        return payload_of(self._place, head, entries)

    def _entries(
        self, folder: Disk, source: File, size: int, pause: Callable[[], None]
    ) -> Iterator[Entry]:
        """Those of the next `size` bytes, or a little more, that the copy is to have."""
        stop = self.copied + size
        try:
            for payload in self._found(folder, source):
                for entry in PIECES.decode(payload).found():
                    if entry.seq >= self.first:
                        yield entry
                self.copied += frame_size(payload)
                pause()
                if self.copied >= stop:
                    return
        except msgspec.DecodeError as error:
            raise StoreUnreadable(self.session, f"its journal is damaged: {error}") from error

    def _found(self, folder: Disk, source: File) -> Iterator[bytes]:
        """The frames that the copy has not: in the journal, then those that are not there yet."""
        start, settled = self.copied, self.source.size
        if start < settled:
            frames = Frames(folder, source, start, settled)
            for _, payload in frames:
                yield payload
            if frames.at != settled:
                raise StoreUnreadable(self.session, f"its journal is damaged at byte {frames.at}")
        place = settled
        for line in self.source.lines[: self.source.count]:
            if place >= start:
                yield line[HEADER:-1]
            place += len(line)
