"""One client's sitting with a scribe: what it was told and answered, and whether that is kept.

What is left of the store is opened as a daemon opens it, and recovered. Then everything that was
told has to be there, as it was told and in its order; what was answered has to be so; and the
store has to take more.
"""

import json
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

from moorage_daemon.log.recovery import recover
from moorage_daemon.settings import StoreAddress
from moorage_daemon.store.model import Entry, Kind, Life
from moorage_daemon.store.opening import find_store
from moorage_daemon.store.port import Change, Store, Stored
from scripts.torture.client import Client, Pending, Refused, talking
from scripts.torture.ledger import Json, Ledger
from scripts.torture.stored import StoredSession, entry_as_told
from scripts.torture.wire import Gone, Lines, Link


STORES = ("sqlite", "file")
PATIENCE = 20.0  # seconds for an answer, and for the end of a scribe, under a tracer too
GREETING = b"0123456789" * 2000  # of a file that is read by a tool


@dataclass(eq=False)
class Sitting:
    """What one client saw. `new` and `deleted` are sessions of which that was answered; `doomed`
    are those that were to be deleted. `late` is what was not answered in time."""

    folder: Path
    ledgers: dict[str, Ledger] = field(default_factory=dict[str, Ledger])
    new: list[str] = field(default_factory=list[str])
    doomed: list[str] = field(default_factory=list[str])
    deleted: list[str] = field(default_factory=list[str])
    killed: list[str] = field(default_factory=list[str])
    prompts: list[tuple[str, Pending]] = field(default_factory=list[tuple[str, Pending]])
    late: list[str] = field(default_factory=list[str])
    exit_code: int | None = None

    @property
    def told(self) -> int:
        """How many entries were told."""
        return sum(len(ledger.told) for ledger in self.ledgers.values())

    @property
    def last_words(self) -> str:
        """What the scribe said to standard error."""
        return (self.folder / "log").read_text(errors="replace")


@asynccontextmanager
async def scribe(
    sitting: Sitting, store: str, *, fault: str = "none", tracer: Sequence[str] = ()
) -> AsyncGenerator[tuple[Client, trio.Process]]:
    """A scribe at work and its client. On leaving it is ended, and all it said has been read."""
    kept = sitting.folder / "kept"
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "scripts.torture.scribe", store, str(kept), fault]
    with (sitting.folder / "log").open("ab") as log, theirs:
        process = await trio.lowlevel.open_process(
            [*tracer, *command], stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=log
        )
    link = Link(trio.socket.from_stdlib_socket(ours), Lines())
    try:
        async with talking(link, ledgers=sitting.ledgers) as client:
            yield client, process
            with trio.move_on_after(PATIENCE) as patience:
                with suppress(OSError):
                    ours.shutdown(socket.SHUT_WR)
                await client.gone.wait()
            if patience.cancelled_caught:
                sitting.late.append("the end")
    finally:
        with trio.move_on_after(PATIENCE, shield=True):
            if sitting.late:
                process.send_signal(signal.SIGKILL)
            sitting.exit_code = await process.wait()


async def play(client: Client, sitting: Sitting) -> None:
    """Do all that is done with sessions once; what is refused is left out."""
    try:
        await _play(client, sitting)
    except Gone:
        pass
    except trio.TooSlowError:
        sitting.late.append("an answer")


async def _play(client: Client, sitting: Sitting) -> None:
    (sitting.folder / "greeting").write_bytes(GREETING)
    session = await _new(client, sitting)
    if session is not None:
        for text in ("good morning", "/read greeting", "/ask may I?", "/stream 40"):
            await _turn(client, sitting, session, text)
        overrides = {"sessionId": session, "overrides": {"temperature": 0.5}}
        await _ask(client, "session/configure", overrides)
    doomed = await _new(client, sitting)
    if doomed is not None:
        await _turn(client, sitting, doomed, "for nothing")
        sitting.doomed.append(doomed)
        if await _ask(client, "session/delete", {"sessionId": doomed}) is not None:
            sitting.deleted.append(doomed)
    victim = await _new(client, sitting)
    if victim is not None:
        sitting.prompts.append((victim, await client.prompt(victim, "/sleep 60")))
        answer = await _ask(client, "session/kill", {"sessionId": victim, "reason": "no reason"})
        if answer is not None and answer["durable"]:
            sitting.killed.append(victim)
    if session is not None:
        sitting.prompts.append((session, await client.prompt(session, "/stream 100 0.01")))


async def _new(client: Client, sitting: Sitting) -> str | None:
    with trio.fail_after(PATIENCE):
        try:
            session = await client.new(str(sitting.folder))
        except Refused:
            return None
    sitting.new.append(session)
    return session


async def _turn(client: Client, sitting: Sitting, session: str, text: str) -> None:
    with trio.fail_after(PATIENCE), suppress(Refused):
        pending = await client.prompt(session, text)
        sitting.prompts.append((session, pending))
        await pending.result()


async def _ask(client: Client, method: str, params: Json) -> Json | None:
    with trio.fail_after(PATIENCE):
        try:
            return await client.call(method, params)
        except Refused:
            return None


# ---- what is left


async def read_left(store: str, folder: Path) -> dict[str, StoredSession]:
    """All sessions that are left, recovered; the store is written on and read again."""
    address = StoreAddress(store, "")
    async with find_store(address, folder).open() as opened:
        recovered = await recover(opened, time.time)
        found = {stored.head.id: await _read(opened, stored) for stored in recovered}
        for stored in recovered:
            more = Entry(stored.seq + 1, time.time(), Kind.STATE, b'{"state":"active","by":"us"}')
            await opened.commit([Change(stored.head.id, (more,))])
    async with find_store(address, folder).open() as opened:
        again = {stored.head.id: stored.seq for stored in await opened.list()}
    expected = {stored.head.id: stored.seq + 1 for stored in recovered}
    assert again == expected, f"after more was written: {again}, and not {expected}"
    return found


async def _read(store: Store, stored: Stored) -> StoredSession:
    log, verdicts = Ledger(stored.head.id), list[Json]()
    more = True
    while more:
        page = await store.entries(stored.head.id, log.last)
        for entry in page.entries:
            told = entry_as_told(
                entry.seq, entry.at, entry.generation, entry.kind, json.loads(entry.body)
            )
            log.take(told)
            verdicts += [told] if entry.kind == Kind.VERDICT else []
        more = page.more
    return StoredSession(log, verdicts, list(stored.head.open_turns), stored.head.life)


def judge(sitting: Sitting, stored: dict[str, StoredSession]) -> list[str]:
    """What is not as the client was told and answered."""
    wrong = [
        f"{session}: it is lost" for session in sitting.new if _is_lost(session, sitting, stored)
    ]
    wrong += [
        f"{session}: deleted, and still there" for session in sitting.deleted if session in stored
    ]
    for session, found in stored.items():
        wrong += found.problems()
        if session in sitting.ledgers:
            told = sitting.ledgers[session]
            wrong += told.problems + told.compare(found.log, whole=False)
        if session in sitting.killed and found.life != Life.KILLED:
            wrong.append(f"{session}: killed, and alive again")
    return wrong + _judge_answers(sitting, stored)


def _is_lost(session: str, sitting: Sitting, stored: dict[str, StoredSession]) -> bool:
    return session not in stored and session not in sitting.doomed


def _judge_answers(sitting: Sitting, stored: dict[str, StoredSession]) -> list[str]:
    """A prompt that was answered has that very verdict."""
    wrong: list[str] = []
    for session, pending in sitting.prompts:
        if session not in stored or pending.answer is None or pending.answer.result is None:
            continue
        said: Json = pending.answer.result["_meta"]["moorage"]
        outcomes = [
            verdict["outcome"]
            for verdict in stored[session].verdicts
            if verdict["generation"] == said["generation"]
        ]
        if outcomes != [said["outcome"]]:
            wrong.append(f"{session}: answered {said}, recorded {outcomes}")
    return wrong
