"""What an editor does, with the protocol's own SDK: over WebSocket, the bridge, and stdio."""

import json
import os
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.editors import Editor, Json, Refused, open_editor


def text(words: str) -> list[Json]:
    return [{"type": "text", "text": words}]


def new(editor: Editor, cwd: Path = Path("/")) -> str:
    """A new session."""
    answer: Json = editor.call("new_session", cwd=str(cwd), mcp_servers=[])
    return str(answer["sessionId"])


def prompt(editor: Editor, session: str, words: str) -> str:
    """Prompt and wait; gives the stop reason."""
    answer: Json = editor.call("prompt", session_id=session, prompt=text(words))
    return str(answer["stopReason"])


def option(question: Json, kind: str) -> str:
    """The option of a kind that a question offers."""
    [found] = [offered for offered in question["options"] if offered["kind"] == kind]
    return str(found["optionId"])


def test_initialize_agrees_on_version_1_and_says_what_there_is(how: Json) -> None:
    with open_editor(how) as editor:
        answer = editor.call(
            "initialize",
            protocol_version=1,
            client_info={"name": "an editor", "version": "1"},
        )

        assert answer["protocolVersion"] == 1
        assert answer["agentInfo"]["name"] == "moorage"
        assert answer["agentCapabilities"]["loadSession"] is True
        assert "list" in answer["agentCapabilities"]["sessionCapabilities"]
        assert "close" not in answer["agentCapabilities"]["sessionCapabilities"]
        assert answer["authMethods"] == []
        assert editor.problems() == []


def test_new_session_tells_its_options_and_commands(editor: Editor) -> None:
    answer = editor.call("new_session", cwd="/", mcp_servers=[])

    assert {option["id"] for option in answer["configOptions"]} >= {"model", "temperature"}
    session = answer["sessionId"]
    editor.first(lambda line: line.get("shown", {}).get("sessionId") == session)
    [commands] = editor.shown(session)
    assert {command["name"] for command in commands["availableCommands"]} >= {"run", "read"}
    first = next(message for message in editor.heard() if session in json.dumps(message))
    assert first["result"]["sessionId"] == session  # nothing is told of what has no name yet


def test_prompt_streams_its_answer_and_ends(editor: Editor) -> None:
    session = new(editor)

    assert prompt(editor, session, "well, hello there") == "end_turn"

    assert editor.text(session) == "well, hello there"
    heard = editor.heard()
    last = max(at for at, message in enumerate(heard) if _is_update_of(message, session))
    assert "result" in heard[last + 1]  # the updates of a turn come before its answer
    assert heard[last]["params"]["update"]["title"] == "well, hello there"


def _is_update_of(message: Json, session: str) -> bool:
    return bool(message.get("params", {}).get("sessionId") == session)


def test_own_words_are_not_shown_to_the_editor_again(editor: Editor) -> None:
    session = new(editor)

    prompt(editor, session, "hello")

    assert editor.text(session, "user_message_chunk") == ""


STRANGE = 'a\nb\r\nc\u2028d\u0085e "quoted" \\ 😀 \x00 {"jsonrpc":"2.0"}'


def test_any_text_comes_through_as_one_line_a_message(editor: Editor) -> None:
    session = new(editor)

    prompt(editor, session, STRANGE)

    assert editor.text(session) == STRANGE


def test_long_answers_come_in_messages_under_a_mebibyte(editor: Editor) -> None:
    session = new(editor)
    words = "x" * 3_000_000

    prompt(editor, session, words)

    assert editor.text(session) == words
    assert max(len(json.dumps(message)) for message in editor.heard()) < 2**20


def test_file_of_the_workspace_is_read(editor: Editor, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("from the file")
    session = new(editor, tmp_path)

    assert prompt(editor, session, "/read notes.txt") == "end_turn"

    assert "from the file" in editor.text(session)
    calls = [update for update in editor.shown(session) if "toolCallId" in update]
    assert len({call["toolCallId"] for call in calls}) == 1
    assert calls[0]["sessionUpdate"] == "tool_call"
    assert [call["status"] for call in calls if "status" in call][-2:] == [
        "in_progress",
        "completed",
    ]


def test_plan_is_shown_step_by_step(editor: Editor) -> None:
    session = new(editor)

    prompt(editor, session, "/plan")

    plans = [update for update in editor.shown(session) if update["sessionUpdate"] == "plan"]
    assert {entry["status"] for entry in plans[-1]["entries"]} == {"completed"}


def test_prompt_may_refer_to_files_and_carry_them(editor: Editor) -> None:
    session = new(editor)
    blocks: list[Json] = [
        {"type": "text", "text": "see"},
        {"type": "resource_link", "uri": "file:///a.txt", "name": "a.txt"},
        {"type": "resource", "resource": {"uri": "file:///b.txt", "text": "carried"}},
    ]

    assert editor.call("prompt", session_id=session, prompt=blocks)["stopReason"] == "end_turn"

    assert editor.text(session) == "see\nfile:///a.txt\ncarried"


def test_options_are_set_and_told_back_whole(editor: Editor) -> None:
    session = new(editor)

    answer = editor.call(
        "set_config_option", session_id=session, config_id="temperature", value="0.5"
    )

    values = {option["id"]: option["currentValue"] for option in answer["configOptions"]}
    assert values["temperature"] == "0.5"
    assert set(values) >= {"model", "model_provider"}


def test_mode_is_set_and_read_only_runs_nothing(editor: Editor, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("from the file")
    answer = editor.call("new_session", cwd=str(tmp_path), mcp_servers=[])
    session = answer["sessionId"]
    assert answer["modes"]["currentModeId"] == "ask"

    editor.call("set_session_mode", session_id=session, mode_id="read-only")
    prompt(editor, session, "/run touch made.txt")
    prompt(editor, session, "/read notes.txt")

    assert not (tmp_path / "made.txt").exists()
    assert "read-only" in editor.text(session)
    assert "from the file" in editor.text(session)
    told = [update for update in editor.shown(session) if "currentModeId" in update]
    assert [update["currentModeId"] for update in told] == ["read-only"]


# ---- permission


def test_command_is_run_when_the_editor_allows_it(editor: Editor, tmp_path: Path) -> None:
    session = new(editor, tmp_path)
    running = editor.start(
        "prompt", session_id=session, prompt=text("/run echo made it | tee made.txt")
    )
    question = editor.question(session)
    assert not (tmp_path / "made.txt").exists()

    editor.answer(question["toolCall"]["toolCallId"], option(question, "allow_once"))

    assert editor.wait(running)["stopReason"] == "end_turn"
    assert (tmp_path / "made.txt").read_text() == "made it\n"
    assert "made it" in editor.text(session)
    assert {offered["kind"] for offered in question["options"]} >= {
        "allow_once",
        "allow_always",
        "reject_once",
    }


def test_command_is_not_run_when_the_editor_rejects_it(editor: Editor, tmp_path: Path) -> None:
    session = new(editor, tmp_path)
    running = editor.start("prompt", session_id=session, prompt=text("/run touch made.txt"))
    question = editor.question(session)

    editor.answer(question["toolCall"]["toolCallId"], option(question, "reject_once"))

    assert editor.wait(running)["stopReason"] == "end_turn"
    assert not (tmp_path / "made.txt").exists()


def test_command_that_is_always_allowed_is_asked_for_once(editor: Editor, tmp_path: Path) -> None:
    session = new(editor, tmp_path)
    running = editor.start("prompt", session_id=session, prompt=text("/run echo one >> made.txt"))
    question = editor.question(session)
    editor.answer(question["toolCall"]["toolCallId"], option(question, "allow_always"))
    editor.wait(running)

    assert prompt(editor, session, "/run echo one >> made.txt") == "end_turn"

    assert (tmp_path / "made.txt").read_text() == "one\none\n"


def test_turn_is_cancelled_when_the_editor_answers_cancelled(
    editor: Editor, tmp_path: Path
) -> None:
    session = new(editor, tmp_path)
    running = editor.start("prompt", session_id=session, prompt=text("/run touch made.txt"))
    question = editor.question(session)

    editor.answer(question["toolCall"]["toolCallId"], None)

    assert editor.wait(running)["stopReason"] == "cancelled"
    assert not (tmp_path / "made.txt").exists()


def test_question_nobody_answers_is_taken_back_by_a_cancel(editor: Editor, tmp_path: Path) -> None:
    session = new(editor, tmp_path)
    running = editor.start("prompt", session_id=session, prompt=text("/run touch made.txt"))
    question = editor.question(session)

    editor.call("cancel", session_id=session)

    assert editor.wait(running)["stopReason"] == "cancelled"
    assert not (tmp_path / "made.txt").exists()
    call = question["toolCall"]["toolCallId"]
    [asked] = [
        message["id"]
        for message in editor.heard()
        if message.get("method") == "session/request_permission"
        and message["params"]["toolCall"]["toolCallId"] == call
        and message["params"]["sessionId"] == session
    ]
    editor.first(lambda line: line.get("heard", {}).get("params", {}).get("requestId") == asked)
    editor.answer(call, option(question, "allow_once"))  # too late, and no harm
    assert prompt(editor, session, "still here?") == "end_turn"
    assert not (tmp_path / "made.txt").exists()


# ---- cancel


def test_cancel_ends_a_streaming_turn(editor: Editor) -> None:
    session = new(editor)
    running = editor.start("prompt", session_id=session, prompt=text("/stream 100000 0.01"))
    editor.first(lambda line: "chunk 2" in json.dumps(line.get("shown", {}).get("update", "")))

    editor.call("cancel", session_id=session)

    assert editor.wait(running) == {"stopReason": "cancelled"}
    assert editor.text(session).startswith("chunk 1\nchunk 2\n")
    assert prompt(editor, session, "and again") == "end_turn"


def test_cancel_ends_a_command_and_everything_it_started(editor: Editor, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pids")
    session = new(editor, tmp_path)
    words = "/run trap '' TERM; setsid sleep 300 & echo $$ $! > pids; sleep 300; sleep 300"
    running = editor.start("prompt", session_id=session, prompt=text(words))
    question = editor.question(session)
    editor.answer(question["toolCall"]["toolCallId"], option(question, "allow_once"))
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]  # waits for a writer

    editor.call("cancel", session_id=session)

    assert editor.wait(running)["stopReason"] == "cancelled"
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_cancel_takes_the_waiting_prompts_along(editor: Editor) -> None:
    session = new(editor)
    running = [
        editor.start("prompt", session_id=session, prompt=text("/sleep 300")) for _ in range(3)
    ]

    editor.call("cancel", session_id=session)

    assert [editor.wait(number)["stopReason"] for number in running] == ["cancelled"] * 3


def test_prompt_right_behind_a_cancel_is_run(editor: Editor) -> None:
    session = new(editor)
    running = editor.start("prompt", session_id=session, prompt=text("/sleep 300"))
    editor.start("cancel", session_id=session)
    following = editor.start("prompt", session_id=session, prompt=text("and now?"))

    assert editor.wait(running)["stopReason"] == "cancelled"
    assert editor.wait(following)["stopReason"] == "end_turn"
    assert editor.text(session) == "and now?"


def test_cancel_with_an_id_is_answered(editor: Editor) -> None:
    session = new(editor)
    running = editor.start("prompt", session_id=session, prompt=text("/sleep 300"))

    assert editor.request("session/cancel", {"sessionId": session, "reason": "bored"}) == {}

    assert editor.wait(running)["stopReason"] == "cancelled"


def test_cancel_of_an_idle_session_does_nothing(editor: Editor) -> None:
    session = new(editor)

    editor.call("cancel", session_id=session)

    assert prompt(editor, session, "hello") == "end_turn"


# ---- what the editor lends

LENDING: Json = {"fs": {"readTextFile": True, "writeTextFile": True}, "terminal": True}


@pytest.fixture
def lender(how: Json) -> Generator[Editor]:
    """An editor that lends its files and terminals."""
    with open_editor(how) as connected:
        connected.call("initialize", protocol_version=1, client_capabilities=LENDING)
        yield connected
        assert connected.problems() == []


def test_files_are_read_and_written_through_the_editor(lender: Editor, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("from the file")
    session = new(lender, tmp_path)
    lender.call("set_session_mode", session_id=session, mode_id="auto-edit")

    prompt(lender, session, "/read notes.txt")
    prompt(lender, session, "/write made.txt and this is in it")

    assert "as edited: from the file" in lender.text(session)
    assert (tmp_path / "made.txt").read_text() == "and this is in it"
    lent = [(line["lent"], Path(line["path"]).name) for line in lender.told if "lent" in line]
    assert lent == [
        ("read_text_file", "notes.txt"),
        ("read_text_file", "made.txt"),
        ("write_text_file", "made.txt"),
    ]


def test_command_runs_in_a_terminal_of_the_editor(lender: Editor, tmp_path: Path) -> None:
    session = new(lender, tmp_path)
    running = lender.start("prompt", session_id=session, prompt=text("/terminal pwd; exit 3"))
    question = lender.question(session)
    lender.answer(question["toolCall"]["toolCallId"], option(question, "allow_once"))

    assert lender.wait(running)["stopReason"] == "end_turn"

    assert f"{tmp_path}\n[exit code 3]" in lender.text(session)
    lent = [line for line in lender.told if "lent" in line]
    assert [line["lent"] for line in lent] == ["create_terminal", "release_terminal"]


def test_cancel_ends_the_command_in_a_terminal(lender: Editor, tmp_path: Path) -> None:
    session = new(lender, tmp_path)
    running = lender.start("prompt", session_id=session, prompt=text("/terminal sleep 300"))
    question = lender.question(session)
    lender.answer(question["toolCall"]["toolCallId"], option(question, "allow_once"))
    made = lender.first(lambda line: line.get("lent") == "create_terminal")

    lender.call("cancel", session_id=session)

    assert lender.wait(running)["stopReason"] == "cancelled"
    released = lender.first(lambda line: line.get("lent") == "release_terminal")
    assert released["terminal"] == made["terminal"]


# ---- coming back


def test_list_has_the_session_with_its_directory_and_title(editor: Editor, tmp_path: Path) -> None:
    session = new(editor, tmp_path)
    prompt(editor, session, "name me after this")

    answer = editor.call("list_sessions", cwd=str(tmp_path))

    [row] = answer["sessions"]
    assert (row["sessionId"], row["cwd"]) == (session, str(tmp_path))
    assert row["title"] == "name me after this"
    assert row["updatedAt"]


def test_load_replays_a_session_in_order_before_it_answers(editor: Editor, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("from the file")
    session = new(editor, tmp_path)
    prompt(editor, session, "first words")
    prompt(editor, session, "/read notes.txt")
    before = editor.shown(session)

    count = len(editor.told)
    editor.call("load_session", session_id=session, cwd=str(tmp_path), mcp_servers=[])

    replayed = [line["shown"]["update"] for line in editor.told[count:] if "shown" in line]
    assert _spoken(replayed, "user_message_chunk") == "first words/read notes.txt"
    assert _spoken(replayed, "agent_message_chunk") == _spoken(before, "agent_message_chunk")
    quiet = ("user_message_chunk", "available_commands_update")
    shown = [update for update in before if update["sessionUpdate"] not in quiet]
    assert [update for update in replayed if update["sessionUpdate"] not in quiet] == shown


def _spoken(updates: list[Json], kind: str) -> str:
    return "".join(
        update["content"]["text"] for update in updates if update["sessionUpdate"] == kind
    )


def test_deleted_session_is_gone(editor: Editor, tmp_path: Path) -> None:
    session = new(editor, tmp_path)

    assert editor.request("session/delete", {"sessionId": session}) == {}

    assert editor.call("list_sessions", cwd=str(tmp_path))["sessions"] == []
    assert code_of(partial(prompt, editor, session, "hello")) == -32002
    assert editor.request("session/delete", {"sessionId": session}) == {}


def test_resume_goes_on_without_the_past(editor: Editor) -> None:
    session = new(editor)
    prompt(editor, session, "first words")
    count = len(editor.told)

    editor.call("resume_session", session_id=session, cwd="/", mcp_servers=[])
    prompt(editor, session, "second words")

    shown = [line["shown"]["update"] for line in editor.told[count:] if "shown" in line]
    assert _spoken(shown, "agent_message_chunk") == "second words"


# ---- what goes wrong


def code_of(refused: Callable[[], object]) -> int:
    with pytest.raises(Refused) as caught:
        refused()
    assert set(caught.value.data) == {"code", "retryable"}
    return caught.value.code


def test_unknown_method_is_refused(editor: Editor) -> None:
    assert code_of(partial(editor.request, "session/fly", {})) == -32601
    assert code_of(partial(editor.request, "_unknown/method", {})) == -32601
    session = new(editor)
    for unadvertised in ("session/close", "session/fork", "logout", "providers/list"):
        assert code_of(partial(editor.request, unadvertised, {"sessionId": session})) == -32601


@pytest.mark.parametrize("session", ["a" * 26, "", "../etc/passwd", "x" * 1000])
def test_unknown_session_is_refused(editor: Editor, session: str) -> None:
    calls = [
        partial(editor.call, "prompt", session_id=session, prompt=text("hello")),
        partial(editor.call, "load_session", session_id=session, cwd="/", mcp_servers=[]),
        partial(editor.call, "resume_session", session_id=session, cwd="/", mcp_servers=[]),
    ]

    assert [code_of(call) for call in calls] == [-32002] * len(calls)


def test_failed_turn_is_an_error_and_the_session_goes_on(editor: Editor) -> None:
    session = new(editor)

    assert code_of(partial(prompt, editor, session, "/fail")) == -31009

    assert prompt(editor, session, "hello") == "end_turn"


IMAGE = [{"type": "image", "data": "", "mimeType": "image/png"}]


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("session/new", {"cwd": "relative", "mcpServers": []}),
        ("session/new", {"mcpServers": []}),
        ("session/prompt", {"sessionId": "SESSION", "prompt": []}),
        ("session/prompt", {"sessionId": "SESSION", "prompt": [{"type": "text", "text": " "}]}),
        ("session/prompt", {"sessionId": "SESSION", "prompt": [{"type": "song"}]}),
        ("session/prompt", {"sessionId": "SESSION"}),
        ("session/prompt", {"sessionId": "SESSION", "prompt": IMAGE}),
        ("session/set_config_option", {"sessionId": "SESSION", "configId": "x", "value": "y"}),
        ("session/list", {"cursor": "nonsense"}),
    ],
)
def test_wrong_params_are_refused(editor: Editor, method: str, params: Json) -> None:
    session = new(editor)
    given = {key: session if value == "SESSION" else value for key, value in params.items()}

    assert code_of(partial(editor.request, method, given)) == -32602


def test_second_initialize_is_refused(editor: Editor) -> None:
    assert code_of(partial(editor.call, "initialize", protocol_version=1)) == -32600


def test_agent_of_an_editor_that_leaves_ends_without_a_word(how: Json) -> None:
    with open_editor(how) as editor:
        editor.call("initialize", protocol_version=1)
        session = new(editor)
        editor.start("prompt", session_id=session, prompt=text("/stream 100000 0.01"))
        editor.first(lambda line: "shown" in line)

        assert editor.leave() in (None, {"left": 0, "stderr": ""})
