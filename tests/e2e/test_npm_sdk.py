"""What an editor does with the protocol's JavaScript SDK: over WebSocket, the bridge, and stdio.

Every message is held against the JSON schema that the SDK ships.
"""

from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from tests.e2e.editors import Editor, Json, Refused, open_editor, open_npm_editor
from tests.e2e.npm import Sdk


LENDING: Json = {"fs": {"readTextFile": True, "writeTextFile": True}, "terminal": True}


@pytest.fixture(scope="module")
def npm_editor(sdk: Sdk, way: Callable[[str], Json]) -> Generator[Editor]:
    """An editor that lends all it has; in the end, every message of the agent was right."""
    with open_npm_editor(sdk, way("npm")) as connected:
        params: Json = {"protocolVersion": 1, "clientCapabilities": LENDING}
        connected.request("initialize", params)
        yield connected
        end = connected.leave()
        assert connected.problems() == []
        assert end in (None, {"left": 0, "stderr": ""})


def new(editor: Editor, cwd: Path = Path("/")) -> str:
    """A new session."""
    answer: Json = editor.request("session/new", {"cwd": str(cwd), "mcpServers": []})
    return str(answer["sessionId"])


def prompting(editor: Editor, session: str, words: str) -> int:
    """Begin a turn."""
    params: Json = {"sessionId": session, "prompt": [{"type": "text", "text": words}]}
    return editor.start("request", method="session/prompt", params=params)


def prompt(editor: Editor, session: str, words: str) -> str:
    """Prompt and wait; gives the stop reason."""
    return str(editor.wait(prompting(editor, session, words))["stopReason"])


def choose(editor: Editor, session: str, option: str | None = "allow") -> str:
    """Answer the first question about a session; gives the call it is about."""
    call = str(editor.question(session)["toolCall"]["toolCallId"])
    editor.answer(call, option)
    return call


def test_turn_is_streamed_and_its_updates_precede_its_answer(npm_editor: Editor) -> None:
    session = new(npm_editor)

    assert prompt(npm_editor, session, "well, hello there") == "end_turn"

    assert npm_editor.text(session) == "well, hello there"
    places = [i for i, heard in enumerate(npm_editor.heard()) if session in str(heard)]
    assert "stopReason" in str(npm_editor.heard()[places[-1] + 1])


def test_command_is_run_when_it_is_allowed_and_not_when_it_is_rejected(
    npm_editor: Editor, tmp_path: Path
) -> None:
    for option, is_made in (("reject", False), ("allow", True)):
        session = new(npm_editor, tmp_path)
        running = prompting(npm_editor, session, "/run touch made.txt")
        choose(npm_editor, session, option)

        assert npm_editor.wait(running)["stopReason"] == "end_turn"
        assert (tmp_path / "made.txt").exists() is is_made


def test_cancel_ends_a_turn_and_takes_its_question_back(npm_editor: Editor) -> None:
    session = new(npm_editor)
    running = prompting(npm_editor, session, "/run touch made.txt")
    call = npm_editor.question(session)["toolCall"]["toolCallId"]

    npm_editor.call("notify", method="session/cancel", params={"sessionId": session})

    assert npm_editor.wait(running)["stopReason"] == "cancelled"
    npm_editor.first(lambda line: line.get("retracted") == call)
    npm_editor.answer(call, "allow")  # too late
    assert prompt(npm_editor, session, "still here?") == "end_turn"
    assert npm_editor.text(session) == "still here?"


def test_prompt_whose_signal_is_aborted_is_a_cancelled_turn(npm_editor: Editor) -> None:
    session = new(npm_editor)
    running = prompting(npm_editor, session, "/stream 100000 0.01")
    npm_editor.first(lambda line: "chunk 2" in str(line.get("shown")) and session in str(line))

    npm_editor.call("give_up", request=running)

    assert npm_editor.wait(running)["stopReason"] == "cancelled"


def test_files_and_terminals_of_the_editor_are_used(npm_editor: Editor, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("from the file")
    session = new(npm_editor, tmp_path)
    npm_editor.request("session/set_mode", {"sessionId": session, "modeId": "auto-edit"})

    prompt(npm_editor, session, "/read notes.txt")
    prompt(npm_editor, session, "/write made.txt and this is in it")
    running = prompting(npm_editor, session, "/terminal pwd; exit 3")
    choose(npm_editor, session)
    npm_editor.wait(running)

    assert "as edited: from the file" in npm_editor.text(session)
    assert (tmp_path / "made.txt").read_text() == "and this is in it"
    assert f"{tmp_path}\n[exit code 3]" in npm_editor.text(session)
    lent = [line["lent"] for line in npm_editor.told if "lent" in line]
    assert lent[-2:] == ["create_terminal", "release_terminal"]


def test_modes_and_options_are_told_and_set(npm_editor: Editor) -> None:
    answer = npm_editor.request("session/new", {"cwd": "/", "mcpServers": []})
    session = answer["sessionId"]
    assert answer["modes"]["currentModeId"] == "ask"

    params = {"sessionId": session, "configId": "mode", "value": "read-only"}
    chosen = npm_editor.request("session/set_config_option", params)
    npm_editor.request("session/set_mode", {"sessionId": session, "modeId": "ask"})

    values = {option["id"]: option["currentValue"] for option in chosen["configOptions"]}
    assert values["mode"] == "read-only"
    told = [update for update in npm_editor.shown(session) if "currentModeId" in update]
    assert [update["currentModeId"] for update in told] == ["read-only", "ask"]


def test_session_is_listed_loaded_and_deleted(npm_editor: Editor, tmp_path: Path) -> None:
    session = new(npm_editor, tmp_path)
    prompt(npm_editor, session, "remember this")
    [row] = npm_editor.request("session/list", {"cwd": str(tmp_path)})["sessions"]
    assert (row["sessionId"], row["title"]) == (session, "remember this")
    before = len(npm_editor.told)

    named: Json = {"sessionId": session, "cwd": str(tmp_path), "mcpServers": []}
    npm_editor.request("session/load", named)

    replayed = [line["shown"]["update"] for line in npm_editor.told[before:] if "shown" in line]
    assert [update["sessionUpdate"] for update in replayed][:2] == [
        "user_message_chunk",
        "agent_message_chunk",
    ]
    npm_editor.request("session/delete", {"sessionId": session})
    with pytest.raises(Refused) as refused:
        npm_editor.request("session/load", named)
    assert refused.value.code == -32002


@pytest.mark.parametrize("way", ["websocket", "bridge"], indirect=True)
def test_two_real_clients_of_a_session_see_the_same_and_one_answer_counts(
    npm_editor: Editor, how: Json, tmp_path: Path
) -> None:
    """The Python SDK prompts, the JavaScript SDK follows, and the other way round."""
    with open_editor(how) as other:
        other.call("initialize", protocol_version=1)
        session = new(npm_editor, tmp_path)
        other.call("resume_session", session_id=session, cwd=str(tmp_path), mcp_servers=[])

        running = other.start(
            "prompt", session_id=session, prompt=[{"type": "text", "text": "/run echo one > one"}]
        )
        calls = [str(e.question(session)["toolCall"]["toolCallId"]) for e in (npm_editor, other)]
        other.answer(calls[1], "reject")
        assert other.wait(running)["stopReason"] == "end_turn"
        npm_editor.first(lambda line: line.get("retracted") == calls[0])
        npm_editor.answer(calls[0], "allow")  # too late

        second = prompting(npm_editor, session, "/run echo two > two")
        call = asked_again(other, session, calls[1])
        npm_editor.first(lambda line: line.get("asked") == call)
        npm_editor.answer(call, "allow")
        assert npm_editor.wait(second)["stopReason"] == "end_turn"
        question = next(m for m in other.heard() if call in str(m) and "method" in m and "id" in m)
        other.first(
            lambda line: line.get("heard", {}).get("params", {}).get("requestId") == question["id"]
        )
        other.answer(call, "reject")  # too late
        assert prompt(npm_editor, session, "the last word") == "end_turn"
        other.first(says("word"))

        assert calls[0] == calls[1]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["two"]
        mine, theirs = told(npm_editor, session), told(other, session)
        assert len(mine) >= 9
        assert others_words(mine) == others_words(theirs)
        assert [n for n, _ in mine] == sorted({n for n, _ in mine})
        assert other.problems() == []


def says(word: str) -> Callable[[Json], bool]:
    """Whether a line shows the agent's answer with that word; the prompt had it too."""

    def holds(line: Json) -> bool:
        update = line.get("shown", {}).get("update", {})
        return update.get("sessionUpdate") == "agent_message_chunk" and word in str(update)

    return holds


def asked_again(editor: Editor, session: str, before: str) -> str:
    """The call that the editor is asked about after that one."""
    request = editor.first(
        lambda line: (
            line.get("heard", {}).get("method") == "session/request_permission"
            and line["heard"]["params"]["sessionId"] == session
            and line["heard"]["params"]["toolCall"]["toolCallId"] != before
        )
    )
    call = str(request["heard"]["params"]["toolCall"]["toolCallId"])
    editor.first(lambda line: line.get("asked") == call)
    return call


def told(editor: Editor, session: str) -> list[tuple[int, Json]]:
    """The numbered updates of a session as they came over the wire."""
    found = [m["params"] for m in editor.heard() if m.get("method") == "session/update"]
    return [
        (params["_meta"]["moorage"]["seq"], params["update"])
        for params in found
        if params["sessionId"] == session and "_meta" in params
    ]


def others_words(updates: list[tuple[int, Json]]) -> list[tuple[int, Json]]:
    """All but the words of users, which are not said again to who said them."""
    return [(n, u) for n, u in updates if u["sessionUpdate"] != "user_message_chunk"]
