"""What storing costs, on each backend, beside the same on one JSON file for each session that is
written whole at every save: to a draft, synced, renamed. That is what programs of this kind do.

Commits go the daemon's own way, through its committer, without the wire. A head is read after the
store was opened anew, and what the system keeps of files in memory stays there.
"""

import gc
import json
import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from statistics import median

import trio

from moorage_daemon.log.committer import Committer
from moorage_daemon.log.log import Log
from moorage_daemon.program import COLLECT_AFTER
from moorage_daemon.store.disk import made
from moorage_daemon.store.files.store import open_files
from moorage_daemon.store.memory import MemoryStore
from moorage_daemon.store.model import Entry, Kind
from moorage_daemon.store.port import Change, Store, Stored
from moorage_daemon.store.sqlite import open_sqlite
from scripts.benchmark.figures import say, spread, timed
from scripts.benchmark.heads import head_of
from scripts.benchmark.starts import start_figures
from scripts.benchmark.trim import trim_figures
from scripts.benchmark.wire import Json


BODY = b'{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"%b"}}' % (
    b"x" * 500
)
MARK = "mark"  # a kind that says nothing to anybody
MANY = 64
LONG = 10_000  # entries
LOADS = 5  # of all of them
STORED = 10_000  # sessions
TRIMMED = 64  # MiB of a session, half of which is removed

Opening = Callable[[], AbstractAsyncContextManager[Store]]


def store_figures(work: Path, rounds: float) -> Json:
    """All backends, then the files beside them, and the ratios."""
    figures: Json = {}
    openings: dict[str, Callable[[Path], AbstractAsyncContextManager[Store]]] = {
        "memory": lambda _: _memory(),
        "file": lambda path: open_files(made(path)),
        "sqlite": lambda path: open_sqlite(made(path).path / "sessions.db"),
    }
    gc.set_threshold(COLLECT_AFTER, 20, 20)  # as the daemon does
    saves = max(50, int(500 * rounds))
    messages, stored = max(100, int(2000 * rounds)), max(500, int(STORED * rounds))
    trimmed = max(4, int(TRIMMED * rounds))
    say("store: JSON files")
    peer = _json_figures(work / "json", saves, messages, stored)
    for name, opening in openings.items():
        say(f"store: {name}")
        opened = partial(opening, work / f"store-{name}")
        figures[name] = trio.run(_backend_figures, opened, name, saves, messages, stored)
        if name != "memory":
            say(f"store: {name}: a trim")
            figures[name]["trim"] = trim_figures(opened, trimmed)
        figures[name]["vs_json_files"] = _ratios(figures[name], peer)
    say("store: starts")
    (work / "starts").mkdir()
    figures["start_to_ready"] = start_figures(work / "starts", stored, max(2, int(7 * rounds)))
    counts: Json = {"saves": saves, "messages": messages, "stored_sessions": stored}
    return {**figures, "json_files": peer, "counts": counts}


def _ratios(ours: Json, peer: Json) -> Json:
    """Ours divided by the files': more commits are better, of all else less."""
    return {
        key: round(ours[key] / peer[key], 4)
        for key in peer
        if key in ours and isinstance(ours[key], int | float) and peer[key]
    }


@asynccontextmanager
async def _memory() -> AsyncGenerator[Store]:
    yield MemoryStore()


def _written() -> int:
    """Bytes that this process has handed to the system so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(lines[1].split()[1])


# ---- ours


async def _backend_figures(
    opened: Opening, name: str, saves: int, messages: int, stored: int
) -> Json:
    figures: Json = {}
    async with opened() as store, _committing(store) as committer:
        one, seconds = await _commits(committer, "one", 1, saves)
        figures["commit_ms"] = spread(one)
        figures["commits_per_second_1"] = round(saves / seconds)
        _, seconds = await _commits(committer, "many", MANY, saves // 4)
        figures["commits_per_second_64"] = round(MANY * (saves // 4) / seconds)
        entries = tuple(_entry(seq) for seq in range(1, LONG + 1))
        await store.commit([Change("long", entries, head_of("long"), create=True)])
        loads = [await _read_all(store, "long") for _ in range(LOADS)]
        figures["load_long_ms"] = round(median(loads) * 1e3, 2)
        for start in range(0, stored, 500):
            names = [f"stored-{number}" for number in range(start, min(start + 500, stored))]
            await store.commit([Change(n, (_entry(1),), head_of(n), create=True) for n in names])
    if name == "memory":
        return figures
    async with opened() as store, _committing(store) as committer:
        before = _written()
        _, seconds = await _commits(committer, "session", 1, messages)
        figures["session_seconds"] = round(seconds, 3)
    # With what closing moves to its last place.
    figures["session_mib_written"] = round((_written() - before) / 2**20, 2)
    began = time.perf_counter()
    async with opened() as store:
        listed = await store.list()
        figures["start_seconds"] = round(time.perf_counter() - began, 3)
        if len(listed) < stored:
            raise RuntimeError("sessions are missing")
        began = time.perf_counter()
        await store.load("one-0")
        figures["load_head_ms"] = round((time.perf_counter() - began) * 1e3, 3)
    return figures


@asynccontextmanager
async def _committing(store: Store) -> AsyncGenerator[Committer]:
    committer = Committer(store, patience=5.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(committer.run)
        yield committer
        committer.close()
        await committer.written()


async def _commits(
    committer: Committer, name: str, sessions: int, each: int
) -> tuple[list[float], float]:
    """So many sessions at once, each with one entry after the other; the seconds of each, and of
    all of it."""
    seconds: list[float] = []

    async def write(session: str) -> None:
        log = Log(Stored(head_of(session), 0), committer, is_new=True)
        log.write_head(head_of(session))
        await log.until(log.append(MARK, b"{}"))
        for _ in range(each):
            before = time.perf_counter()
            await log.until(log.append(MARK, BODY))
            seconds.append(time.perf_counter() - before)

    before = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for number in range(sessions):
            nursery.start_soon(write, f"{name}-{number}")
    return seconds, time.perf_counter() - before


def _entry(seq: int) -> Entry:
    return Entry(seq, 1000.0 + seq, Kind.MESSAGE, BODY, 1)


async def _read_all(store: Store, session: str) -> float:
    began = time.perf_counter()
    after, more = 0, True
    while more:
        page = await store.entries(session, after, limit=1000)
        after, more = page.entries[-1].seq, page.more
    if after != LONG:
        raise RuntimeError("entries are missing")
    return time.perf_counter() - began


# ---- one JSON file for each session


class _Saved:
    """A session in a file that every save writes whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages: list[str] = []

    def add(self) -> None:
        """One message more, durably."""
        self.messages.append(BODY.decode())
        draft = self.path.with_suffix(".new")
        with draft.open("w") as file:
            json.dump({"id": self.path.stem, "messages": self.messages}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(self.path)


def _json_figures(folder: Path, saves: int, messages: int, stored: int) -> Json:
    folder.mkdir()
    one = _Saved(folder / "one.json")
    seconds = [timed(one.add) for _ in range(saves)]
    many = [_Saved(folder / f"many-{number}.json") for number in range(MANY)]
    rounds = max(1, saves // 20)
    took = sum(timed(saved.add) for _ in range(rounds) for saved in many)
    figures: Json = {"commit_ms": spread(seconds)}
    figures["commits_per_second_1"] = round(saves / sum(seconds))
    figures["commits_per_second_64"] = round(MANY * rounds / took)
    session, before = _Saved(folder / "session.json"), _written()
    figures["session_seconds"] = round(sum(timed(session.add) for _ in range(messages)), 3)
    figures["session_mib_written"] = round((_written() - before) / 2**20, 2)
    long = _Saved(folder / "long.json")
    long.messages = [BODY.decode()] * (LONG - 1)
    long.add()
    loads = [timed(lambda: json.loads(long.path.read_text())) for _ in range(LOADS)]
    figures["load_long_ms"] = round(median(loads) * 1e3, 2)
    for number in range(stored):
        path = folder / f"stored-{number}.json"
        path.write_text(json.dumps({"id": path.stem, "messages": [BODY.decode()]}, indent=2))
    figures["start_seconds"] = round(timed(lambda: _read_folder(folder)), 3)
    figures["load_head_ms"] = round(timed(lambda: json.loads(one.path.read_text())) * 1e3, 3)
    return figures


def _read_folder(folder: Path) -> int:
    return sum(len(json.loads(path.read_text())["id"]) for path in folder.glob("stored-*.json"))
