"""What an editor is owed when daemons come and go: no request stays without an answer."""

import json
from typing import Any

import pytest

from moorage_clients.bridge.exchange import HANDSHAKE, MAX_WAITING, Exchange
from moorage_clients.bridge.frames import (
    NO_LENGTH,
    OVERSIZE,
    Headers,
    Kind,
    Lines,
    framing_of,
    read,
)
from moorage_clients.bridge.outbox import Outbox


Message = dict[str, Any]


def line(**message: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **message}).encode()


def drain(box: Outbox) -> list[Message]:
    """All messages of an outbox, as the other end would read them."""
    text = b""
    while box:
        head = box.head(7)
        text += head
        box.wrote(len(head))
    return [json.loads(found) for found in text.splitlines()]


def initialized(**meta: Any) -> Exchange:
    """An exchange whose editor has shaken hands over its first connection."""
    exchange = Exchange()
    params = {"protocolVersion": 1, "_meta": meta} if meta else {"protocolVersion": 1}
    exchange.opened()
    exchange.from_editor(line(id=0, method="initialize", params=params))
    known = {"moorage": {"tuiId": "me", "tuiSecret": "hush"}}
    exchange.from_daemon(line(id=0, result={"protocolVersion": 1, "_meta": known}))
    drain(exchange.to_daemon)
    drain(exchange.to_editor)
    return exchange


def reopen(exchange: Exchange) -> Message:
    """Give the exchange a new connection; gives the handshake that it begins with."""
    exchange.opened()
    (handshake,) = drain(exchange.to_daemon)
    exchange.from_daemon(line(id=handshake["id"], result={"protocolVersion": 1}))
    return handshake


def test_frames_pass_in_both_directions_unchanged() -> None:
    exchange = initialized()
    asked = b'{"jsonrpc": "2.0",  "id": "a", "method": "session/list", "params": {"x": 1.50}}'
    told = b'{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"s"}}'

    exchange.from_editor(asked)
    exchange.from_daemon(told)

    assert exchange.to_daemon.take_back() == [asked]
    assert exchange.to_editor.take_back() == [told]


@pytest.mark.parametrize("request_id", [0, 1, -7, "1", "ü", "", None], ids=repr)
def test_open_request_is_answered_under_its_own_id_when_the_daemon_goes(request_id: Any) -> None:
    exchange = initialized()
    exchange.from_editor(line(id=request_id, method="session/prompt"))
    drain(exchange.to_daemon)

    exchange.lost()

    (answer,) = drain(exchange.to_editor)
    assert (answer["id"], type(answer["id"])) == (request_id, type(request_id))
    assert answer["error"]["code"] == -32603
    assert answer["error"]["data"] == {"code": "daemon_lost", "retryable": True}


def test_answered_request_is_not_answered_again_when_the_daemon_goes() -> None:
    exchange = initialized()
    exchange.from_editor(line(id=1, method="session/list"))
    drain(exchange.to_daemon)
    exchange.from_daemon(line(id=1, error={"code": -32002, "message": "no"}))
    drain(exchange.to_editor)

    exchange.lost()

    assert drain(exchange.to_editor) == []


def test_open_question_is_withdrawn_and_its_late_answer_goes_nowhere() -> None:
    exchange = initialized()
    exchange.from_daemon(line(id=77, method="session/request_permission"))
    drain(exchange.to_editor)

    exchange.lost()
    (withdrawal,) = drain(exchange.to_editor)
    reopen(exchange)
    exchange.from_editor(line(id=77, result={"outcome": {"outcome": "cancelled"}}))

    assert withdrawal["method"] == "$/cancel_request"
    assert withdrawal["params"] == {"requestId": 77}
    assert drain(exchange.to_daemon) == []


def test_answer_to_a_question_reaches_the_daemon_once() -> None:
    exchange = initialized()
    exchange.from_daemon(line(id=77, method="session/request_permission"))
    answer = line(id=77, result={"outcome": {"outcome": "selected", "optionId": "y"}})

    exchange.from_editor(answer)
    exchange.from_editor(answer)

    assert exchange.to_daemon.take_back() == [answer]


def test_answer_to_a_question_that_the_daemon_withdrew_is_dropped() -> None:
    exchange = initialized()
    exchange.from_daemon(line(id=77, method="session/request_permission"))
    exchange.from_daemon(line(method="$/cancel_request", params={"requestId": 77}))

    exchange.from_editor(line(id=77, error={"code": -32800, "message": "cancelled"}))

    assert drain(exchange.to_daemon) == []


def test_next_connection_begins_with_the_editors_own_initialize() -> None:
    exchange = initialized()
    exchange.lost()
    exchange.from_editor(line(id=5, method="session/list"))

    exchange.opened()
    (handshake,) = drain(exchange.to_daemon)
    exchange.from_daemon(line(id=HANDSHAKE, result={"protocolVersion": 1}))

    assert handshake["method"] == "initialize"
    assert handshake["params"] == {"protocolVersion": 1}
    assert [sent["id"] for sent in drain(exchange.to_daemon)] == [5]
    assert drain(exchange.to_editor) == []


def test_client_of_our_own_stays_the_same_terminal_on_the_next_connection() -> None:
    exchange = initialized(moorage={"name": "mine"}, other=1)
    exchange.lost()

    handshake = reopen(exchange)

    ours = {"name": "mine", "tuiId": "me", "tuiSecret": "hush"}
    assert handshake["params"]["_meta"] == {"moorage": ours, "other": 1}


def test_plain_editor_is_never_made_to_advertise_moorage() -> None:
    exchange = initialized(other=1)
    exchange.lost()

    assert reopen(exchange)["params"]["_meta"] == {"other": 1}


def test_refused_handshake_hangs_up_and_the_next_one_goes_without_the_identity() -> None:
    exchange = initialized(moorage={})
    exchange.lost()
    exchange.opened()
    drain(exchange.to_daemon)

    keeps = exchange.from_daemon(line(id=HANDSHAKE, error={"code": -31004, "message": "no"}))
    exchange.lost()

    assert not keeps
    assert reopen(exchange)["params"]["_meta"] == {"moorage": {}}
    assert drain(exchange.to_editor) == []


def test_initialize_that_was_never_answered_is_not_replayed() -> None:
    exchange = Exchange()
    exchange.opened()
    exchange.from_editor(line(id=0, method="initialize"))
    drain(exchange.to_daemon)

    exchange.lost()
    exchange.opened()

    (answer,) = drain(exchange.to_editor)
    assert answer["id"] == 0
    assert answer["error"]["code"] == -32603
    assert exchange.is_ready
    assert drain(exchange.to_daemon) == []


def test_what_the_daemon_cannot_have_read_waits_for_the_next_one_in_order() -> None:
    exchange = initialized()
    exchange.from_editor(line(id=1, method="session/prompt"))
    exchange.to_daemon.wrote(exchange.to_daemon.size - 1)  # all but the newline
    exchange.from_editor(line(method="session/cancel"))
    exchange.lost()
    exchange.from_editor(line(id=2, method="session/list"))

    reopen(exchange)

    assert drain(exchange.to_editor) == []
    assert [(m["method"], m.get("id")) for m in drain(exchange.to_daemon)] == [
        ("session/prompt", 1), ("session/cancel", None), ("session/list", 2),
    ]  # fmt: skip


def test_more_than_may_wait_is_answered_with_an_error() -> None:
    exchange = Exchange()
    for number in range(MAX_WAITING + 2):
        exchange.from_editor(line(id=number, method="session/list"))
    exchange.from_editor(line(method="session/cancel"))

    answers = drain(exchange.to_editor)
    exchange.opened()

    assert [answer["id"] for answer in answers] == [MAX_WAITING, MAX_WAITING + 1]
    assert {answer["error"]["code"] for answer in answers} == {-32603}
    assert len(drain(exchange.to_daemon)) == MAX_WAITING


def test_large_frames_that_wait_are_bounded_too() -> None:
    exchange = Exchange()
    for number in range(5):
        exchange.from_editor(line(id=number, method="x", params="y" * 7 * 2**20))

    assert [answer["id"] for answer in drain(exchange.to_editor)] == [2, 3, 4]


def test_giving_up_answers_what_waits_and_keeps_serving() -> None:
    exchange = Exchange()
    exchange.from_editor(line(id=1, method="initialize"))
    exchange.from_editor(line(method="session/cancel"))

    exchange.give_up("No moorage daemon: bad key")

    (answer,) = drain(exchange.to_editor)
    assert answer["error"]["message"] == "No moorage daemon: bad key"
    assert exchange.is_settled


def test_oversize_frame_is_answered_and_the_next_one_passes() -> None:
    exchange, lines = initialized(), Lines(limit=30)

    for found in lines.receive(b"x" * 31 + b"\n" + b'{"id":1,"method":"a"}\n'):
        exchange.from_editor(found)

    (answer,) = drain(exchange.to_editor)
    assert (answer["id"], answer["error"]["code"]) == (None, -32600)
    assert exchange.to_daemon.take_back() == [b'{"id":1,"method":"a"}']


@pytest.mark.parametrize(
    "data",
    [b"{", b"[]", b"7", b"\xff", b"[" * 100_000, b'{"id":1}', b'{"id":{},"method":"x"}', b"{}"],
    ids=lambda data: repr(data[:20]),
)
def test_unreadable_line_is_left_to_the_daemon(data: bytes) -> None:
    exchange = initialized()

    exchange.from_editor(data)
    sent = exchange.to_daemon.take_back()

    assert read(data).kind is Kind.OTHER
    assert sent == [data]


def test_lines_are_the_same_however_the_stream_is_cut() -> None:
    stream = b'{"id":1}\r\n\n  \n{"id":2}\n' + b"z" * 20 + b"\nlast"
    for cut in range(len(stream)):
        lines = Lines(limit=15)
        found = lines.receive(stream[:cut]) + lines.receive(stream[cut:])

        assert found == [b'{"id":1}\r', b'{"id":2}', OVERSIZE]


def test_frames_behind_headers_are_the_same_however_the_stream_is_cut() -> None:
    stream = (
        b'Content-Length: 9\r\n\r\n{"id":\n1}'
        b"Content-Type: x\r\n\r\n"
        b'content-length:  8\r\nContent-Type: x\r\n\r\n{"id":2}'
        b"Content-Length: 20\r\n\r\n" + b"z" * 20 + b"Content-Length: 2\r\n\r\n{}"
    )
    for cut in range(len(stream)):
        headers = Headers(limit=15)
        found = headers.receive(stream[:cut]) + headers.receive(stream[cut:])

        assert found == [b'{"id": 1}', NO_LENGTH, b'{"id":2}', OVERSIZE, b"{}"]


def test_header_that_never_ends_is_not_kept() -> None:
    assert Headers().receive(b"Content-Length" * 1000) == [NO_LENGTH]


def test_first_byte_decides_how_a_stream_is_framed() -> None:
    assert isinstance(framing_of(b"Content-Length: 1"), Headers)
    assert isinstance(framing_of(b'{"id":1}'), Lines)
