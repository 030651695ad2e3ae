"""The log as it lies on the disk, read past the daemon and with another SQLite than its own."""

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from scripts.torture.ledger import Json, Ledger


ENTRIES = "select seq, at, generation, kind, body from entry where session = ? order by seq"
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
    found = (_journal(path) for path in (state / "store" / "sessions").glob("*.journal"))
    return {session.log.session: session for session in found}


def _journal(path: Path) -> StoredSession:
    lines = path.read_bytes().splitlines()
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
