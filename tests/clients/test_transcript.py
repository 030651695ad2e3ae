"""What a person reads of a session, and what of it ends up in a file."""

import io
import json
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from moorage_clients.cli.questions import Word, option_for, question_lines, word
from moorage_clients.cli.screen import Channel, Screen
from moorage_clients.cli.transcript import JsonView, Transcript, verdict_lines
from moorage_clients.messages import LogEntry, Message, read_update
from moorage_protocol.acp import PermissionKind, PermissionOption, ToolCallFields
from moorage_protocol.jsonrpc import encode
from moorage_protocol.moorage import Cause, Outcome, Verdict


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def update(**fields: Any) -> Message:
    return read_update(msgspec.Raw(encode({"sessionId": "s", "update": fields})))


def says(text: str, voice: str = "agent_message_chunk", message_id: str = "m") -> Message:
    content = {"type": "text", "text": text}
    return update(sessionUpdate=voice, content=content, messageId=message_id)


def entry(kind: str, generation: int = 3, **fields: Any) -> LogEntry:
    return LogEntry("s", 1, kind, msgspec.Raw(encode(fields)), generation)


def call(status: str, **fields: Any) -> Message:
    voice = "tool_call" if status == "pending" else "tool_call_update"
    return update(sessionUpdate=voice, toolCallId="t", status=status, **fields)


def shown(*messages: Message, **settings: bool) -> tuple[str, str]:
    """The words and the notes of a transcript into two files."""
    words, notes = io.StringIO(), io.StringIO()
    screen = Screen(Channel(words), Channel(notes))
    transcript = Transcript(screen, **settings)
    for message in messages:
        transcript.show(message)
    screen.end()
    return words.getvalue(), notes.getvalue()


def on_terminal(*messages: Message) -> str:
    """The transcript where both streams are one terminal."""
    terminal = Terminal()
    screen = Screen(Channel(terminal), Channel(terminal))
    transcript = Transcript(screen)
    for message in messages:
        transcript.show(message)
    screen.end()
    return terminal.getvalue()


def test_file_gets_the_agents_words_unbroken() -> None:
    words, notes = shown(says("one "), call("in_progress", title="T"), says("two"))

    assert words == "one two\n"
    assert notes == "[T] running\n"


def test_terminal_gets_every_line_ended_before_another_kind_begins() -> None:
    text = on_terminal(says("one "), call("in_progress", title="T"), says("two"), entry("verdict",
                       outcome="cancelled", cause="client_rpc"))  # fmt: skip

    assert text == (
        "one \n[T] running\ntwo\n[turn 3] cancelled (client_rpc): a client cancelled it\n"
    )


def test_messages_are_told_apart() -> None:
    words, _ = shown(says("one", message_id="1"), says("two", message_id="2"))

    assert words == "one\ntwo\n"


def test_thoughts_and_prompts_of_others_are_marked_and_go_beside() -> None:
    words, notes = shown(
        says("do it\nnow", "user_message_chunk"), says("hm", "agent_thought_chunk"), says("ok")
    )

    assert words == "ok\n"
    assert notes == "> do it\n> now\n~ hm\n"


def test_own_prompt_is_not_repeated() -> None:
    assert shown(says("do it", "user_message_chunk"), prompts=False) == ("", "")


def test_escape_sequence_across_two_chunks_is_not_shown() -> None:
    words, _ = shown(says("a\x1b]0;ti"), says("tle\x07b\x1b[3"), says("1mc"))

    assert words == "abc\n"


def test_tool_shows_each_status_once_and_the_start_of_its_output() -> None:
    output = [{"type": "content", "content": {"type": "text", "text": "\x1b[2Jx\n" * 12}}]
    _, notes = shown(
        call("pending", title="ls \x1b[8m\n"),
        call("in_progress"),
        call("completed", content=output),
    )

    assert notes.splitlines() == ["[ls] running", "[ls] done", *["  x"] * 8, "  … 4 more lines"]


def test_tool_that_changes_a_file_names_it() -> None:
    diff = [{"type": "diff", "path": "/a\x1b[2Jb", "newText": "x"}]
    _, notes = shown(call("failed", title="T", content=diff))

    assert notes.splitlines() == ["[T] failed", "  changed /ab"]


def plan(*entries: tuple[str, str]) -> Message:
    rows = [{"content": c, "priority": "low", "status": s} for c, s in entries]
    return update(sessionUpdate="plan", entries=rows)


def test_plan_is_listed_once_and_then_only_what_changed() -> None:
    _, notes = shown(
        plan(("a", "in_progress"), ("b", "pending")), plan(("a", "completed"), ("b", "pending"))
    )

    assert notes.splitlines() == ["Plan:", "  [>] a", "  [ ] b", "  [x] a"]


def test_question_is_shown_where_nobody_is_asked() -> None:
    ask = entry("ask", toolCallId="t", title="rm \x1b[8m-rf")

    assert shown(ask, asks=True)[1] == "[rm -rf] asks for permission\n"
    assert shown(ask)[1] == ""


def test_entry_of_another_shape_is_named_and_stops_nothing() -> None:
    assert shown(entry("verdict", outcome="odd\x1b[2J"), says("x")) == ("x\n", "[verdict]\n")


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_of_a_cancel_is_said(cause: Cause) -> None:
    (line,) = verdict_lines(Verdict(outcome=Outcome.CANCELLED, cause=cause))

    assert line.startswith(f"cancelled ({cause}): ")


def test_turn_that_came_to_its_end_needs_no_words() -> None:
    assert verdict_lines(Verdict(outcome=Outcome.COMPLETED)) == []
    assert verdict_lines(Verdict(outcome=Outcome.COMPLETED, cancel_lost=True)) != []


def test_json_holds_the_message_and_no_control_character() -> None:
    words = io.StringIO()
    view = JsonView(Screen(Channel(words), Channel(io.StringIO())))

    view.show(says("a\x1b[2J\x9b1m\u202e"))
    view.show(entry("verdict", outcome="completed"))

    first, second = words.getvalue().splitlines()
    assert first.isascii()
    assert json.loads(first)["update"]["content"]["text"] == "a\x1b[2J\x9b1m\u202e"
    assert json.loads(second)["entry"] == {"outcome": "completed"}


def test_waiting_for_a_paused_session_is_said_and_so_is_its_going_on() -> None:
    notes = io.StringIO()
    view = Transcript(Screen(Channel(io.StringIO()), Channel(notes)))

    view.show(entry("state", state="active", by="a"))  # that is how it began
    view.show(entry("prompt", by="a", position=1, paused=True))
    view.show(replace(entry("state", state="paused", by="a"), seq=2))
    view.show(replace(entry("state", state="active", by="a"), seq=3))

    waits, paused, goes_on = notes.getvalue().splitlines()
    assert waits.endswith("waits: the session is paused")
    assert (paused, goes_on) == ("[session] paused", "[session] goes on")


# ---- questions


def test_question_shows_what_does_not_print() -> None:
    raw = msgspec.Raw(encode({"command": "rm\x1b[8m -rf /\u202e", "n": [1]}))
    lines = question_lines(ToolCallFields(tool_call_id="t", title="T\r\x1b[2K", raw_input=raw))

    assert lines == [
        "Permission is asked: T\\r\\x1b[2K",
        "  command: rm\\x1b[8m -rf /\\u202e",
        "  n: [1]",
    ]


def test_question_says_how_much_of_a_long_input_is_not_shown() -> None:
    raw = msgspec.Raw(encode({"command": "x" * 5000}))
    lines = question_lines(ToolCallFields(tool_call_id="t", title="T", raw_input=raw))

    assert lines[1].endswith("x… (and 1000 characters more)")


@pytest.mark.parametrize(
    ("line", "said"),
    [("y", Word.YES), (" Yes ", Word.YES), ("N", Word.NO), ("always", Word.ALWAYS), ("", None),
     ("yes please", None), ("yy", None)],
)  # fmt: skip
def test_only_plain_words_answer_a_question(line: str, said: Word | None) -> None:
    assert word(line) is said


def test_word_stands_for_an_offered_option_of_its_kind_and_no_other() -> None:
    options = [
        PermissionOption(option_id="forever", name="", kind=PermissionKind.ALLOW_ALWAYS),
        PermissionOption(option_id="never", name="", kind=PermissionKind.REJECT_ALWAYS),
    ]

    assert option_for(Word.YES, options) is None
    assert option_for(Word.NO, options) == options[1]
    assert option_for(Word.ALWAYS, options) == options[0]


def test_compaction_is_a_line_also_one_that_came_to_nothing() -> None:
    made = entry("compaction", upto=12, summary="So far.")
    vain = entry("compaction", upto=12, code="summary_too_long")

    assert shown(made)[1] == "[compaction] the model is told a summary of turns 1 to 12\n"
    assert shown(vain)[1] == (
        "[compaction] no summary could be made: the model gave a longer one than fits\n"
    )


@pytest.mark.parametrize(
    ("stop", "said"), [("calls", "tool calls"), ("tokens", "tokens"), ("micros", "dollars")]
)
def test_spent_budget_says_of_what_and_how_to_get_more(stop: str, said: str) -> None:
    [line] = verdict_lines(Verdict(Outcome.CANCELLED, cause=Cause.BUDGET, stop=stop))

    assert line == (
        f"cancelled (budget): its budget of {said} was spent; moorage grant raise gives it more"
    )
