"""Commands about sessions as a whole: new, ls, log, cancel, kill, configure, status."""

import json
import os
import time
from collections.abc import Sequence
from datetime import datetime

import msgspec

from moorage_clients import records
from moorage_clients.cli import setup
from moorage_clients.cli.choosing import (
    choose,
    here,
    is_killed,
    last_of,
    live_row,
    matching,
    short_ids,
)
from moorage_clients.cli.colour import Style
from moorage_clients.cli.exits import Exit, Failure
from moorage_clients.cli.invocation import Cancel, Configure, Invocation, Kill, Log, Ls, New
from moorage_clients.cli.keys import is_key
from moorage_clients.cli.lending import lent
from moorage_clients.cli.limits import doubtful_tools, wished
from moorage_clients.cli.opening import run_with_client
from moorage_clients.cli.screen import Screen
from moorage_clients.client import Client
from moorage_clients.plain_text import counted, one_line
from moorage_protocol.config import ConfigShown
from moorage_protocol.moorage import (
    CancelOutcome,
    DamagedRow,
    KillResult,
    LiveRow,
    Mode,
    Overrides,
    OverridesPatch,
    Scope,
    SessionInfo,
    State,
    StoreHealth,
)


PAGE = 500  # entries asked for at once
TITLE_WIDTH = 40  # characters in the table
KIND_WIDTH = 16  # characters; those of this version have up to 8
PROBLEM_WIDTH = 100  # characters of what is wrong with a session
SUMMARY_WIDTH = 100  # characters of an entry in a log

STATES: dict[str, Style] = {
    State.RUNNING: Style.GOOD,
    State.REQUIRES_ACTION: Style.ASKING,
    State.PAUSED: Style.CAREFUL,
    State.KILLED: Style.FAINT,
    State.STORAGE_FAILED: Style.BAD,
}

OUTCOMES = {
    CancelOutcome.FIRED: "it stops",
    CancelOutcome.ALREADY: "it was stopping already",
    CancelOutcome.FINISHED: "it has ended already",
    CancelOutcome.STALE: "a later turn runs, nothing was stopped",
    CancelOutcome.IDLE: "nothing runs",
}


def new(invocation: Invocation, command: New, screen: Screen) -> Exit:
    """Start a session and print its id."""
    for warning in doubtful_tools(command.limits):
        screen.note(warning, Style.CAREFUL)

    async def work(client: Client) -> Exit:
        started = await client.new_session(
            command.cwd,
            mode=Mode(command.mode),
            keep_siblings=True,
            grant=wished(command.limits),
            environment=None if invocation.remote else lent(os.environ, screen.note),
        )
        if invocation.json:
            row = {"sessionId": started.session_id, "cwd": command.cwd, "mode": command.mode}
            screen.document(row)
        else:
            screen.say(started.session_id + "\n")
        return Exit.OK

    return run_with_client(invocation, work)


# ---- ls


def ls(invocation: Invocation, command: Ls, screen: Screen) -> Exit:
    """List sessions, the last used first."""

    async def work(client: Client) -> Exit:
        listed = await client.sessions()
        rows = [row for row in map(live_row, listed) if row is not None]
        live = await client.live(everybody=command.everything)
        if command.everything:
            known = {row.session_id for row in rows}
            rows += [row for row in live.sessions if row.session_id not in known]
        else:
            rows = [row for row in rows if not row.killed]
        if invocation.json:
            screen.document({"sessions": rows, "damaged": live.damaged})
            return Exit.OK
        if rows or not live.damaged:
            _print_table(rows, _default(listed), screen)
        for damaged in live.damaged:
            screen.say(_damaged_line(damaged, screen) + "\n")
        return Exit.OK

    return run_with_client(invocation, work)


def _default(sessions: Sequence[SessionInfo]) -> str | None:
    try:
        return last_of(sessions, here())
    except Failure:
        return None


def _print_table(rows: Sequence[LiveRow], default: str | None, screen: Screen) -> None:
    if not rows:
        screen.note("No sessions. Start one with: moorage new")
        return
    short = short_ids([row.session_id for row in rows])
    now = time.time()
    cells = [["", "ID", "STATE", "MODE", "AGE", "TITLE", "CWD"]]
    for row in sorted(rows, key=lambda row: -row.updated_at):
        mark = "*" if row.session_id == default else ""
        title = one_line(row.title or "-", TITLE_WIDTH)
        since, cwd = age(now - row.updated_at), one_line(row.cwd, 200)
        cells.append([mark, short[row.session_id], _state(row), row.mode, since, title, cwd])
    widths = [max(len(line[column]) for line in cells) for column in range(6)]
    for number, line in enumerate(cells):
        padded = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        if number == 0:
            whole = "  ".join([*padded, line[6]]).rstrip()
            screen.say(screen.words.paint(whole, Style.STRONG) + "\n")
            continue
        style = STATES.get(line[2].partition(",")[0], Style.PLAIN)
        padded[2] = screen.words.paint(padded[2], style)
        screen.say("  ".join([*padded, line[6]]).rstrip() + "\n")


def _state(row: LiveRow) -> str:
    """The state; of a paused session also what its last turn is still at."""
    if row.killed:
        return State.KILLED
    if row.state is State.PAUSED and row.pending_permissions:
        return f"{row.state}, asks"
    if row.state is State.PAUSED and row.started_at is not None:
        return f"{row.state}, running"
    return row.state


def _damaged_line(damaged: DamagedRow, screen: Screen) -> str:
    state = screen.words.paint("damaged", Style.BAD)
    session = one_line(damaged.session_id, 200)
    problem = one_line(damaged.problem, PROBLEM_WIDTH)
    return f"{session}  {state}  {problem}; removed by: moorage delete {session}"


def age(seconds: float) -> str:
    """A length of time in its largest unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{max(0, int(seconds))}s"


# ---- log


class _EntryHead(msgspec.Struct, frozen=True):
    seq: int
    at: float
    kind: str
    generation: int | None = None


def log(invocation: Invocation, command: Log, screen: Screen) -> Exit:
    """Print the entries of a session's log, page by page."""

    async def work(client: Client) -> Exit:
        session = await choose(client, command.session, killed=True)
        after: int | None = command.after
        while after is not None:
            page = await client.entries(session, after, limit=PAGE, kinds=command.kinds or None)
            if page.gap:
                screen.note("(entries before this were trimmed)")
            for entry in page.entries:
                if invocation.json:
                    screen.document(entry)
                else:
                    screen.say(_entry_line(entry, screen) + "\n")
            after = page.next
        return Exit.OK

    return run_with_client(invocation, work)


def _entry_line(entry: msgspec.Raw, screen: Screen) -> str:
    head = msgspec.json.decode(entry, type=_EntryHead)
    fields: dict[str, object] = json.loads(bytes(entry))
    for known in ("seq", "at", "kind", "generation"):
        fields.pop(known, None)
    at = datetime.fromtimestamp(head.at).astimezone().strftime("%m-%d %H:%M:%S")
    turn = "-" if head.generation is None else str(head.generation)
    body = json.dumps(fields, ensure_ascii=False, separators=(", ", ": "))
    place = screen.words.paint(f"{head.seq:>6}  {at}  {turn:>3}", Style.FAINT)
    kind = screen.words.paint(f"{one_line(head.kind, KIND_WIDTH):<8}", Style.STRONG)
    return f"{place}  {kind}  {one_line(body, SUMMARY_WIDTH)}"


# ---- cancel, kill


def cancel(invocation: Invocation, command: Cancel, screen: Screen) -> Exit:
    """Ask a turn to stop and say what was found."""

    async def work(client: Client) -> Exit:
        session = await choose(client, command.session)
        scope = None if command.scope is None else Scope(command.scope)
        found = await client.cancel(session, generation=command.generation, scope=scope)
        if invocation.json:
            screen.document({"sessionId": session, "outcome": found.outcome,
                             "generation": found.generation})  # fmt: skip
        else:
            turn = "" if found.generation is None else f"turn {found.generation}: "
            screen.say(turn + OUTCOMES[found.outcome] + "\n")
        return Exit.OK

    return run_with_client(invocation, work)


def kill(invocation: Invocation, command: Kill, screen: Screen) -> Exit:
    """End sessions; one that is unknown stops all, one that cannot be read none of the others."""

    async def work(client: Client) -> Exit:
        listed = await client.sessions()
        chosen = [session.session_id for session in listed if not is_killed(session)]
        unread: list[str] = []
        if not command.everything:
            unread = await _unread(client, command.sessions, listed)
            readable = [given for given in command.sessions if not _begins(given, unread)]
            chosen = [matching(given, listed, killed=True) for given in readable]
        killed: list[tuple[str, KillResult]] = []
        for session in dict.fromkeys(chosen):
            killed.append((session, await client.kill(session, command.reason)))
            if not invocation.json:
                screen.say(_kill_line(*killed[-1]) + "\n")
        if invocation.json:
            told = [{"sessionId": session, **msgspec.to_builtins(r)} for session, r in killed]
            told += [{"sessionId": session, "killed": False, "damaged": True} for session in unread]
            screen.document({"sessions": told})
            return Exit.FAILED if unread else Exit.OK
        if unread:
            raise Failure(Exit.FAILED, _unread_line(unread), "moorage delete removes it.")
        return Exit.OK

    return run_with_client(invocation, work)


async def _unread(
    client: Client, wanted: Sequence[str], listed: Sequence[SessionInfo]
) -> list[str]:
    """Those of the wanted sessions that are none of the listed, as they cannot be read."""
    known = [session.session_id for session in listed]
    missing = [given for given in wanted if given and not _begins(given, known)]
    if not missing:
        return []
    damaged = [SessionInfo(row.session_id, cwd="") for row in (await client.live()).damaged]
    ids = [row.session_id for row in damaged]
    found = [matching(given, damaged, killed=True) for given in missing if _begins(given, ids)]
    return list(dict.fromkeys(found))


def _begins(given: str, ids: Sequence[str]) -> bool:
    return any(session.startswith(given) for session in ids)


def _unread_line(sessions: Sequence[str]) -> str:
    named = ", ".join(one_line(session, 200) for session in sessions)
    return f"{named} cannot be read: nothing of it runs, and no kill of it can be recorded."


def _kill_line(session: str, result: KillResult) -> str:
    if not result.killed:
        return f"{session}: was killed already"
    processes = f", {counted(result.processes, 'process')} ended" if result.processes else ""
    turns = f", {counted(len(result.turns), 'turn')} cancelled" if result.turns else ""
    durable = "" if result.durable else ", not on disk yet"
    return f"{session}: killed{turns}{processes}{durable}"


# ---- configure, status


def configure(invocation: Invocation, command: Configure, screen: Screen) -> Exit:
    """Change how a session is set up, or show it: first its model, then the rest."""
    of_model = [(key, value) for key, value in command.settings if not is_key(key)]
    of_session = [(key, value) for key, value in command.settings if is_key(key)]

    async def work(client: Client) -> Exit:
        session = await choose(client, command.session)
        told: dict[str, object] = {"sessionId": session}
        if of_model or not of_session:
            result = await client.configure(session, patch(of_model))
            told |= {"overrides": result.overrides, "applies": result.applies}
            if not invocation.json:
                when = " (from the next turn on)" if result.applies == "next_turn" else ""
                line = _settings_line(result.overrides)
                screen.say(line + (when if command.settings else "") + "\n")
        if of_session or not of_model:
            config = await _set_up(client, session, of_session)
            told["config"] = config
            if not invocation.json:
                setup.show(config, screen)
        if invocation.json:
            screen.document(told)
        return Exit.OK

    return run_with_client(invocation, work)


async def _set_up(client: Client, session: str, settings: Sequence[tuple[str, str]]) -> ConfigShown:
    """How a session is set up, after these settings."""
    now = await records.config(client, session)
    if not settings:
        return now
    return await records.set_config(client, session, setup.wish(settings, now))


def patch(settings: Sequence[tuple[str, str]]) -> OverridesPatch:
    """The change that KEY=VALUE words ask for; an empty value clears."""
    wanted: dict[str, str | float | None] = {}
    for key, value in settings:
        wanted[key] = None if not value else float(value) if key == "temperature" else value
    return msgspec.convert(wanted, OverridesPatch)


def _settings_line(overrides: Overrides) -> str:
    values = msgspec.structs.asdict(overrides)
    shown = (
        f"{key}={'(default)' if value is None else one_line(str(value), 200)}"
        for key, value in values.items()
    )
    return " ".join(shown)


def status(invocation: Invocation, screen: Screen) -> Exit:
    """Say what the daemon is doing; starts none."""

    async def work(client: Client) -> Exit:
        found = await client.status()
        if invocation.json:
            screen.document(found)
            return Exit.OK
        counts = found.sessions.by_agent.items()
        agents = ", ".join(f"{count} {one_line(name, 40)}" for name, count in counts)
        for line in (
            f"mooraged {found.version}, pid {found.pid}, up {age(time.time() - found.started)}",
            f"store     {one_line(found.store.name, 40)}, {_store_line(found.store, screen)}",
            f"sessions  {found.sessions.live} in memory, {found.sessions.parked} put away"
            + (f" ({agents})" if agents else ""),
            f"turns     {found.turns} running",
            f"clients   {found.connections}",
        ):
            screen.say(line + "\n")
        return Exit.OK

    return run_with_client(invocation, work, start=False)


def _store_line(store: StoreHealth, screen: Screen) -> str:
    parts = [("healthy", Style.GOOD) if store.healthy else ("NOT HEALTHY", Style.BAD)]
    if store.low:
        parts.append(("too little space for new sessions and turns", Style.BAD))
    if store.damaged:
        parts.append((f"{counted(store.damaged, 'session')} cannot be read", Style.BAD))
    return ", ".join(screen.words.paint(text, style) for text, style in parts)
