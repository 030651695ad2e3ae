"""Opening a directory of journals: what the log of commits holds is put in its place again.

The log says from which byte on a journal may not be durable: from there its own frames count and
the journal's do not, so what a crash left unfinished is never even looked at. Sessions that the
log does not name are read from the ends of their journals. One that cannot be read is set apart,
with the reason, and takes no other with it.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from moorage_daemon.store.disk import DRAFT, Disk, File
from moorage_daemon.store.files.commits import Commit, CommitLog, Put
from moorage_daemon.store.files.damage import Damage, Lost, aside_of, is_unplaced, place_of
from moorage_daemon.store.files.frames import Frames, frame, frame_size, last_frame
from moorage_daemon.store.files.journal import (
    CUT,
    ENDING,
    SEEN,
    Standing,
    is_cut_from,
    look,
    name_of,
    session_of,
)
from moorage_daemon.store.files.pieces import PLACE, Place, schema_of
from moorage_daemon.store.files.shelf import Shelf
from moorage_daemon.store.model import SCHEMA, Head
from moorage_daemon.store.port import StoreUnreadable


logger = logging.getLogger(__name__)

JOURNALS = "sessions"
SEGMENT = 4 * 2**20  # bytes of commits, which are also in memory until they are in the journals


def open_shelf(disk: Disk, segment: int = SEGMENT, *, had_fault: bool = False) -> Shelf:
    """All that is in the directory; `had_fault` says that a sync failed in this very process."""
    log = CommitLog(disk, segment)
    plans = _plans(log.read())
    shelf = Shelf(disk.folder(JOURNALS), log)
    kept = _keep_lost(shelf.folder, plans)
    log.take_over(had_fault=had_fault)
    removed = {name for name, plan in plans.items() if plan.is_removed}
    _remove(shelf.folder, removed, kept)
    shelf.folder.sync_names()  # a process that was killed may have renamed a copy and no more
    shelf.adopt_removals(removed)
    there = shelf.folder.names()
    shelf.cuts.update(name for name in there if name.endswith(CUT))
    asides = _unplaced(shelf.cuts)
    journals = {name for name in there if name.endswith(ENDING)}
    for name in journals.union(asides, (name for name, plan in plans.items() if plan.puts)):
        _take_up(shelf, name, plans.get(name, _Plan()), asides.get(name, ()))
    shelf.cuts.update(name for name in shelf.folder.names() if name.endswith(CUT))
    return shelf


def _unplaced(cuts: Iterable[str]) -> dict[str, list[str]]:
    """What is kept of commits that are not in their journals, by the names of these."""
    found: dict[str, list[str]] = {}
    for cut in filter(is_unplaced, cuts):
        found.setdefault(cut.partition(ENDING)[0] + ENDING, []).append(cut)
    return found


def _keep_lost(folder: Disk, plans: dict[str, "_Plan"]) -> set[str]:
    """Keep what is left of commits that cannot be read, durably, beside their journals."""
    kept: set[str] = set()
    for name, plan in plans.items():
        for lost in plan.lost:
            if not lost.is_removal or plan.puts or folder.has(name):
                folder.put(lost.aside, lost.text)
                kept.add(lost.aside)
    return kept


def _remove(folder: Disk, gone: set[str], kept: set[str]) -> None:
    """Remove these journals, what was cut off them, and copies that were never finished."""
    for name in set(folder.names()) - kept:
        is_cut = name.endswith(CUT) and any(is_cut_from(name, journal) for journal in gone)
        if name in gone or is_cut or name.endswith(DRAFT):
            folder.remove(name)


@dataclass(slots=True)
class _Plan:
    """What the log of commits says of a journal; `is_removed`: what the file held is no more."""

    puts: list[Put] = field(default_factory=list[Put])
    lost: list[Lost] = field(default_factory=list[Lost])
    is_removed: bool = False

    def is_of_another(self, put: Put) -> bool:
        """Whether that one begins a session of the same id: this one was removed in between."""
        is_known = not (self.puts or self.lost) or put in self.puts
        return put.version == 1 and put.at == 0 and not is_known


def _plans(found: Iterable[Commit | Damage]) -> dict[str, _Plan]:
    plans: dict[str, _Plan] = {}
    for part in found:
        if isinstance(part, Damage):
            for lost in part.lost():
                plans.setdefault(lost.name, _Plan()).lost.append(lost)
            continue
        for put in part.puts:
            name = name_of(put.session)
            if name in plans and plans[name].is_of_another(put):
                plans[name] = _Plan(is_removed=True)
            plans.setdefault(name, _Plan()).puts.append(put)
        for name in part.removes:
            plans[name] = _Plan(is_removed=True)
    return plans


def _take_up(shelf: Shelf, name: str, plan: _Plan, asides: Sequence[str]) -> None:
    try:
        standing = _standing(shelf, name, plan)
        session = _id_in(standing.head, name)
        _must_have(shelf.folder, session, name, asides)
    except StoreUnreadable as error:
        session = plan.puts[0].session if plan.puts else error.session
        extra = {"session": session, "problem": error.problem}
        logger.error("a session is left out: it cannot be read", extra=extra)
        shelf.damaged[session] = error.problem
        shelf.files[session] = name
        if plan.puts:
            aside, lines = _aside(name, plan.puts)
            shelf.homeless[aside] = lines
    else:
        shelf.adopt(session, standing)


def _must_have(folder: Disk, session: str, name: str, asides: Sequence[str]) -> None:
    """Raise `StoreUnreadable` if the session lacks a commit of which something is kept.

    What somebody has put where it belongs is kept no longer.
    """
    for aside in asides:
        kept, found = folder.fetch(aside) or b"", folder.open(name)
        try:
            there = found and folder.read(found, place_of(aside), len(kept))
        finally:
            if found is not None:
                folder.shut(found)
        if there != kept:
            raise StoreUnreadable(session, f"commits of it are missing: see {aside}")
        folder.remove(aside)
        folder.sync_names()


def _aside(name: str, puts: Sequence[Put]) -> tuple[str, bytes]:
    """What the log holds of a journal that cannot be read, as it would stand there, and its name.

    The name tells the place of the first byte, as that of an end that was cut off does.
    """
    by_version = {put.version: put for put in puts}  # some may be in the log twice
    ordered = [by_version[version] for version in sorted(by_version)]
    lines = b"".join(frame(bytes(piece)) for put in ordered for piece in put.pieces)
    return aside_of(name, ordered[0].at), lines


def _id_in(head: bytes, name: str) -> str:
    try:
        return msgspec.json.decode(head, type=Head).id
    except msgspec.DecodeError as error:
        raise StoreUnreadable(session_of(name), f"its head cannot be read: {error}") from error


def _standing(shelf: Shelf, name: str, plan: _Plan) -> Standing:
    folder, copy = shelf.folder, next(shelf.copies)
    # A recovery that was killed leaves segments beside the one that holds all of them anew.
    puts = _newer(folder, name, sorted(plan.puts, key=lambda put: put.version))
    if not puts:
        return look(folder, name, None, copy)
    if puts[0].at == 0:
        start = Standing(Place(0, 0), SCHEMA, b"", 0, 0, copy)
    else:
        start = look(folder, name, puts[0].at, copy)
    return _continued(start, puts, name)


def _newer(folder: Disk, name: str, puts: list[Put]) -> list[Put]:
    """The puts that are not durable in the journal for sure.

    Those from before it was copied anew are; and all, if it goes on behind the last of them: then
    the log is an old one, as a backup may bring it back.
    """
    file = folder.open(name) if puts else None
    if file is None:
        return puts
    try:
        end = folder.size(file)
        last = last_frame(folder, file, end)
        begin = next(iter(Frames(folder, file, 0, end, chunk=0)), None)
        first = 0 if begin is None else PLACE.decode(begin[1]).version
        newer = [put for put in puts if put.version >= first]
        if last is None or PLACE.decode(last[1]).version <= _last_version(puts):
            return newer
        if begin is not None:
            _must_stand(folder, file, newer[:1])
        return []
    except msgspec.DecodeError as error:
        raise StoreUnreadable(session_of(name), f"its journal is damaged: {error}") from error
    finally:
        folder.shut(file)


def _must_stand(folder: Disk, file: File, puts: Sequence[Put]) -> None:
    """Raise `StoreUnreadable` if the journal does not hold these, where they say."""
    for put in puts:
        frames = Frames(folder, file, put.at, folder.size(file), chunk=0)
        if next(iter(frames), None) != (put.at, bytes(put.pieces[0])):
            raise StoreUnreadable(put.session, "its journal is not the one of its last commits")


def _last_version(puts: Sequence[Put]) -> int:
    return max(put.version + len(put.pieces) - 1 for put in puts)


def _continued(standing: Standing, puts: Sequence[Put], name: str) -> Standing:
    """The session with the frames that the log holds of it; some may stand there twice."""
    for put in puts:
        if put.version <= standing.place.version:
            continue
        if (put.version, put.at) != (standing.place.version + 1, standing.end):
            raise StoreUnreadable(session_of(name), "commits of it are missing")
        for piece in put.pieces:
            standing = _with(standing, bytes(piece))
    return replace(standing, count=len(standing.lines))


def _with(standing: Standing, payload: bytes) -> Standing:
    seen = SEEN.decode(payload)
    head = bytes(seen.head)
    standing.lines.append(frame(payload))
    return replace(
        standing,
        place=Place(
            seen.version,
            seen.seq,
            seen.first,
            standing.end if head else standing.place.head_at,
        ),
        schema=schema_of(head) if head else standing.schema,
        head=head or standing.head,
        end=standing.end + frame_size(payload),
    )
