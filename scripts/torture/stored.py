"""The log as it lies on the disk, read past the daemon and with another SQLite than its own."""

import json
import re
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from moorage_daemon.store.files.journal import name_of
from scripts.torture.ledger import Json, Ledger


ENTRIES = "select seq, at, generation, kind, body from entry where session = ? order by seq"
_FRAME = re.compile(rb"([0-9a-f]{8}) [0-9a-f]{8} ")  # before its JSON: a checksum and a length
UPDATES = frozenset({"message", "tool", "plan", "update"})  # their bodies are session updates


@dataclass(frozen=True)
class StoredSession:
    """One session: its log, its verdicts in their order, and what its head says."""

    log: Ledger
    verdicts: list[Json]
    open_turns: list[int]
    life: str

    def problems(self) -> list[str]:
        """What is wrong with it by itself: each turn has one verdict, and none is open."""
        session, wrong = self.log.session, list(self.log.problems)
        if self.open_turns:
            wrong.append(f"{session}: the head still has turns open: {self.open_turns}")
        ended = sorted(verdict["generation"] for verdict in self.verdicts)
        if ended != sorted(self.log.admitted):
            wrong.append(f"{session}: turns {sorted(self.log.admitted)}, verdicts {ended}")
        return wrong


def read_database(state: Path) -> dict[str, StoredSession]:
    """All sessions of a state directory, by id; none if there is no database."""
    path = state / "sessions.db"
    if not path.exists():
        return {}
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        connection.execute("begin")  # one moment
        heads = connection.execute("select id, head from session").fetchall()
        return {name: _session(connection, name, head) for name, head in heads}


def read_journals(state: Path) -> dict[str, StoredSession]:
    """The same of a store of files whose daemon has ended in peace: then all is in the journals."""
    found = (_journal(path.read_bytes()) for path in _journals(state))
    return {session.log.session: session for session in found}


def read_files(state: Path) -> dict[str, StoredSession]:
    """The same of a store of files as a daemon has just opened it: what is in the log of commits
    stands in its journals from the bytes on that it names, whatever is there by now.

    The log is read first: what the daemon moves meanwhile is in both.
    """
    while True:
        try:
            commits = list(_commits(state / "store"))
            contents = {path.name: path.read_bytes() for path in _journals(state)}
            break
        except FileNotFoundError:
            continue  # a segment was given up in this moment
    for commit in commits:
        for session, _, at, pieces in commit.puts:
            lines = b"".join(b"%18b%b\n" % (b"", bytes(piece)) for piece in pieces)
            name = name_of(session)
            contents[name] = contents.get(name, b"")[:at] + lines
        for name in commit.removes:
            contents.pop(name, None)
    found = [_journal(content) for content in contents.values()]
    return {session.log.session: session for session in found}


class _Commit(msgspec.Struct):
    epoch: int
    puts: list[tuple[str, int, int, list[msgspec.Raw]]] = []
    removes: list[str] = []


def _commits(store: Path) -> Iterator[_Commit]:
    """The commits that are not in the journals for sure, in order."""
    epochs = sorted(int(path.suffix[1:]) for path in store.glob("commits.*") if _is_segment(path))
    for epoch in epochs:
        for line in (store / f"commits.{epoch}").read_bytes().split(b"\n"):
            found = _FRAME.match(line)
            if found is None or zlib.crc32(line[9:]) != int(found[1], 16):
                break  # what an earlier use of the file left, or nothing
            commit = msgspec.json.decode(line[found.end() :], type=_Commit)
            if commit.epoch == epoch:
                yield commit


def _is_segment(path: Path) -> bool:
    return path.suffix[1:].isdigit() and path.stem == "commits"


def _journals(state: Path) -> Iterator[Path]:
    return (state / "store" / "sessions").glob("*.journal")


def _journal(content: bytes) -> StoredSession:
    lines = content.splitlines()
    frames: list[Json] = [json.loads(line[line.index(b"{") :]) for line in lines]
    said: Json = next(frame["head"] for frame in reversed(frames) if frame.get("head"))
    log, verdicts = Ledger(said["id"]), list[Json]()
    for line in (line for frame in frames for line in frame.get("entries", [])):
        entry = entry_as_told(
            line["seq"], line["at"], line.get("generation"), line["kind"], line["body"]
        )
        log.take(entry)
        if line["kind"] == "verdict":
            verdicts.append(entry)
    return StoredSession(log, verdicts, said.get("open_turns", []), said.get("life", "active"))


def read_updates(state: Path, session: str) -> list[tuple[int, Json]]:
    """The updates of one session as a plain client is told them: all but its own words."""
    with closing(sqlite3.connect(f"file:{state / 'sessions.db'}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            "select seq, kind, body, origin from entry where session = ? order by seq", (session,)
        ).fetchall()
    return [(seq, json.loads(body)) for seq, kind, body, by in rows if kind in UPDATES and not by]


def _session(connection: sqlite3.Connection, name: str, head: bytes) -> StoredSession:
    log, verdicts = Ledger(name), list[Json]()
    for seq, at, generation, kind, body in connection.execute(ENTRIES, (name,)):
        entry = entry_as_told(seq, at, generation, kind, json.loads(body))
        log.take(entry)
        if kind == "verdict":
            verdicts.append(entry)
    said: Json = json.loads(head)
    return StoredSession(log, verdicts, said.get("open_turns", []), said.get("life", "active"))


def entry_as_told(seq: object, at: object, generation: object, kind: object, body: Json) -> Json:
    """An entry as a client that knows moorage is told it."""
    mark = {} if generation is None else {"generation": generation}
    content = {"update": body} if kind in UPDATES else body
    return {"seq": seq, "at": at, **mark, "kind": kind, **content}
