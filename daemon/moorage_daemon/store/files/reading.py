"""What is asked of the journals, beside the thread that writes.

A page of a long log begins in the middle: where each frame lies is found out on the way there,
which is also what shows that nothing is missing, and remembered for the sessions read last.
"""

from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain

import msgspec

from moorage_daemon.store.disk import Disk, File
from moorage_daemon.store.files.frames import HEADER, Frames, frame_size
from moorage_daemon.store.files.journal import CUT, SEEN, UNPLACED, Standing, name_of
from moorage_daemon.store.files.pieces import PIECES, numbers_of
from moorage_daemon.store.files.shelf import Shelf
from moorage_daemon.store.model import Entry, Head
from moorage_daemon.store.naming import blobs_named, digests_in
from moorage_daemon.store.port import Page, Problem, Stored, StoreUnreadable
from moorage_daemon.store.rules import cut_page, fault_of


WORTH_IT = 2**16  # bytes; a shorter journal is not worth copying
LOST = (
    "the log of commits was damaged: sessions may lack their last commits, and removed ones may be "
    "back; what it held is kept as"
)
TORN = (
    "the last commit before a crash was not written whole; it counts for nothing, was confirmed to "
    "nobody unless the medium damaged it later, and is kept as"
)
REMEMBERED = 64  # journals; sixteen bytes for each of their frames


@dataclass(slots=True)
class _Index:
    """The frames of a journal up to `end`: where each begins, and its last entry's number.

    As far as anybody has read it: what lies behind is not known to be whole.
    """

    copy: int
    end: int = 0
    version: int = 0
    places: "array[int]" = field(default_factory=lambda: array("Q"))
    seqs: "array[int]" = field(default_factory=lambda: array("Q"))

    def after(self, seq: int) -> int:
        """Where the first frame with an entry beyond `seq` begins."""
        found = bisect_right(self.seqs, seq)
        return self.places[found] if found < len(self.places) else self.end

    def take(self, session: str, payload: bytes) -> int:
        """The next frame; gives its last entry's number."""
        version, seq = numbers_of(payload)
        if self.places and version != self.version + 1:
            raise StoreUnreadable(session, f"a part of its journal is missing at byte {self.end}")
        self.places.append(self.end)
        self.seqs.append(seq)
        self.version = version
        self.end += frame_size(payload)
        return seq


class Reader:
    """Reads from a shelf, in one thread."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._indexes: OrderedDict[str, _Index] = OrderedDict()
        self._surveys: dict[str, _Survey] = {}

    def load(self, session: str) -> Stored | None:
        """One session, None if it does not exist."""
        standing = self._shelf.find(session)
        return None if standing is None else standing.stored()

    def tip(self, session: str) -> int | None:
        """The number of the last entry, None for an unknown session."""
        standing = self._shelf.find(session)
        return None if standing is None else standing.place.seq

    def entries(
        self, session: str, after: int, limit: int, max_bytes: int, kinds: frozenset[str] | None
    ) -> Page:
        """One page of entries."""
        after = max(after, 0)
        with self._opened(session) as journal:
            if journal is None:
                return Page([])
            found: Iterator[Entry] = chain.from_iterable(self._found(journal, after))
            if kinds is not None:
                found = (entry for entry in found if entry.kind in kinds)
            gap = journal.standing.place.first > after + 1
            return cut_page(found, limit, max_bytes, gap=gap)

    @contextmanager
    def _opened(self, session: str) -> Generator["_Journal | None"]:
        """A session's journal as it stands now; None if there is no such session."""
        folder = self._shelf.folder
        with self._shelf.swap:
            standing = self._shelf.find(session)
            has_file = standing is not None and standing.size > 0
            file = folder.open(name_of(session)) if has_file else None
        try:
            if has_file and file is None:
                raise StoreUnreadable(session, "its journal is missing")
            yield None if standing is None else _Journal(folder, session, standing, file)
        except msgspec.DecodeError as error:
            raise StoreUnreadable(session, f"its journal is damaged: {error}") from error
        finally:
            if file is not None:
                folder.shut(file)

    def _found(self, journal: "_Journal", after: int) -> Iterator[list[Entry]]:
        """The entries beyond `after`, those of a frame together."""
        for payload in self._payloads(journal, after):
            found = PIECES.decode(payload).found()
            if found and found[0].seq <= after:
                found = [entry for entry in found if entry.seq > after]
            yield found

    def _payloads(self, journal: "_Journal", after: int) -> Iterator[bytes]:
        """The frames that may have entries beyond `after`."""
        if journal.file is not None:
            index = self._index(journal)
            at = index.after(after)
            for payload in journal.settled(at):
                is_beyond = at < index.end or index.take(journal.session, payload) > after
                at += frame_size(payload)
                if is_beyond:
                    yield payload
        yield from journal.unsettled()

    def _index(self, journal: "_Journal") -> _Index:
        """What is known of where its frames are."""
        index = self._indexes.pop(journal.session, None)
        if index is None or index.copy != journal.standing.copy:
            index = _Index(journal.standing.copy)
        self._indexes[journal.session] = index
        if len(self._indexes) > REMEMBERED:
            self._indexes.popitem(last=False)
        return index

    # ---- looking through everything

    def sessions(self) -> list[str]:
        """The ids of all sessions, those that cannot be read too."""
        known = [*list(self._shelf.standing), *list(self._shelf.damaged)]
        self._surveys = {name: self._surveys[name] for name in known if name in self._surveys}
        return known

    def leftovers(self) -> list[Problem]:
        """What is kept beside journals until somebody has looked at it."""
        lost = [Problem(f"{LOST} {name}") for name in self._shelf.lost()]
        return [*lost, *(Problem(_told_of(cut)) for cut in sorted(self._shelf.cuts))]

    def notes(self) -> list[str]:
        """What is kept beside the commits, and is missed by nobody."""
        return [f"{TORN} {name}: look at it, then remove the file" for name in self._shelf.torn()]

    def verify(self, session: str) -> int:
        """Look at all of a session, byte for byte; gives how many entries it has."""
        with self._opened(session) as journal:
            return 0 if journal is None else _verified(journal)

    def named(self, sessions: Sequence[str]) -> frozenset[str]:
        """The digests of the blobs that the entries of these sessions name."""
        found = (self._survey(session) for session in sessions)
        return frozenset[str]().union(*(survey.digests for survey in found if survey))

    def named_aside(self) -> frozenset[str]:
        """The digests in what is kept beside journals: somebody may want to mend them."""
        found = [self._shelf.folder.fetch(name) for name in list(self._shelf.cuts)]
        found += self._shelf.lost().values()
        return frozenset[str]().union(*(digests_in(data) for data in found if data))

    def is_wasteful(self, session: str) -> bool:
        """Whether most of a journal are heads that count no more."""
        standing = self._shelf.find(session)
        if standing is None or standing.size < WORTH_IT:
            return False
        survey = self._survey(session)
        return survey is not None and 2 * (survey.heads - len(standing.head)) > standing.end

    def _survey(self, session: str) -> "_Survey | None":
        """What is known of all frames of a session; what was read before is remembered."""
        standing = self._shelf.find(session)
        known = self._surveys.get(session)
        if known is not None and standing is not None and known.is_of(standing):
            return known
        with self._opened(session) as journal:
            if journal is None:
                return None
            if known is None or known.copy != journal.standing.copy:
                known = _Survey(journal.standing.copy)
            self._surveys[session] = known = known.up_to(journal)
            return known


def _told_of(cut: str) -> str:
    if cut.endswith(UNPLACED + CUT):
        return f"commits that could not go into their journal are kept as {cut}"
    return f"the end of a journal was damaged; it was cut off and is kept as {cut}"


@dataclass(frozen=True, slots=True)
class _Journal:
    """A session's frames at one moment: those in its file, if it has one, and those behind."""

    folder: Disk
    session: str
    standing: Standing
    file: File | None

    def payloads(self, at: int) -> Iterator[bytes]:
        """The frames from byte `at` of the file on, and those that are in no file yet."""
        yield from self.settled(at)
        yield from self.unsettled()

    def settled(self, at: int) -> Iterator[bytes]:
        """The frames in the file: all whole, or the session is unreadable."""
        if self.file is None:
            return
        frames = Frames(self.folder, self.file, at, self.standing.size)
        for _, payload in frames:
            yield payload
        if frames.at != frames.end:
            raise StoreUnreadable(self.session, f"its journal is damaged at byte {frames.at}")

    def unsettled(self) -> Iterator[bytes]:
        """The frames that are only in the log of commits."""
        for line in self.standing.lines[: self.standing.count]:
            yield line[HEADER:-1]


@dataclass(frozen=True, slots=True)
class _Survey:
    """What the frames of a journal hold up to byte `end`: the blobs that are named, and bytes of
    heads; `settled` and `settled_heads` are the same of what is in its file."""

    copy: int
    end: int = 0
    settled: int = 0
    digests: frozenset[str] = frozenset()
    settled_heads: int = 0
    heads: int = 0

    def is_of(self, standing: Standing) -> bool:
        """Whether it is about all that there is."""
        return (self.copy, self.end) == (standing.copy, standing.end)

    def up_to(self, journal: _Journal) -> "_Survey":
        """The same with what has been added; what is in no file yet is looked at each time."""
        digests, settled_heads = set(self.digests), self.settled_heads
        for payload in journal.settled(self.settled):
            digests |= _digests(payload)
            settled_heads += _head_size(payload)
        heads = settled_heads
        for payload in journal.unsettled():
            digests |= _digests(payload)
            heads += _head_size(payload)
        known = journal.standing
        named = frozenset(digests)
        return _Survey(self.copy, known.end, known.size, named, settled_heads, heads)


def _head_size(payload: bytes) -> int:
    return len(bytes(SEEN.decode(payload).head))


def _verified(journal: _Journal) -> int:
    place = journal.standing.place
    version, count = 0, 0
    for payload in journal.payloads(0):
        piece = PIECES.decode(payload)
        if version and piece.version != version + 1:
            raise StoreUnreadable(journal.session, f"its frame {version + 1} is missing")
        version = piece.version
        if bytes(piece.head):
            msgspec.json.decode(piece.head, type=Head)
        for entry in piece.found():
            if entry.seq != place.first + count:
                raise StoreUnreadable(journal.session, f"its entry {entry.seq} is out of order")
            if (fault := fault_of(entry.seq, entry.body)) is not None:
                raise StoreUnreadable(journal.session, fault)
            count += 1
    if (version, place.first + count - 1) != (place.version, place.seq):
        raise StoreUnreadable(journal.session, "its last frame is not the one that was seen")
    return count


def _digests(payload: bytes) -> frozenset[str]:
    if b'"data":"' not in payload:
        return digests_in(payload)
    return frozenset[str]().union(*map(blobs_named, PIECES.decode(payload).found()))
