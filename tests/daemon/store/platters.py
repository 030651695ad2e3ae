"""A disk that writes down what is asked of it, fails when told to, and whose power can be cut.

It stands under the store of files, which is given a disk anyway. The pessimist's model: until a
file is synced any part of its writes may be there, in any order, and until its directory is
synced any part of the changes of its names.
"""

import random
import threading  # noqa: TID251  # the thread that copies is stopped
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from moorage_daemon.store.disk import DRAFT, Disk, File
from moorage_daemon.store.files.journal import ENDING
from moorage_daemon.store.port import StoreBroken, StoreError, StoreFull


@dataclass(frozen=True)
class Step:
    """One thing that was asked of a disk, or an ack; `new` is the name after a renaming."""

    what: str  # make, write, truncate, sync, rename, remove, names or ack
    folder: str = ""
    name: str = ""
    at: int = 0  # where a write begins, what a truncation leaves, the number of an ack
    data: bytes = b""
    new: str = ""


@dataclass
class Platter:
    """What happens on a disk: `steps` in their order, `before` may fail one by raising."""

    steps: list[Step] = field(default_factory=list[Step])
    before: Callable[[Step], None] = lambda _: None
    forgets: Callable[[Step], bool] = lambda _: False  # steps that are only said to be done

    def ack(self, number: int) -> None:
        """The store has said that this change is durable."""
        self.steps.append(Step("ack", at=number))

    def meet(self, step: Step) -> None:
        self.before(step)
        if not self.forgets(step):
            self.steps.append(step)


@dataclass(eq=False)
class Hold:
    """For a platter: stops the thread that copies a journal before it writes, as long as a test
    wants."""

    _reached: Callable[[], None] | None = None
    _may_go: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def next_copy(self) -> Generator[trio.Event]:
        """The next copy stops; gives what is set once it has."""
        reached, token = trio.Event(), trio.lowlevel.current_trio_token()
        self._may_go.clear()
        self._reached = lambda: token.run_sync_soon(reached.set)
        try:
            yield reached
        finally:
            self._reached = None
            self._may_go.set()

    def meet(self, step: Step) -> None:
        """Before each step."""
        reached = self._reached
        if step.what != "write" or not step.name.endswith(f"{ENDING}{DRAFT}") or reached is None:
            return
        reached()
        if not self._may_go.wait(20):
            raise TimeoutError("nobody let the copy go on")


def only_said(*kinds: str) -> Callable[[Step], bool]:
    """For a platter that only says that it does steps of these kinds."""
    return lambda step: step.what in kinds


def full(step: Step) -> StoreError:
    """What a disk without room says; a sync never does."""
    if step.what in ("sync", "names"):
        return StoreBroken("broken by the test")
    return StoreFull("full for the test")


def broken(_: Step) -> StoreError:
    """What a failing disk says."""
    return StoreBroken("broken by the test")


class TestDisk(Disk):
    """A real directory whose changes all pass over a platter, and which is never really synced."""

    __test__ = False  # no test class

    def __init__(self, path: Path, platter: Platter, folder: str = "") -> None:
        super().__init__(path)
        self._platter = platter
        self._folder = folder

    def _beneath(self, name: str) -> Disk:
        return TestDisk(self.path / name, self._platter, name)

    def _meet(
        self, what: str, name: str = "", at: int = 0, data: bytes = b"", new: str = ""
    ) -> None:
        self._platter.meet(Step(what, self._folder, name, at, data, new))

    def rename(self, old: str, new: str) -> None:
        self._meet("rename", old, new=new)
        super().rename(old, new)

    def remove(self, name: str) -> bool:
        self._meet("remove", name)
        return super().remove(name)

    def sync_names(self) -> None:
        self._meet("names")

    def create(self, name: str) -> File:
        self._meet("make", name)
        return super().create(name)

    def write(self, file: File, at: int, data: bytes) -> None:
        try:
            self._meet("write", file.name, at, bytes(data))
        except StoreFull:
            super().write(file, at, data[: len(data) // 2])  # as much as there was room for
            raise
        super().write(file, at, data)

    def truncate(self, file: File, size: int) -> None:
        self._meet("truncate", file.name, size)
        super().truncate(file, size)

    def sync(self, file: File) -> None:
        self._meet("sync", file.name)


# ---- crashes


@dataclass(eq=False)
class _Inode:
    synced: bytearray = field(default_factory=bytearray)
    pending: list[Step] = field(default_factory=list[Step])

    def sync(self) -> None:
        _apply(self.synced, self.pending)
        self.pending.clear()


Names = dict[tuple[str, str], _Inode]
Found = dict[tuple[str, str], bytes]  # what is durable in the files, by folder and name


def power_cut(
    steps: Sequence[Step], at: int, root: Path, chance: random.Random, found: Found | None = None
) -> int:
    """Write what a power cut before step `at` may leave to `root`; return the last ack.

    The steps began with the files that were `found`.
    """
    replay = _Replay.of(steps[:at], found or {})
    for changed, inode in replay.changes:
        if chance.random() < 0.5:
            _change(replay.durable, changed, inode)
    _lay_out(replay.durable, root, lambda pending: _survivors(pending, chance))
    return replay.acked


def kill(steps: Sequence[Step], at: int, root: Path, found: Found | None = None) -> int:
    """The same for a process that is killed: all that it wrote is there, durable or not."""
    replay = _Replay.of(steps[:at], found or {})
    _lay_out(replay.live, root, lambda pending: pending)
    return replay.acked


def files_in(root: Path) -> Found:
    """What is there."""
    files = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
    return {(file.parent.name, file.name): (root / file).read_bytes() for file in files}


@dataclass(eq=False)
class _Replay:
    """What is there and what is durable after steps, the last ack, and names that may come."""

    live: Names
    durable: Names
    changes: list[tuple[Step, _Inode | None]] = field(
        default_factory=list[tuple[Step, _Inode | None]]
    )
    acked: int = 0

    @classmethod
    def of(cls, steps: Sequence[Step], found: Found) -> "_Replay":
        """Of these steps, on the files that were found."""
        inodes = {place: _Inode(bytearray(content)) for place, content in found.items()}
        replay = cls({**inodes}, inodes)
        for step in steps:
            replay._take(step)
        return replay

    def _take(self, step: Step) -> None:
        place = (step.folder, step.name)
        match step.what:
            case "ack":
                self.acked = step.at
            case "make" if place not in self.live:
                self.live[place] = _Inode()
                self.changes.append((step, self.live[place]))
            case "rename" | "remove":
                self.changes.append((step, self.live.get(place)))
                _change(self.live, step, self.live.get(place))
            case "names":
                due = [change for change in self.changes if change[0].folder == step.folder]
                self.changes = [c for c in self.changes if c[0].folder != step.folder]
                for changed, inode in due:
                    _change(self.durable, changed, inode)
            case "sync":
                self.live[place].sync()
            case "write" | "truncate":
                self.live[place].pending.append(step)
            case _:
                pass


def _change(names: Names, step: Step, inode: _Inode | None) -> None:
    place = (step.folder, step.name)
    match step.what:
        case "make" if inode is not None:
            names[place] = inode
        case "rename" if inode is not None:
            names.pop(place, None)
            names[step.folder, step.new] = inode
        case _:
            names.pop(place, None)


def _lay_out(names: Names, root: Path, survive: Callable[[list[Step]], list[Step]]) -> None:
    root.mkdir()
    contents: dict[_Inode, bytes] = {}
    for (folder, name), inode in names.items():
        if inode not in contents:
            content = bytearray(inode.synced)
            _apply(content, survive(inode.pending))
            contents[inode] = bytes(content)
        (root / folder).mkdir(exist_ok=True)
        (root / folder / name).write_bytes(contents[inode])


def _survivors(steps: list[Step], chance: random.Random) -> list[Step]:
    found: list[Step] = []
    for step in steps:
        luck = chance.random()
        if luck < 0.45:
            found.append(step)
        elif luck < 0.65 and len(step.data) > 512:
            kept = chance.randrange(1, len(step.data) // 512 + 1) * 512
            found.append(Step("write", step.folder, step.name, step.at, step.data[:kept]))
    return found


def _apply(content: bytearray, steps: list[Step]) -> None:
    for step in steps:
        if step.what == "truncate":
            del content[step.at :]
        else:
            end = step.at + len(step.data)
            content.extend(bytes(max(0, end - len(content))))
            content[step.at : end] = step.data
