"""Storage media that record, fail or hang: SQLite VFSs for the store as it is.

While one is open it is the default, so the store needs no way in for tests. Nothing is really
synced: what a sync is for is simulated, and the tests are faster.
"""

import random
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import apsw


SYSTEM = "unix"  # the medium below: the real one


@dataclass(frozen=True)
class Step:
    """One thing that was asked of a medium; `what` is write, truncate, sync, delete or ack."""

    what: str
    file: str = ""
    at: int = 0  # where a write begins, what a truncation leaves, the number of an ack
    data: bytes = b""


@dataclass
class Tape:
    """Everything that was asked of a medium, in order, with the acks the test put between."""

    steps: list[Step] = field(default_factory=list[Step])

    def ack(self, number: int) -> None:
        """The store has said that this commit is durable."""
        self.steps.append(Step("ack", at=number))


# Called before a step is carried out; may raise or block instead.
Before = Callable[[Step], None]


class _File(apsw.VFSFile):
    def __init__(self, path: str | apsw.URIFilename | None, flags: list[int], before: Before):
        super().__init__(SYSTEM, path, flags)
        name = path.filename() if isinstance(path, apsw.URIFilename) else path or ""
        self._name = Path(name).name
        self._before = before

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802  # SQLite's name
        self._before(Step("write", self._name, offset, bytes(data)))
        super().xWrite(data, offset)  # pyright: ignore[reportUnknownMemberType]  # as in Connection

    def xTruncate(self, newsize: int) -> None:  # noqa: N802  # SQLite's name
        self._before(Step("truncate", self._name, newsize))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802  # SQLite's name
        self._before(Step("sync", self._name))


class _Medium(apsw.VFS):
    def __init__(self, before: Before) -> None:
        super().__init__("medium-of-a-test", SYSTEM, makedefault=True)
        self._before = before

    def xOpen(  # noqa: N802  # SQLite's name
        self, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> apsw.VFSFile:
        return _File(name, flags, self._before)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802  # SQLite's name
        self._before(Step("delete", Path(filename).name))
        super().xDelete(filename, False)


@contextmanager
def open_medium(before: Before) -> Generator[None]:
    """All SQLite files go through a medium that tells `before` of every step."""
    medium = _Medium(before)
    try:
        yield
    finally:
        medium.unregister()


def io_error(extended: int) -> apsw.IOError:
    """What SQLite says when a medium fails."""
    error = apsw.IOError("failed by the test")
    error.extendedresult = extended  # type: ignore[attr-defined]  # not in its stub
    return error


Found = dict[str, bytes]  # what is durable in the files, by name


def power_cut(
    steps: Sequence[Step], at: int, folder: Path, chance: random.Random, found: Found | None = None
) -> int:
    """Write what a power cut before step `at` may leave to `folder`; return the last ack.

    The steps began with the files that were `found`. What was synced is there; of what each file
    got since its last sync any part is, in any order, some of it torn at a sector.
    """
    return _crash(steps[:at], folder, lambda pending: _survivors(pending, chance), found or {})


def kill(steps: Sequence[Step], at: int, folder: Path, found: Found | None = None) -> int:
    """The same for a process that is killed: all that it wrote is there, durable or not."""
    return _crash(steps[:at], folder, lambda pending: pending, found or {})


def files_in(folder: Path) -> Found:
    """What is there; what is only memory that processes share counts for nothing."""
    files = (path for path in folder.iterdir() if not path.name.endswith("-shm"))
    return {path.name: path.read_bytes() for path in files}


def _crash(
    steps: Sequence[Step], folder: Path, survive: Callable[[list[Step]], list[Step]], found: Found
) -> int:
    synced = {name: bytearray(content) for name, content in found.items()}
    pending: dict[str, list[Step]] = {}
    acked = 0
    for step in steps:
        if step.what == "ack":
            acked = step.at
        elif step.what == "delete":
            synced.pop(step.file, None)
            pending.pop(step.file, None)
        elif step.what == "sync":
            _apply(synced.setdefault(step.file, bytearray()), pending.pop(step.file, []))
        else:
            synced.setdefault(step.file, bytearray())
            pending.setdefault(step.file, []).append(step)
    for name, steps_since in pending.items():
        _apply(synced[name], survive(steps_since))
    folder.mkdir()
    for name, content in synced.items():
        (folder / name).write_bytes(content)
    return acked


def _survivors(steps: list[Step], chance: random.Random) -> list[Step]:
    found: list[Step] = []
    for step in steps:
        luck = chance.random()
        if luck < 0.45:
            found.append(step)
        elif luck < 0.65 and len(step.data) > 512:
            sectors = chance.randrange(1, len(step.data) // 512 + 1)
            found.append(Step("write", step.file, step.at, step.data[: sectors * 512]))
    return found


def _apply(content: bytearray, steps: list[Step]) -> None:
    for step in steps:
        if step.what == "truncate":
            del content[step.at :]
        else:
            end = step.at + len(step.data)
            content.extend(bytes(max(0, end - len(content))))
            content[step.at : end] = step.data
