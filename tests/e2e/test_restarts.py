"""An editor of the protocol's SDK, whose daemon is killed under it three times."""

import json
import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack, closing
from pathlib import Path
from select import select

import pytest

from moorage_protocol.rendezvous import is_alive, read_daemon
from tests.e2e.daemons import PATIENCE, running
from tests.e2e.editors import Editor, Json, open_editor, over_bridge


RESTARTS = 3
UPDATES = ("message", "tool", "plan", "update")


@pytest.fixture
def state(folder: Path, tmp_path: Path) -> Path:
    return folder / tmp_path.name


def kill(state: Path, number: int = signal.SIGKILL) -> None:
    """End whichever daemon there is, and wait until it takes nothing more."""
    daemon = read_daemon(state)
    if daemon is not None and is_alive(state):
        with os.fdopen(os.pidfd_open(daemon.pid), "rb") as process:
            os.kill(daemon.pid, number)
            assert select([process], [], [], PATIENCE)[0]


@pytest.fixture
def editor(state: Path) -> Generator[Editor]:
    """An editor whose bridge starts its daemons."""
    try:
        with open_editor(over_bridge(state)) as connected:
            connected.call("initialize", protocol_version=1)
            yield connected
    finally:
        kill(state, signal.SIGTERM)


def test_editor_notices_no_more_than_a_cancelled_turn(state: Path, editor: Editor) -> None:
    stops: list[str] = []
    session = editor.call("new_session", cwd="/", mcp_servers=[])["sessionId"]
    for number in range(RESTARTS):
        running_turn = prompt(editor, session, "/stream 100000 0.01")
        waiting = prompt(editor, session, "waits")
        until_seen(editor, 3 * number + 1)
        editor.request("session/list", {})  # goes the way of the prompts, behind them
        kill(state)
        sent_to_nobody = prompt(editor, session, f"short {number}")
        turns = (running_turn, waiting, sent_to_nobody)
        stops += [editor.wait(turn)["stopReason"] for turn in turns]
    leaving = editor.leave()

    assert stops == ["cancelled", "cancelled", "end_turn"] * RESTARTS
    assert editor.problems() == []
    assert unexpected(editor.heard()) == []
    assert told(editor, session) == logged(state, session)
    assert leaving == {"left": 0, "stderr": ""}


def prompt(editor: Editor, session: str, words: str) -> int:
    content = [{"type": "text", "text": words}]
    return editor.start("prompt", session_id=session, prompt=content)


def until_seen(editor: Editor, generation: int) -> None:
    """Wait until a turn has said something."""

    def is_of_turn(line: Json) -> bool:
        update = line.get("shown", {}).get("update", {})
        return str(update.get("messageId", "")).startswith(f"{generation}-")

    editor.first(is_of_turn)


def unexpected(heard: list[Json]) -> list[str]:
    """Errors, and requests that do not have exactly one answer."""
    answers = Counter(message["id"] for message in heard if "method" not in message)
    wrong = [f"{count} answers to {key}" for key, count in answers.items() if count != 1]
    return wrong + [str(message) for message in heard if "error" in message]


def told(editor: Editor, session: str) -> list[tuple[int, Json]]:
    """The updates of a session's log, as the editor was sent them."""
    updates = [m["params"] for m in editor.heard() if m.get("method") == "session/update"]
    return [
        (params["_meta"]["moorage"]["seq"], params["update"])
        for params in updates
        if params["sessionId"] == session and "_meta" in params
    ]


def logged(state: Path, session: str) -> list[tuple[int, Json]]:
    """The same from the database, without the editor's own words."""
    with closing(sqlite3.connect(state / "sessions.db")) as connection:
        rows = connection.execute(
            "select seq, kind, body, origin from entry where session = ? order by seq", (session,)
        ).fetchall()
    return [(seq, json.loads(body)) for seq, kind, body, by in rows if kind in UPDATES and not by]


def test_daemon_that_somebody_starts_again_is_found(state: Path) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(running(state))
        editor = stack.enter_context(open_editor(over_bridge(state)))
        editor.call("initialize", protocol_version=1)
        session = editor.call("new_session", cwd="/", mcp_servers=[])["sessionId"]
        assert first.stop() == 0
        second = stack.enter_context(running(state))

        answer = editor.wait(prompt(editor, session, "anybody there?"))
        status = editor.request("_moorage/status", {})

    assert answer == {"stopReason": "end_turn"}
    assert editor.text(session) == "anybody there?"
    assert status["pid"] == second.process.pid
