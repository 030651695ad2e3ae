"""What an editor is owed when daemons come and go: every request answered once, nothing twice."""

from typing import Any

import pytest

from moorage_clients.bridge.framing import OVERSIZE, Lines
from moorage_clients.bridge.journal import MAX_FRAMES
from moorage_clients.bridge.places import MAX_SESSIONS
from moorage_clients.identity import Identity
from tests.clients.bridge_play import INSTANCE, Message, Play, begun, line


def methods(messages: list[Message]) -> list[str]:
    return [message["method"] for message in messages]


# ---- what passes


def test_frames_pass_in_both_directions_unchanged() -> None:
    play = begun()
    asked = b'{"jsonrpc": "2.0",  "id": "a", "method": "session/list", "params": {"x": 1.50}}'
    told = b'{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"s"}}'

    play.exchange.from_editor(asked)
    play.exchange.from_daemon(told)

    assert play.exchange.to_daemon.take_back() == [asked]
    assert play.exchange.to_editor.take_back() == [told]


@pytest.mark.parametrize(
    "data",
    [
        b"{", b"[]", b"7", b"\xff", b'{"id":1}', b'{"id":{},"method":"x"}',
        b'{"id":9007199254740993,"method":"x"}', b'{"id":"%b","method":"x"}' % (b"i" * 257),
    ],
)  # fmt: skip
def test_unreadable_frame_is_left_to_the_daemon(data: bytes) -> None:
    play = begun()

    play.exchange.from_editor(data)

    assert play.exchange.to_daemon.take_back() == [data]
    assert play.exchange.is_settled


def test_oversize_frame_is_answered_and_the_next_one_passes() -> None:
    play, lines = begun(), Lines(limit=30)

    for found in lines.receive(b"x" * 31 + b"\n" + b'{"id":1,"method":"a"}\n'):
        play.exchange.from_editor(found)

    [answer] = play.hears()
    assert (answer["id"], answer["error"]["code"]) == (None, -32600)
    assert answer["error"]["message"] == OVERSIZE.problem
    assert play.exchange.to_daemon.take_back() == [b'{"id":1,"method":"a"}']


def test_requests_behind_initialize_wait_until_the_daemon_knows_the_editor() -> None:
    play = Play()
    play.asks(0, "initialize", protocolVersion=1)
    play.asks(1, "session/list")
    play.exchange.opened()

    play.welcomes()

    assert [message["id"] for message in play.hears()] == [0]
    assert [message["id"] for message in play.gets()] == [1]


# ---- who the editor is


def test_plain_editor_is_spoken_for_and_hears_nothing_of_it() -> None:
    play = Play()
    play.exchange.opened()
    play.asks("x", "initialize", protocolVersion=1, _meta={"other": 1})

    [greeting] = play.gets()
    result = {"protocolVersion": 1, "_meta": {"moorage": {"tuiId": "me", "tuiSecret": "hush"}}}
    play.daemon(id=greeting["id"], result=result)

    assert greeting["params"] == {
        "protocolVersion": 1,
        "_meta": {"other": 1, "moorage": {"instance": INSTANCE, "relay": True}},
    }
    assert play.hears() == [{"jsonrpc": "2.0", "id": "x", "result": {"protocolVersion": 1}}]


def test_meta_of_others_in_the_welcome_reaches_the_editor() -> None:
    play = Play()
    play.exchange.opened()
    play.asks(0, "initialize", protocolVersion=1)
    [greeting] = play.gets()

    play.daemon(id=greeting["id"], result={"_meta": {"moorage": {}, "other": 1}})

    [answer] = play.hears()
    assert answer["result"] == {"_meta": {"other": 1}}


def test_editor_is_the_same_terminal_over_connections_and_over_its_own_restart() -> None:
    play = begun(name="Zed Preview/1.0")
    known = {"instance": INSTANCE, "relay": True, "tuiId": "me", "tuiSecret": "hush"}

    play.cut()
    play.exchange.opened()
    again = play.welcomes()
    other = Play(play.identities)
    other.exchange.opened()
    other.asks(0, "initialize", protocolVersion=1, clientInfo={"name": "Zed Preview/1.0"})
    [first] = other.gets()

    assert again["params"]["_meta"] == {"moorage": known}
    assert first["params"]["_meta"] == {"moorage": known}
    assert list(play.identities.kept) == ["Zed-Preview-1.0"]


@pytest.mark.parametrize("name", ["../../x", "", None, 7, "ü" * 300])
def test_name_of_an_editor_is_one_that_a_file_can_have(name: Any) -> None:
    play = begun(name=name)

    [found] = play.identities.kept
    assert found
    assert "/" not in found
    assert not found.startswith(".")
    assert len(found) <= 40


def test_identity_that_a_daemon_does_not_know_is_replaced_and_the_editor_hears_nothing() -> None:
    play = Play()
    play.identities.kept["editor"] = Identity("old", "secret")
    play.exchange.opened()
    play.asks(0, "initialize", protocolVersion=1)
    [greeting] = play.gets()

    goes_on = play.daemon(id=greeting["id"], error={"code": -31004, "message": "no"})
    again = play.welcomes(tuiId="new", tuiSecret="fresh")

    assert goes_on
    assert again["params"]["_meta"]["moorage"] == {"instance": INSTANCE, "relay": True}
    assert "error" not in str(play.hears())
    assert play.identities.kept["editor"] == Identity("new", "fresh")


def test_editor_that_advertised_moorage_says_for_itself_who_it_is() -> None:
    play = Play()
    play.exchange.opened()
    play.asks(0, "initialize", protocolVersion=1, _meta={"moorage": {"name": "mine"}})
    welcomed = play.welcomes(tuiId="me", tuiSecret="hush")
    [answer] = play.hears()
    play.cut()
    play.exchange.opened()

    again = play.welcomes()

    assert welcomed["params"]["_meta"]["moorage"] == {"instance": INSTANCE, "name": "mine"}
    assert answer["result"]["_meta"]["moorage"] == {"tuiId": "me", "tuiSecret": "hush"}
    assert again["params"]["_meta"]["moorage"] == {
        "instance": INSTANCE, "name": "mine", "tuiId": "me", "tuiSecret": "hush",
    }  # fmt: skip
    assert play.identities.kept == {}


def test_refused_initialize_is_the_editors_to_repeat() -> None:
    play = Play()
    play.exchange.opened()
    play.asks(0, "initialize", protocolVersion="x")
    play.asks(1, "session/list")
    [greeting] = play.gets()
    error = {"code": -32602, "message": "Invalid params: protocolVersion"}
    play.daemon(id=greeting["id"], error=error)

    assert play.hears() == [{"jsonrpc": "2.0", "id": 0, "error": error}]
    assert methods(play.gets()) == ["session/list"]
    play.asks(2, "initialize", protocolVersion=1)
    assert play.welcomes()["params"]["protocolVersion"] == 1
    assert [message["id"] for message in play.hears()] == [2]


def test_refused_return_hangs_up() -> None:
    play = begun()
    play.cut()
    play.exchange.opened()
    error = {"code": -32603, "message": "no"}
    [greeting] = play.gets()
    assert play.daemon(id=greeting["id"], error=error)  # perhaps it is the identity
    [greeting] = play.gets()

    assert not play.daemon(id=greeting["id"], error=error)
    assert play.hears() == []


def test_initialize_that_was_never_answered_is_said_to_the_next_daemon() -> None:
    play = Play()
    play.exchange.opened()
    play.asks(0, "initialize", protocolVersion=1)
    play.cut()

    play.exchange.opened()
    play.welcomes()

    assert play.hears() == [{"jsonrpc": "2.0", "id": 0, "result": {"protocolVersion": 1}}]


def test_moorages_own_messages_reach_only_an_editor_that_advertised_it() -> None:
    kinds: list[tuple[Message | None, int]] = [(None, 0), ({}, 2)]
    for moorage, count in kinds:
        play = begun(moorage=moorage)

        play.daemon(method="_moorage/session/entry", params={"sessionId": "s", "seq": 4})
        play.daemon(method="_moorage/session/detached", params={"sessionId": "s", "seq": 4})

        assert len(play.hears()) == count


# ---- requests over a cut


@pytest.mark.parametrize("request_id", [0, 1, -7, "1", "ü", "", None], ids=repr)
def test_open_request_is_sent_again_under_its_own_id_and_answered_once(request_id: Any) -> None:
    play = begun()
    play.asks(request_id, "session/list", cwd="/x")
    play.cut()
    heard = play.hears()

    play.exchange.opened()
    play.welcomes()
    [again] = play.gets()
    play.daemon(id=request_id, result={})

    assert heard == []
    assert again["params"] == {"cwd": "/x"}
    [answer] = play.hears()
    assert (answer["id"], type(answer["id"])) == (request_id, type(request_id))
    assert play.exchange.is_settled


def test_answered_request_is_not_sent_again() -> None:
    play = begun()
    play.asks(1, "session/list")
    play.daemon(id=1, error={"code": -32002, "message": "no"})
    play.cut()

    play.exchange.opened()
    play.welcomes()

    assert play.gets() == []


def test_half_an_answer_is_no_answer() -> None:
    play = begun()
    play.asks(1, "session/list")
    play.daemon_sends(b'{"jsonrpc":"2.0","id":1,"resu')
    play.cut()

    play.exchange.opened()
    play.welcomes()
    play.daemon_sends(b'{"jsonrpc":"2.0","id":1,"result":{}}\n')

    assert methods(play.gets()) == ["session/list"]
    assert play.hears() == [{"jsonrpc": "2.0", "id": 1, "result": {}}]


def test_prompts_are_given_ids_of_their_own_and_keep_them() -> None:
    play = begun()
    play.prompts(1)
    play.prompts(2)
    play.says(id=3, method="session/prompt", params={"_meta": {"moorage": {"promptId": "mine"}}})
    first = play.gets()
    play.cut()
    play.exchange.opened()
    play.welcomes()

    again = play.gets()

    ids = [message["params"]["_meta"]["moorage"]["promptId"] for message in first]
    assert again == first
    assert len({*ids}) == 3
    assert ids[2] == "mine"
    assert all(len(found) <= 128 for found in ids)


def test_what_was_not_sent_goes_behind_what_was_in_the_order_it_was_said() -> None:
    play = begun()
    play.asks(1, "a")
    play.gets()
    play.notes("b")
    play.asks(2, "c")
    play.exchange.to_daemon.wrote(5)  # half of `b` is out
    play.exchange.lost()
    play.notes("d")
    play.asks(3, "e")

    play.exchange.opened()
    play.welcomes()

    assert methods(play.gets()) == ["a", "b", "c", "d", "e"]


def test_notification_that_was_sent_is_not_sent_again() -> None:
    play = begun()
    play.notes("session/cancel", sessionId="s1")
    play.cut()

    play.exchange.opened()
    play.welcomes()

    assert play.gets() == []


@pytest.mark.parametrize("phase", ["greeting", "returning"])
def test_connection_that_is_lost_before_all_was_said_loses_nothing(phase: str) -> None:
    play = begun()
    play.creates(1, "s1")
    play.creates(2, "s2")
    play.prompts(3, "s1")
    prompt = play.gets()[-1]
    play.cut()
    play.hears()
    play.exchange.opened()
    if phase == "returning":
        play.welcomes()
    play.cut()
    play.exchange.opened()

    attached = play.takes_back()

    assert [params["sessionId"] for params in attached] == ["s2", "s1"]
    assert play.gets() == [prompt]
    assert play.hears() == []


def test_what_must_not_be_done_twice_is_answered_with_an_error_unless_it_was_not_sent() -> None:
    play = begun(moorage={})
    play.asks(1, "_moorage/grant/use", grantId="g")
    play.says(id=2, method="session/prompt", params={"sessionId": "s", "_meta": {"moorage": 7}})
    play.gets()
    play.asks(3, "_moorage/grant/use", grantId="g")
    play.exchange.lost()

    play.exchange.opened()
    play.takes_back()

    answers = play.hears()
    assert [answer["id"] for answer in answers] == [1, 2]
    assert {answer["error"]["code"] for answer in answers} == {-32603}
    assert [message["id"] for message in play.gets()] == [3]


def test_request_that_a_stopping_daemon_refuses_is_the_next_ones() -> None:
    play = begun()
    play.prompts(1)
    play.asks(2, "_moorage/token/add", name="x")
    prompt, _ = play.gets()
    for number in (1, 2):
        error = {"code": -31005, "message": "", "data": {"code": "stopping", "retryable": True}}
        play.daemon(id=number, error=error)
    heard = play.hears()
    play.cut()

    play.exchange.opened()
    play.takes_back()

    assert [answer["id"] for answer in heard] == [2]
    assert play.gets() == [prompt]


# ---- sessions over a cut


def test_every_session_is_followed_from_where_it_was_before_anything_is_asked() -> None:
    play = begun()
    play.creates(1, "s1")
    play.creates(2, "s2", seq=5)
    play.update("s1", 7)
    play.update("s1", 9)
    play.asks(3, "session/resume", sessionId="s3", cwd="/")
    play.daemon(id=3, result={"_meta": {"moorage": {"seq": 40}}})
    play.prompts(4, "s1")
    play.cut()
    play.hears()

    play.exchange.opened()
    attached = play.takes_back()

    assert attached == [
        {"sessionId": "s2", "continues": True, "afterSeq": 5},
        {"sessionId": "s3", "continues": True, "afterSeq": 40},
        {"sessionId": "s1", "continues": True, "afterSeq": 9},
    ]
    assert methods(play.gets()) == ["session/prompt"]
    assert play.hears() == []


def test_place_of_a_resumed_session_is_no_further_than_what_was_told() -> None:
    play = begun()
    play.creates(1, "s1")
    play.update("s1", 7)
    play.asks(2, "session/resume", sessionId="s1", cwd="/")
    play.daemon(id=2, result={"_meta": {"moorage": {"seq": 40}}})
    play.cut()

    play.exchange.opened()

    assert play.takes_back()[0]["afterSeq"] == 7


def test_session_that_is_gone_is_let_go_and_the_others_are_followed() -> None:
    play = begun()
    play.creates(1, "s1")
    play.creates(2, "s2")
    play.cut()
    play.exchange.opened()
    play.welcomes()
    [attach] = play.gets()
    play.daemon(id=attach["id"], error={"code": -32002, "message": "no"})
    [second] = play.gets()
    play.daemon(id=second["id"], result={"seq": 1})
    play.hears()
    play.cut()
    play.exchange.opened()

    attached = play.takes_back()

    assert second["params"]["sessionId"] == "s2"
    assert [params["sessionId"] for params in attached] == ["s2"]
    assert play.hears() == []


def test_place_that_was_compacted_is_given_up_for_the_present() -> None:
    play = begun()
    play.creates(1, "s1")
    play.cut()
    play.exchange.opened()
    play.welcomes()
    [attach] = play.gets()

    play.daemon(id=attach["id"], error={"code": -31010, "message": "compacted"})

    [again] = play.gets()
    assert again["params"] == {"sessionId": "s1", "continues": True}
    play.daemon(id=again["id"], result={"seq": 70})
    play.cut()
    play.exchange.opened()
    assert play.takes_back()[0]["afterSeq"] == 70


@pytest.mark.parametrize("method", ["session/close", "session/delete", "_moorage/session/detach"])
def test_session_that_was_put_away_is_not_followed_again(method: str) -> None:
    play = begun()
    for number, session in enumerate(["s1", "s2"]):
        play.creates(number, session)
        play.asks("end", method, sessionId=session)
        answer: Message = {"result": {}} if session == "s1" else {"error": {"code": -32601}}
        play.daemon(id="end", **answer)
    play.cut()

    play.exchange.opened()

    assert [params["sessionId"] for params in play.takes_back()] == ["s2"]


def test_observer_stays_one() -> None:
    play = begun(moorage={})
    play.asks(1, "_moorage/session/attach", sessionId="s1", afterSeq=3, access="observer")
    play.daemon(id=1, result={"sessionId": "s1", "seq": 12})
    play.cut()

    play.exchange.opened()

    assert play.takes_back() == [
        {"sessionId": "s1", "continues": True, "afterSeq": 3, "access": "observer"}
    ]


def test_so_many_sessions_are_followed_and_those_used_last() -> None:
    play = begun()
    for number in range(MAX_SESSIONS + 1):
        play.creates(number, f"s{number}")
    play.cut()

    play.exchange.opened()

    attached = [params["sessionId"] for params in play.takes_back()]
    assert attached == [f"s{number}" for number in range(1, MAX_SESSIONS + 1)]


def test_prompt_of_which_nothing_has_come_brings_its_session_itself() -> None:
    """The editor never opened it, so nobody knows where in its log it is."""
    play = begun()
    play.prompts(1, "s9")
    play.cut()
    play.exchange.opened()

    assert play.takes_back() == []
    assert methods(play.gets()) == ["session/prompt"]
    play.update("s9", 31)
    play.daemon(id=1, result={})
    play.cut()
    play.exchange.opened()
    assert play.takes_back()[0]["afterSeq"] == 31


# ---- a load that is cut


def loading(*before: int) -> Play:
    """A load that is under way, behind updates of the same session."""
    play = begun()
    for seq in before:
        play.update("s1", seq)
    play.asks(1, "session/load", sessionId="s1", cwd="/")
    play.gets()
    return play


@pytest.mark.parametrize(
    ("before", "replayed", "after"),
    [
        ([], [], None),
        ([], [2, 3], 3),
        ([20], [], None),
        ([20], [21], None),
        ([20], [21, 2, 3], 3),
        ([20], [2], 2),
    ],
)
def test_load_goes_on_behind_what_it_has_told(
    before: list[int], replayed: list[int], after: int | None
) -> None:
    """What was on its way live when the load began is none of it."""
    play = loading(*before)
    for seq in replayed:
        play.update("s1", seq)
    play.cut()
    play.exchange.opened()
    play.welcomes()

    [again] = play.gets()

    assert (again["id"], again["method"]) == (1, "session/load")
    meta = {} if after is None else {"_meta": {"moorage": {"afterSeq": after}}}
    assert again["params"] == {"sessionId": "s1", "cwd": "/", **meta}


def test_load_that_was_answered_leaves_the_session_where_the_answer_says() -> None:
    play = loading(20)
    play.update("s1", 2)
    play.daemon(id=1, result={"_meta": {"moorage": {"seq": 9}}})
    play.cut()
    play.exchange.opened()

    assert play.takes_back()[0]["afterSeq"] == 9


def test_refused_load_leaves_no_trace() -> None:
    play = loading()
    play.daemon(id=1, error={"code": -32002, "message": "no"})
    play.cut()
    play.exchange.opened()

    assert play.takes_back() == []
    assert play.gets() == []


# ---- cancelling over a cut


def test_cancel_passes_while_there_is_a_daemon() -> None:
    play = begun()
    play.prompts(1)
    play.notes("session/cancel", sessionId="s1")
    play.notes("$/cancel_request", requestId=1)

    assert methods(play.gets()) == ["session/prompt", "session/cancel", "$/cancel_request"]


@pytest.mark.parametrize("when", ["before", "unsent", "away"])
def test_cancelled_prompt_is_cancelled_again_behind_itself(when: str) -> None:
    """By its own id: a bare cancel could hit what somebody else has started meanwhile."""
    play = begun()
    play.creates(1, "s1")
    play.prompts(2, "s1")
    play.prompts(3, "s2")
    play.gets()
    if when == "before":
        play.notes("session/cancel", sessionId="s1")
        play.gets()
    elif when == "unsent":
        play.notes("session/cancel", sessionId="s1")
    play.exchange.lost()
    if when == "away":
        play.notes("session/cancel", sessionId="s1")
    play.asks(4, "session/list")

    play.exchange.opened()
    play.takes_back()

    said = [(m["method"], m.get("id", m["params"].get("requestId"))) for m in play.gets()]
    assert said == [
        ("session/prompt", 2), ("$/cancel_request", 2), ("session/prompt", 3), ("session/list", 4),
    ]  # fmt: skip


def test_request_that_is_taken_back_while_away_is_taken_back_behind_itself() -> None:
    play = begun()
    play.asks("a", "session/list")
    play.cut()
    play.notes("$/cancel_request", requestId="a")
    play.notes("$/cancel_request", requestId="unknown")

    play.exchange.opened()
    play.welcomes()

    [request, taken_back] = play.gets()
    assert request["id"] == "a"
    assert taken_back["params"] == {"requestId": "a"}


def test_cancel_of_what_somebody_else_has_started_waits_for_the_daemon() -> None:
    play = begun()
    play.cut()
    play.notes("session/cancel", sessionId="s1")

    play.exchange.opened()
    play.welcomes()

    assert methods(play.gets()) == ["session/cancel"]


# ---- questions


def test_open_question_is_withdrawn_and_its_late_answer_goes_nowhere() -> None:
    play = begun()
    play.daemon(id=77, method="session/request_permission")
    play.hears()

    play.cut()
    [withdrawal] = play.hears()
    play.exchange.opened()
    play.says(id=77, result={"outcome": {"outcome": "cancelled"}})
    play.welcomes()
    play.says(id=77, result={"outcome": {"outcome": "cancelled"}})

    assert withdrawal["method"] == "$/cancel_request"
    assert withdrawal["params"] == {"requestId": 77}
    assert play.gets() == []


def test_answer_that_was_not_sent_before_the_cut_goes_nowhere() -> None:
    play = begun()
    play.daemon(id=77, method="session/request_permission")
    play.says(id=77, result={})
    play.exchange.lost()

    play.exchange.opened()
    play.welcomes()

    assert play.gets() == []


def test_answer_to_a_question_reaches_the_daemon_once() -> None:
    play = begun()
    play.daemon(id=77, method="session/request_permission")
    answer = line(id=77, result={"outcome": {"outcome": "selected", "optionId": "y"}})

    play.exchange.from_editor(answer)
    play.exchange.from_editor(answer)

    assert play.exchange.to_daemon.take_back() == [answer]


def test_answer_to_a_question_that_the_daemon_withdrew_is_dropped() -> None:
    play = begun()
    play.daemon(id=77, method="session/request_permission")
    play.daemon(method="$/cancel_request", params={"requestId": 77})

    play.says(id=77, error={"code": -32800, "message": "cancelled"})

    assert play.gets() == []


# ---- terminals


def lends(play: Play, request_id: Any = 70, terminal: str = "t1") -> None:
    """The daemon asks for a terminal, and the editor makes it."""
    play.daemon(id=request_id, method="terminal/create", params={"sessionId": "s1", "command": "x"})
    play.says(id=request_id, result={"terminalId": terminal})
    play.gets()
    play.hears()


LET_GO = [
    ("terminal/kill", {"sessionId": "s1", "terminalId": "t1"}),
    ("terminal/release", {"sessionId": "s1", "terminalId": "t1"}),
]


def told(messages: list[Message]) -> list[tuple[str, Message]]:
    return [(message["method"], message["params"]) for message in messages]


def test_terminal_of_a_daemon_that_went_is_let_go_of_and_no_daemon_hears_of_it() -> None:
    play = begun()
    lends(play)

    play.cut()
    heard = play.hears()
    play.exchange.opened()
    play.welcomes()
    for message in heard:
        play.says(id=message["id"], result={})
    play.cut()

    assert told(heard) == LET_GO
    assert play.gets() == []
    assert play.hears() == []


def test_terminal_that_the_daemon_let_go_of_is_left_alone() -> None:
    play = begun()
    lends(play, 70, "t0")
    lends(play, 71, "t1")
    params = {"sessionId": "s1", "terminalId": "t0"}
    play.daemon(id=72, method="terminal/release", params=params)
    play.says(id=72, result={})
    play.hears()

    play.cut()

    assert told(play.hears()) == LET_GO


def test_terminal_that_is_made_when_the_daemon_is_gone_is_let_go_of() -> None:
    play = begun()
    play.daemon(id=70, method="terminal/create", params={"sessionId": "s1", "command": "x"})
    play.cut()
    play.hears()

    play.says(id=70, result={"terminalId": "t1"})

    assert told(play.hears()) == LET_GO


def test_terminal_whose_making_was_not_told_before_the_cut_is_let_go_of() -> None:
    play = begun()
    play.daemon(id=70, method="terminal/create", params={"sessionId": "s1", "command": "x"})
    play.says(id=70, result={"terminalId": "t1"})
    play.hears()

    play.exchange.lost()

    assert told(play.hears()) == LET_GO


def test_terminal_that_was_taken_back_and_is_made_all_the_same_is_the_daemons() -> None:
    play = begun()
    play.daemon(id=70, method="terminal/create", params={"sessionId": "s1", "command": "x"})
    play.daemon(method="$/cancel_request", params={"requestId": 70})
    play.hears()

    play.says(id=70, result={"terminalId": "t1"})

    assert play.hears() == []
    assert [message["result"] for message in play.gets()] == [{"terminalId": "t1"}]


# ---- bounds


def test_thousand_frames_are_held_and_more_requests_are_answered_with_an_error() -> None:
    play = begun()
    play.asks("sent", "session/list")
    play.cut()
    for number in range(MAX_FRAMES + 1):
        play.asks(number, "session/list")
    play.notes("session/cancel", sessionId="s")

    answers = play.hears()
    play.exchange.opened()
    play.welcomes()

    assert MAX_FRAMES == 1000
    assert [answer["id"] for answer in answers] == [MAX_FRAMES - 1, MAX_FRAMES]
    assert {answer["error"]["code"] for answer in answers} == {-32603}
    assert [m["id"] for m in play.gets()] == ["sent", *range(MAX_FRAMES - 1)]


def test_room_that_was_freed_is_used_again() -> None:
    play = begun()
    for _ in range(3):
        play.cut()
        for number in range(MAX_FRAMES):
            play.asks(number, "session/list")
        play.exchange.opened()
        play.welcomes()
        play.gets()
        for number in range(MAX_FRAMES):
            play.daemon(id=number, result={})
        assert ["error" in answer for answer in play.hears()] == [False] * MAX_FRAMES


def test_large_frames_that_wait_are_bounded_too() -> None:
    play = begun()
    play.cut()
    for number in range(5):
        play.asks(number, "x", text="y" * 7 * 2**20)

    assert [answer["id"] for answer in play.hears()] == [2, 3, 4]


def test_open_requests_beyond_the_bound_pass_and_are_answered_when_the_daemon_goes() -> None:
    play = begun()
    for number in range(3):
        play.asks(number, "x", text="y" * 7 * 2**20)
    sent = [message["id"] for message in play.gets()]
    play.exchange.lost()

    play.exchange.opened()
    play.welcomes()

    [answer] = play.hears()
    assert sent == [0, 1, 2]
    assert (answer["id"], answer["error"]["code"]) == (2, -32603)
    assert [message["id"] for message in play.gets()] == [0, 1]


def test_giving_up_answers_all_that_is_open_once_and_keeps_serving() -> None:
    play = begun()
    play.creates(1)
    play.prompts(2)
    play.cut()
    play.asks("three", "session/list")
    play.notes("session/cancel", sessionId="s")
    play.hears()

    play.exchange.give_up("No moorage daemon: bad key")
    play.exchange.give_up("No moorage daemon: bad key")
    answers = play.hears()
    waits = play.exchange.wants_daemon
    play.asks(4, "session/list")
    play.exchange.opened()
    attached = play.takes_back()

    assert [answer["id"] for answer in answers] == [2, "three"]
    assert {answer["error"]["message"] for answer in answers} == {"No moorage daemon: bad key"}
    assert {str(answer["error"]["data"]) for answer in answers} == {
        "{'code': 'daemon_lost', 'retryable': True}"
    }
    assert not waits
    assert [params["sessionId"] for params in attached] == ["s1"]
    assert [message["id"] for message in play.gets()] == [4]


def test_giving_up_on_the_first_daemon_lets_the_editor_introduce_itself_again() -> None:
    play = Play()
    play.asks(0, "initialize", protocolVersion=1)
    play.exchange.give_up("No moorage daemon: bad key")
    [answer] = play.hears()

    play.asks(1, "initialize", protocolVersion=1)
    play.exchange.opened()
    play.welcomes()

    assert (answer["id"], answer["error"]["code"]) == (0, -32603)
    assert [(m["id"], "result" in m) for m in play.hears()] == [(1, True)]
