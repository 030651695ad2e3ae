"""The log of commits: what is durable and has not yet its place in the journals.

A commit is one frame, synced once. The log lies in segments: the newest takes the commits; when
it is full it is sealed, another one begins, and once every line of the sealed one is durable in a
journal its file is used again. Frames carry their segment's number, its epoch, which no other
segment ever has, so what an earlier use left in the file is never taken for a commit. Writing over
old bytes needs one write of the medium where growing a file needs two.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
from msgspec import Raw, Struct

from moorage_daemon.store.disk import DRAFT, Disk, File
from moorage_daemon.store.files.damage import DAMAGED, Damage
from moorage_daemon.store.files.frames import (
    HEADER,
    MAX_FRAME,
    Frames,
    frame,
    frame_size,
    next_frame,
)
from moorage_daemon.store.files.journal import CUT
from moorage_daemon.store.port import StoreBroken, StoreFull


logger = logging.getLogger(__name__)

# Bytes of puts in one commit: its frame can be read back, also in a later segment, and those of
# its journals, also in a copy, where the numbers before the entries have some digits more.
MAX_PUTS = MAX_FRAME - 2**16

_NAME = re.compile(r"commits\.([1-9][0-9]*)(\.spare)?")
_TORN = re.compile(rf"commits\.[1-9][0-9]*{re.escape(CUT)}")


class Put(Struct, frozen=True, array_like=True):
    """Frames that a commit adds to a journal: the first has `version` and begins at `at`."""

    session: str
    version: int
    at: int
    pieces: list[Raw]


class Commit(Struct, frozen=True):
    """One commit: frames for journals, or names of journals that are no more."""

    epoch: int
    puts: list[Put] = []
    removes: list[str] = []


_COMMITS = msgspec.json.Decoder(Commit)
_JSON = msgspec.json.Encoder()


def put_text(session: str, version: int, at: int, pieces: Sequence[bytes]) -> bytes:
    """A `Put` as JSON; the pieces are JSON already."""
    name = _JSON.encode(session)
    return b"[%b,%d,%d,[%b]]" % (name, version, at, b",".join(pieces))


@dataclass(slots=True)
class _Segment:
    """One file of the log; its frames end at `end`."""

    epoch: int
    file: File
    end: int = 0


class CommitLog:
    """The segments on a disk, each with space for so many bytes."""

    def __init__(self, disk: Disk, segment: int) -> None:
        self._disk = disk
        self._segment = segment
        self._active: _Segment | None = None
        self._sealed: list[int] = []
        self._last = 0  # the last epoch that was found
        self._payloads: list[bytes] = []  # what was read, and is not taken over yet
        self._spare: int | None = None  # the last epoch of the file that may be used again

    # ---- opening

    def read(self) -> list[Commit | Damage]:
        """All commits that have not their place in the journals for sure, in order, with what is
        damaged among them. To be taken over then.
        """
        self._sweep()
        self._sealed, spares = self._found()
        for spare in spares:
            if self._spare is not None:
                self._disk.remove(_spare_name(self._spare))  # a crash brought its name back
            self._spare = spare
        self._last = max([*self._sealed, *spares], default=0)
        self._payloads = []
        found: list[Commit | Damage] = []
        for epoch in self._sealed:
            for part in self._parts(epoch):
                if isinstance(part, Damage):
                    found.append(part)
                else:
                    self._payloads.append(part)
                    found.append(_COMMITS.decode(part))
        return found

    def take_over(self, *, had_fault: bool) -> None:
        """Seal what was read in a segment of its own, and begin another.

        It is written anew, because what was found may never have reached the medium, and after a
        failed sync would not by another one. Where there is no room for that it stays where it is,
        unless that may have happened.
        """
        payloads, self._payloads = self._payloads, []
        if payloads:
            self._seal_anew(self._last + 1, payloads, self._sealed, had_fault=had_fault)
        else:
            self._drop(self._sealed)
        self._active = self._begin(self._last + 2)

    def _sweep(self) -> None:
        for name in self._disk.names():
            if name.startswith("commits.") and name.endswith(DRAFT):
                self._disk.remove(name)  # of a process that died over it

    def _found(self) -> tuple[list[int], list[int]]:
        """The epochs of segments, and those of files that are no more."""
        matches = [match for name in self._disk.names() if (match := _NAME.fullmatch(name))]
        found = sorted((int(match[1]), match[2] is not None) for match in matches)
        return [e for e, is_spare in found if not is_spare], [
            e for e, is_spare in found if is_spare
        ]

    def _parts(self, epoch: int) -> Iterator[bytes | Damage]:
        """The commits of a segment, and what is damaged among them; a torn last one is kept."""
        file = self._disk.create(_name(epoch))
        mark = b'{"epoch":%d,' % epoch
        rest, end, size = b"", 0, self._disk.size(file)
        try:
            follows: int | None = 0
            while follows is not None:
                for at, payload in Frames(self._disk, file, end + follows, size):
                    if not payload.startswith(mark):
                        continue
                    if at > end:
                        yield self._keep_damage(epoch, end, self._disk.read(file, end, at - end))
                    end = at + frame_size(payload)
                    yield payload
                rest = self._disk.read(file, end, size - end)
                follows = next_frame(rest, mark)
        finally:
            self._disk.shut(file)
        if mark in rest[: HEADER + len(mark)]:
            self._keep_aside(epoch, rest)

    def _keep_damage(self, epoch: int, at: int, data: bytes) -> Damage:
        damage = Damage(epoch, at, data)
        logger.error("commits in their log are damaged: kept", extra={"kept": damage.name})
        self._disk.put(damage.name, data)
        return damage

    def damage(self) -> dict[str, bytes]:
        """What was ever damaged among commits, by the file that it is kept as.

        The files are for a person to remove.
        """
        names = sorted(name for name in self._disk.names() if name.endswith(DAMAGED))
        return {name: self._disk.fetch(name) or b"" for name in names}

    def torn(self) -> list[str]:
        """The files of what was cut off segments; they are for a person to remove."""
        return sorted(name for name in self._disk.names() if _TORN.fullmatch(name))

    def _keep_aside(self, epoch: int, rest: bytes) -> None:
        name = f"{_name(epoch)}{CUT}"
        logger.warning("the last commit was not written whole: it is kept", extra={"file": name})
        try:
            self._disk.put(name, rest.split(b"\n", 1)[0].rstrip(b"\0"))
        except StoreFull:
            logger.warning("no space to keep it")

    def _seal_anew(
        self, epoch: int, payloads: Sequence[bytes], old: list[int], *, had_fault: bool
    ) -> None:
        framed = (frame(b'{"epoch":%d,%b' % (epoch, p.partition(b",")[2])) for p in payloads)
        try:
            self._disk.put(_name(epoch), b"".join(framed))
        except StoreFull:
            if had_fault:
                raise
            logger.warning("no space to write the last commits anew: they stay where they are")
            self._sealed = old
            self._sync_all(old)
        else:
            self._drop(old)
            self._sealed = [epoch]

    def _sync_all(self, epochs: Sequence[int]) -> None:
        for epoch in epochs:
            file = self._disk.create(_name(epoch))
            try:
                self._disk.sync(file)
            finally:
                self._disk.shut(file)

    def _begin(self, epoch: int) -> _Segment:
        """An empty segment: the spare file, or a new one that has its space already."""
        if self._spare is not None:
            self._disk.rename(_spare_name(self._spare), _name(epoch))
            self._spare = None
            file = self._disk.create(_name(epoch))
        else:
            file = self._disk.create(_name(epoch))
            self._take_space(file)
        self._disk.sync_names()
        return _Segment(epoch, file)

    def _take_space(self, file: File) -> None:
        try:
            self._disk.write(file, 0, bytes(self._segment))
        except StoreFull:
            self._disk.truncate(file, 0)  # it grows as far as there is space
        self._disk.sync(file)

    # ---- writing

    def append(self, puts: Sequence[bytes], removes: Sequence[str] = ()) -> None:
        """Make a commit durable. After `StoreFull` nothing of it is there."""
        active = self._newest()
        parts = [b'{"epoch":%d' % active.epoch]
        if puts:
            parts.append(b'"puts":[%b]' % b",".join(puts))
        parts.append(b'"removes":%b}' % _JSON.encode(removes))
        data = frame(b",".join(parts))
        self._disk.write(active.file, active.end, data)
        self._disk.sync(active.file)
        active.end += len(data)

    def _newest(self) -> _Segment:
        if self._active is None:
            raise StoreBroken(f"{self._disk.path} is not open")
        return self._active

    @property
    def filled(self) -> float:
        """How full the newest segment is; it can hold more than its space."""
        return self._newest().end / self._segment

    @property
    def is_sealed(self) -> bool:
        """Whether there is a segment whose lines are to go into the journals."""
        return bool(self._sealed)

    def seal(self) -> None:
        """Begin another segment; raises `StoreFull` if there is no room for one."""
        active = self._newest()
        fresh = self._begin(active.epoch + 1)
        self._disk.shut(active.file)
        self._sealed.append(active.epoch)
        self._active = fresh

    def retire(self) -> None:
        """What is sealed is durable in the journals."""
        self._drop(self._sealed)

    def finish(self) -> None:
        """All that was ever written is durable in the journals: nothing counts any more."""
        active = self._newest()
        self._sealed.append(active.epoch)
        self.close()
        self.retire()

    def _drop(self, epochs: list[int]) -> None:
        """No commit in these segments counts any more; they leave the list.

        One goes after the other, durably: what an older one says is only made good by a newer one.
        The newest file is kept as a spare. Its name keeps the epoch, so that none is ever used
        twice.
        """
        while epochs:
            if self._spare is not None:
                self._disk.remove(_spare_name(self._spare))
                self._spare = None
            self._disk.rename(_name(epochs[0]), _spare_name(epochs[0]))
            self._spare = epochs.pop(0)
            self._disk.sync_names()

    def close(self) -> None:
        """Give up the file; what is in it counts at the next start."""
        active, self._active = self._active, None
        if active is not None:
            self._disk.shut(active.file)


def _name(epoch: int) -> str:
    return f"commits.{epoch}"


def _spare_name(epoch: int) -> str:
    return f"commits.{epoch}.spare"
