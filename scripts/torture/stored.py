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
    """One session: its log, its verdicts in their order, and what its head calls open."""

    log: Ledger
    verdicts: list[Json]
    open_turns: list[int]


def read_database(state: Path) -> dict[str, StoredSession]:
    """All sessions of a state directory, by id; none if there is no database."""
    path = state / "sessions.db"
    if not path.exists():
        return {}
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        connection.execute("begin")  # one moment
        heads = connection.execute("select id, head from session").fetchall()
        return {name: _session(connection, name, head) for name, head in heads}


def _session(connection: sqlite3.Connection, name: str, head: bytes) -> StoredSession:
    log, verdicts = Ledger(name), list[Json]()
    for seq, at, generation, kind, body in connection.execute(ENTRIES, (name,)):
        entry = _entry(seq, at, generation, kind, json.loads(body))
        log.take(entry)
        if kind == "verdict":
            verdicts.append(entry)
    return StoredSession(log, verdicts, json.loads(head).get("open_turns", []))


def _entry(seq: object, at: object, generation: object, kind: object, body: Json) -> Json:
    mark = {} if generation is None else {"generation": generation}
    content = {"update": body} if kind in UPDATES else body
    return {"seq": seq, "at": at, **mark, "kind": kind, **content}
