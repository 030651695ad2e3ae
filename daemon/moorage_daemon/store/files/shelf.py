"""All sessions of a directory, and what changes them; used by one thread.

A commit goes into the log of commits, durably, and is visible then; its lines are in memory until
they are moved into the journals, a session at a time, between commits. Who reads beside it takes
a `Standing`, which never changes. After a failure that leaves unknown what is on the medium no
more is written: an fsync that is repeated after an error may lie.
"""

import logging
import threading  # noqa: TID251  # readers are in another thread
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from moorage_daemon.store.disk import Disk, File
from moorage_daemon.store.files.commits import MAX_PUTS, CommitLog, put_text
from moorage_daemon.store.files.copying import Copy, Progress
from moorage_daemon.store.files.frames import frame, frame_size
from moorage_daemon.store.files.journal import Standing, is_cut_from, name_of, session_of
from moorage_daemon.store.files.pieces import Draft, Place, payload_of
from moorage_daemon.store.model import SCHEMA
from moorage_daemon.store.port import (
    Change,
    Problem,
    StoreBroken,
    Stored,
    StoreError,
    StoreFull,
    StoreTooLarge,
    StoreUnreadable,
)
from moorage_daemon.store.rules import Tip, advance, is_text, trimmed_to


logger = logging.getLogger(__name__)

SEAL_AT = 0.9  # of a segment: so full it is sealed, and its lines are moved into the journals


@dataclass(slots=True)
class _Continued:
    """A session and the frames that one commit adds to it."""

    standing: Standing
    lines: list[bytes] = field(default_factory=list[bytes])
    puts: list[bytes] = field(default_factory=list[bytes])


class Shelf:
    """What is stored: `standing` by id, and `damaged`: why a session cannot be read, by id.

    `files` are the names of damaged sessions' files, `cuts` those of what was cut off journals.
    `homeless`, by the names of files to be, is what the log of commits holds of damaged sessions.
    Made by `opening.open_shelf`.
    """

    def __init__(self, folder: Disk, log: CommitLog) -> None:
        self.folder = folder
        self.standing: dict[str, Standing] = {}
        self.damaged: dict[str, str] = {}
        self.files: dict[str, str] = {}
        self.cuts: set[str] = set()
        self.homeless: dict[str, bytes] = {}
        self.fault: StoreError | None = None
        self.swap = threading.Lock()  # between a standing and the file that it is about
        self.copies = count()
        self._log = log
        self._unsettled: set[str] = set()  # sessions with lines in the newest segment
        self._sealed: set[str] = set()  # and those with lines in a sealed one
        self._removed: set[str] = set()  # files that the newest segment says were removed
        self._sealed_removed: set[str] = set()  # and those of a sealed one
        self._commits = 0  # in the newest segment
        self._pace = 1  # sessions to settle with each commit, so that it never falls behind

    # ---- changes

    def commit(self, changes: Sequence[Change], drafts: Sequence[Draft]) -> None:
        """Write all changes or none; `drafts` are the same changes, encoded."""
        self._check()
        advance(changes, self.tip, lambda: len(self.standing) + len(self.damaged))
        written: dict[str, _Continued] = {}
        for change, draft in zip(changes, drafts, strict=True):
            known = written.get(change.session)
            if known is None:
                known = _Continued(self._start(change))
                written[change.session] = known
            _continue(known, draft)
        puts = [put for known in written.values() for put in known.puts]
        self._must_fit(written)
        if puts:
            self._append(puts)
        for session, known in written.items():
            self._publish(session, known)
        self._commits += 1

    def _must_fit(self, written: Mapping[str, _Continued]) -> None:
        """Raise `StoreTooLarge` if the frame could not be read back."""
        sizes = {s: sum(len(put) + 1 for put in known.puts) for s, known in written.items()}
        size = sum(sizes.values())
        if size > MAX_PUTS:
            largest = max(sizes, key=lambda session: sizes[session])
            raise StoreTooLarge(largest, f"a commit of {size} bytes, {sizes[largest]} are its own")

    def _start(self, change: Change) -> Standing:
        if change.create:
            return Standing(Place(0, 0), SCHEMA, b"", 0, 0, next(self.copies))
        return self.standing[change.session]

    def _publish(self, session: str, known: _Continued) -> None:
        standing = known.standing
        standing.lines.extend(known.lines)
        self.standing[session] = replace(standing, count=len(standing.lines))
        self._unsettled.add(session)

    def tip(self, session: str) -> Tip | None:
        """Where a session stands; None if there is none."""
        return None if (found := self.find(session)) is None else found.tip()

    def find(self, session: str) -> Standing | None:
        """A session; None only if there is none."""
        if self.damaged:
            known = self._known_as(session)
            if known in self.damaged:
                raise StoreUnreadable(session, self.damaged[known])
        return self.standing.get(session)

    def _known_as(self, session: str) -> str:
        """What a damaged session is called here: by its file, where that does not tell its id."""
        if session in self.standing or session in self.damaged or not is_text(session):
            return session
        return session_of(name_of(session))

    def sessions(self) -> list[Stored]:
        """All that can be read, by id."""
        return [standing.stored() for _, standing in sorted(self.standing.items())]

    def problems(self) -> list[Problem]:
        """Why sessions cannot be read."""
        return [Problem(problem, session) for session, problem in sorted(self.damaged.items())]

    def lost(self) -> dict[str, bytes]:
        """What is left of commits that were damaged in their log, by the file that it is kept as.

        Nobody knows of all of them whose they are.
        """
        return self._log.damage()

    def torn(self) -> list[str]:
        """The files of commits that were not written whole when a process or the power ended."""
        return self._log.torn()

    def remove(self, session: str) -> bool:
        """Remove all of a session, a damaged one too; False if there is none."""
        self._check()
        session = self._known_as(session)
        if session not in self.standing and session not in self.damaged:
            return False
        name = self.files.get(session) or name_of(session)
        self._append((), (name,))
        self._removed.add(name)
        self.files.pop(session, None)
        self.damaged.pop(session, None)
        self.standing.pop(session, None)
        self._unsettled.discard(session)
        self._sealed.discard(session)
        gone = {cut for cut in self.cuts if is_cut_from(cut, name)}
        self._guarded(lambda: [self.folder.remove(file) for file in (name, *gone)])
        self.cuts -= gone
        for file in [file for file in self.homeless if is_cut_from(file, name)]:
            del self.homeless[file]
        return True

    def _append(self, puts: Sequence[bytes], removes: Sequence[str] = ()) -> None:
        self._guarded(lambda: self._log.append(puts, removes))

    def _guarded(self, act: Callable[[], object]) -> None:
        """Do it; after a failure that is no lack of room nothing more is written."""
        try:
            act()
        except StoreFull:
            raise
        except StoreError as error:
            self.fault = error
            raise

    def _check(self) -> None:
        if self.fault is not None:
            raise StoreBroken("the medium failed before and was not opened anew") from self.fault

    # ---- moving lines into the journals

    def settle_some(self, is_idle: Callable[[], bool]) -> None:
        """Move what is due while nobody waits, and a part of it in any case.

        A failure is told by the next commit. A full disk is none: the lines are durable, and
        later there may be room.
        """
        if self.fault is not None:
            return
        owed = self._pace
        try:
            if not self._log.is_sealed and self._log.filled >= SEAL_AT:
                self._seal()
            while self._log.is_sealed and (owed > 0 or is_idle()):
                self._settle_one()
                owed -= 1
        except StoreFull:
            logger.warning("no space to move commits into the journals")
        except StoreError as error:
            logger.exception("commits cannot be moved into the journals")
            self.fault = error

    def _seal(self) -> None:
        """The next segment takes about as many commits: half of them suffice to move it all."""
        self._log.seal()
        self._sealed, self._unsettled = self._unsettled, set()
        self._sealed_removed, self._removed = self._removed, set()
        self._pace = 1 + 2 * len(self._sealed) // max(self._commits, 1)
        self._commits = 0

    def _settle_one(self) -> None:
        for session in self._sealed:
            self.settle(session)
            self._sealed.discard(session)
            break
        if not self._sealed:
            self._keep_homeless()
            self.folder.sync_names()
            self._log.retire()
            self._sealed_removed.clear()

    def _keep_homeless(self) -> None:
        """Keep what cannot go into its journal beside it, durably, before the log forgets it."""
        for name, lines in [*self.homeless.items()]:
            self.folder.put(name, lines)
            logger.error("commits of a session that cannot be read: kept", extra={"kept": name})
            self.cuts.add(name)
            del self.homeless[name]

    def _settle_sealed(self) -> None:
        while self._log.is_sealed:
            self._settle_one()

    def settle(self, session: str) -> None:
        """Move the lines of a session into its journal, durably."""
        known = self.standing[session]
        if not known.count:
            return
        file = self._journal(session, known)
        try:
            self.folder.write(file, known.size, b"".join(known.lines[: known.count]))
            if self.folder.size(file) > known.end:  # of a write that was never finished
                self.folder.truncate(file, known.end)
            self.folder.sync(file)
        finally:
            self.folder.shut(file)
        self.standing[session] = replace(known, size=known.end, lines=[], count=0)

    def _journal(self, session: str, known: Standing) -> File:
        name = name_of(session)
        if known.size == 0:
            return self.folder.create(name)
        file = self.folder.open(name)
        if file is None:
            raise StoreBroken(f"{self.folder.path / name} is missing")
        return file

    # ---- copying journals anew

    def begin_trim(self, session: str, before: int) -> Copy | None:
        """A copy without the first entries; None if there is none to remove."""
        self._check()
        known = self.find(session)
        if known is None:
            return None
        first = trimmed_to(session, known.tip(), known.place.first, before)
        return self._begin_copy(session, first) if first > known.place.first else None

    def begin_rewrite(self, session: str) -> Copy | None:
        """A copy without the heads that count no more; None for an unknown session.

        What a newer version wrote is left as it is.
        """
        self._check()
        known = self.find(session)
        if known is None or known.schema > SCHEMA:
            return None
        return self._begin_copy(session, known.place.first)

    def _begin_copy(self, session: str, first: int) -> Copy:
        self._guarded(lambda: self._forget_removal(name_of(session)))
        self._guarded(lambda: self.settle(session))
        return Copy(session, first, self.standing[session], self)

    def place(self, copy: Copy) -> None:
        """Let a copy take the place of its journal, or say what it lacks; see `copy.progress`.

        A copy that cannot be made leaves everything as it was.
        """
        self._check()
        if not self.has_source(copy):
            copy.progress = Progress.OVERTAKEN
            return
        if not copy.look(self.standing[copy.session]):
            return
        standing, name = copy.finish(self.folder, next(self.copies)), name_of(copy.session)
        copy.replaced = self.folder.open(name)
        with self.swap:
            self._guarded(lambda: self.folder.rename(copy.draft, name))
            self.standing[copy.session] = standing
        self._guarded(self.folder.sync_names)
        copy.progress = Progress.PLACED

    def has_source(self, copy: Copy) -> bool:
        """Whether what is copied is still what the session has."""
        standing = self.standing.get(copy.session)
        is_same = standing is not None and standing.copy == copy.source.copy
        return copy.owner is self and is_same

    def _forget_removal(self, name: str) -> None:
        """Empty the log of commits if it says that the file of that name was removed.

        It could not say whether a copy is what was removed, or of the session that came later
        under the same id: what it holds of that one alone does not make up for the copy.
        """
        if name in self._sealed_removed | self._removed:
            self._settle_sealed()
            self._seal()
            self._settle_sealed()

    def adopt_removals(self, names: Iterable[str]) -> None:
        """A sealed segment says that these files were removed."""
        self._sealed_removed.update(names)

    def adopt(self, session: str, standing: Standing) -> None:
        """A session as it was found; what is not in its journal is in a sealed segment."""
        self.standing[session] = standing
        if standing.count:
            self._sealed.add(session)

    def settle_all(self, is_late: Callable[[], bool]) -> None:
        """Move everything, so that the log of commits is empty, or as much as there is time for."""
        self._check()
        for session in self._sealed | self._unsettled:
            if is_late():
                return
            self.settle(session)
        self._keep_homeless()
        self.folder.sync_names()
        self._log.finish()

    def close(self) -> None:
        """Give up every file. What was committed stays, wherever it is by now."""
        self._log.close()
        self.folder.close()


def _continue(known: _Continued, draft: Draft) -> None:
    """Add a change's frames: the head stands in the first of them."""
    pieces = draft.pieces
    if not pieces and not draft.head:
        return
    first = known.standing
    payloads: list[bytes] = []
    for index, (seq, entries) in enumerate(pieces or [(first.place.seq, b"")]):
        payload = _payload(known, draft.head if index == 0 else b"", seq, entries, draft.schema)
        payloads.append(payload)
        known.lines.append(frame(payload))
    known.puts.append(put_text(draft.session, first.place.version + 1, first.end, payloads))


def _payload(known: _Continued, head: bytes, seq: int, entries: bytes, schema: int) -> bytes:
    old = known.standing
    head_at = old.end if head else old.place.head_at
    place = Place(old.place.version + 1, seq, old.place.first, head_at)
    payload = payload_of(place, head, entries)
    known.standing = replace(
        old,
        place=place,
        schema=schema if head else old.schema,
        head=head or old.head,
        end=old.end + frame_size(payload),
    )
    return payload
