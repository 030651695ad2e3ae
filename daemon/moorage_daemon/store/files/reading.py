"""What is asked of the journals, beside the thread that writes.

A page of a long log begins in the middle: where each frame lies is found out in one walk over the
journal, which is also what shows that it is whole, and remembered for the sessions read last.
"""

from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from moorage_daemon.store.disk import Disk, File
from moorage_daemon.store.files.frames import HEADER, Frames
from moorage_daemon.store.files.journal import Standing, name_of
from moorage_daemon.store.files.pieces import PIECES, PLACE
from moorage_daemon.store.files.shelf import Shelf
from moorage_daemon.store.model import Entry
from moorage_daemon.store.port import Page, StoreUnreadable
from moorage_daemon.store.rules import cut_page


REMEMBERED = 64  # journals; sixteen bytes for each of their frames


@dataclass(slots=True)
class _Index:
    """The frames of a journal up to `end`: where each begins, and its last entry's number."""

    copy: int
    end: int = 0
    version: int = 0
    places: "array[int]" = field(default_factory=lambda: array("Q"))
    seqs: "array[int]" = field(default_factory=lambda: array("Q"))

    def after(self, seq: int) -> int:
        """Where the first frame with an entry beyond `seq` begins."""
        found = bisect_right(self.seqs, seq)
        return self.places[found] if found < len(self.places) else self.end


class Reader:
    """Reads from a shelf, in one thread."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._indexes: OrderedDict[str, _Index] = OrderedDict()

    def entries(
        self, session: str, after: int, limit: int, max_bytes: int, kinds: frozenset[str] | None
    ) -> Page:
        """One page of entries."""
        after = max(after, 0)
        with self._shelf.swap:
            standing = self._shelf.find(session)
            if standing is None:
                return Page([])
            file = self._shelf.folder.open(name_of(session)) if standing.size else None
        try:
            found = self._found(session, standing, file, after)
            wanted = (entry for entry in found if kinds is None or entry.kind in kinds)
            return cut_page(wanted, limit, max_bytes, gap=standing.place.first > after + 1)
        except msgspec.DecodeError as error:
            raise StoreUnreadable(session, f"its journal is damaged: {error}") from error
        finally:
            if file is not None:
                self._shelf.folder.shut(file)

    def _found(
        self, session: str, standing: Standing, file: File | None, after: int
    ) -> Iterator[Entry]:
        for payload in self._payloads(session, standing, file, after):
            for entry in PIECES.decode(payload).found():
                if entry.seq > after:
                    yield entry

    def _payloads(
        self, session: str, standing: Standing, file: File | None, after: int
    ) -> Iterator[bytes]:
        """The frames that may hold entries beyond `after`."""
        if file is not None:
            index = self._index(session, standing, file)
            yield from _walk(self._shelf.folder, session, file, index.after(after), standing.size)
        elif standing.size:
            raise StoreUnreadable(session, "its journal is missing")
        for line in standing.lines[: standing.count]:
            yield line[HEADER:-1]

    def _index(self, session: str, standing: Standing, file: File) -> _Index:
        index = self._indexes.pop(session, None)
        if index is None or index.copy != standing.copy:
            index = _Index(standing.copy)
        _extend(index, self._shelf.folder, session, file, standing.size)
        self._indexes[session] = index
        if len(self._indexes) > REMEMBERED:
            self._indexes.popitem(last=False)
        return index


def _extend(index: _Index, folder: Disk, session: str, file: File, end: int) -> None:
    for payload in _walk(folder, session, file, index.end, end):
        place = PLACE.decode(payload)
        if index.places and place.version != index.version + 1:
            raise StoreUnreadable(session, f"a part of its journal is missing at {index.end}")
        index.places.append(index.end)
        index.seqs.append(place.seq)
        index.version = place.version
        index.end += HEADER + len(payload) + 1


def _walk(folder: Disk, session: str, file: File, at: int, end: int) -> Iterator[bytes]:
    """The payloads of the frames from `at` to `end`: all whole, or the session is unreadable."""
    frames = Frames(folder, file, at, end)
    for _, payload in frames:
        yield payload
    if frames.at != end:
        raise StoreUnreadable(session, f"its journal is damaged at byte {frames.at}")
