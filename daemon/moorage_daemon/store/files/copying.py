"""A journal copied anew: without its first entries, and without heads that count no more.

The copy takes the journal's place at once or not at all. Its frames have higher versions than all
before, so what the log of commits still holds of the session is known to be in it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from moorage_daemon.store.disk import DRAFT, Disk, File
from moorage_daemon.store.files.frames import Frames, frame
from moorage_daemon.store.files.journal import Standing, name_of
from moorage_daemon.store.files.pieces import PIECES, Place, in_pieces, payload_of
from moorage_daemon.store.model import Entry
from moorage_daemon.store.port import StoreError, StoreUnreadable


@dataclass(slots=True)
class Copy:
    """A copy in the making, under the name of the journal and `DRAFT`; durable when written."""

    folder: Disk
    session: str
    standing: Standing
    end: int = 0

    def write(self, first: int, copy: int) -> Standing:
        """Write it, from entry `first` on; where the session stands then, as `copy`.

        Raises `StoreUnreadable` if the journal is damaged. What fails leaves nothing behind.
        """
        name = name_of(self.session)
        source = self.folder.open(name)
        if source is None:
            raise StoreUnreadable(self.session, "its journal is missing")
        target = self.folder.create(name + DRAFT)
        try:
            self.folder.truncate(target, 0)
            place = self._write_all(source, target, first)
            self.folder.sync(target)
        except StoreError:
            self.folder.remove(name + DRAFT)
            raise
        finally:
            self.folder.shut(target)
            self.folder.shut(source)
        old = self.standing
        return Standing(place, old.schema, old.head, self.end, self.end, copy)

    def _write_all(self, source: File, target: File, first: int) -> Place:
        place = Place(self.standing.place.version + 1, first - 1, first)
        self._write(target, payload_of(place, self.standing.head, b""))
        for seq, entries in in_pieces(self._entries(source, first)):
            place = Place(place.version + 1, seq, first)
            self._write(target, payload_of(place, b"", entries))
        if place.seq != self.standing.place.seq:
            raise StoreUnreadable(self.session, "its journal ends before its last entry")
        return place

    def _write(self, target: File, payload: bytes) -> None:
        data = frame(payload)
        self.folder.write(target, self.end, data)
        self.end += len(data)

    def _entries(self, source: File, first: int) -> Iterator[Entry]:
        frames = Frames(self.folder, source, 0, self.standing.size)
        try:
            for _, payload in frames:
                for entry in PIECES.decode(payload).found():
                    if entry.seq >= first:
                        yield entry
        except msgspec.DecodeError as error:
            raise StoreUnreadable(self.session, f"its journal is damaged: {error}") from error
        if frames.at != frames.end:
            raise StoreUnreadable(self.session, f"its journal is damaged at byte {frames.at}")
