"""One conversation without its I/O: whose answer is whose, and what is nobody's."""

import json

import pytest

from moorage_protocol import jsonrpc
from moorage_protocol.errors import MethodNotFound, RequestCancelled, RpcError
from moorage_protocol.jsonrpc import Notification, Request
from moorage_protocol.peer import Answer, Dropped, Fault, Peer


Heard = Request | Notification | Answer[str] | Dropped | Fault


@pytest.fixture
def peer() -> Peer[str]:
    return Peer(first_id=100)


def result(request_id: object, value: object = True) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "result": value}).encode()


def token_of(heard: Heard) -> str:
    assert isinstance(heard, Answer)
    return heard.token


def reply_to(heard: Heard) -> dict[str, object]:
    assert isinstance(heard, Fault)
    reply: dict[str, object] = json.loads(heard.reply)
    return reply


def test_request_goes_out_under_the_next_id(peer: Peer[str]) -> None:
    first, frame = peer.request("m", {"a": 1}, "one")
    second, _ = peer.request("m", {}, "two")

    assert (first, second) == (100, 101)
    assert json.loads(frame) == {"jsonrpc": "2.0", "id": 100, "method": "m", "params": {"a": 1}}


def test_answers_find_their_requests_in_any_order(peer: Peer[str]) -> None:
    for token in ("one", "two", "three"):
        peer.request("m", {}, token)

    assert [token_of(peer.receive(result(number))) for number in (102, 100, 101)] == [
        "three",
        "one",
        "two",
    ]


def test_error_comes_back_as_the_exception_it_stands_for(peer: Peer[str]) -> None:
    peer.request("m", {}, "one")

    heard = peer.receive(jsonrpc.encode_error(100, MethodNotFound()))

    assert isinstance(heard, Answer)
    assert isinstance(heard.result, MethodNotFound)


def test_second_answer_is_dropped(peer: Peer[str]) -> None:
    peer.request("m", {}, "one")
    peer.receive(result(100))

    assert peer.receive(result(100)) == Dropped(100)
    assert peer.receive(jsonrpc.encode_error(100, RequestCancelled())) == Dropped(100)


@pytest.mark.parametrize("request_id", ["100", 99, 101, None, "", -100])
def test_answer_to_a_request_that_nobody_made_is_dropped(
    peer: Peer[str], request_id: object
) -> None:
    peer.request("m", {}, "one")

    assert isinstance(peer.receive(result(request_id)), Dropped)
    assert token_of(peer.receive(result(100))) == "one"


@pytest.mark.parametrize("request_id", [100.0, True, [100]])
def test_answer_whose_id_is_no_id_is_a_fault(peer: Peer[str], request_id: object) -> None:
    peer.request("m", {}, "one")

    assert reply_to(peer.receive(result(request_id)))["id"] is None
    assert peer.abandon() == ["one"]


def test_retracted_request_is_told_and_its_late_answer_dropped(peer: Peer[str]) -> None:
    request_id, _ = peer.request("m", {}, "one")

    retraction = peer.retract(request_id)

    assert retraction is not None
    assert json.loads(retraction) == {
        "jsonrpc": "2.0",
        "method": "$/cancel_request",
        "params": {"requestId": 100},
    }
    assert peer.receive(result(100)) == Dropped(100)


def test_request_that_was_answered_cannot_be_retracted(peer: Peer[str]) -> None:
    request_id, _ = peer.request("m", {}, "one")
    peer.receive(result(100))

    assert peer.retract(request_id) is None


def test_abandoned_requests_are_given_back_once(peer: Peer[str]) -> None:
    peer.request("m", {}, "one")
    peer.request("m", {}, "two")
    peer.receive(result(100))

    assert peer.abandon() == ["two"]
    assert peer.abandon() == []
    assert peer.receive(result(101)) == Dropped(101)


def test_ids_are_never_used_twice(peer: Peer[str]) -> None:
    made = [peer.request("m", {}, "t")[0] for _ in range(5)]
    peer.abandon()

    assert peer.request("m", {}, "t")[0] not in made


def test_requests_and_notifications_of_the_other_end_pass_through(peer: Peer[str]) -> None:
    assert isinstance(peer.receive(b'{"jsonrpc":"2.0","id":100,"method":"m"}'), Request)
    assert isinstance(peer.receive(b'{"jsonrpc":"2.0","method":"m"}'), Notification)


# ---- faults


@pytest.mark.parametrize(
    ("frame", "code", "request_id"),
    [
        (b"{", -32700, None),
        (b'{"jsonrpc":"2.0","id":5,"method":"m","params":{"x":NaN}}', -32700, None),
        (b'{"jsonrpc":"2.0","id":5,"method":"m","params":{"x":"\xff"}}', -32700, None),
        (rb'{"jsonrpc":"2.0","id":5,"method":"m","params":{"x":"\ud800"}}', -32700, None),
        (b"[]", -32600, None),
        (b'[{"jsonrpc":"2.0","id":5,"method":"m"}]', -32600, None),
        (b'{"jsonrpc":"1.0","id":5,"method":"m"}', -32600, 5),
        (b'{"jsonrpc":"1.0","id":"five","method":"m"}', -32600, "five"),
        (b'{"jsonrpc":"2.0","id":5,"method":7}', -32600, None),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"m"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":5,"error":"x"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":5}', -32600, None),
        (b"5", -32600, None),
    ],
)
def test_frame_that_is_no_message_has_a_reply(
    peer: Peer[str], frame: bytes, code: int, request_id: object
) -> None:
    reply = reply_to(peer.receive(frame))

    assert reply["id"] == request_id
    assert isinstance(reply["error"], dict)
    assert reply["error"]["code"] == code


def test_reply_to_a_fault_is_never_a_fault_to_the_other_end(peer: Peer[str]) -> None:
    heard = peer.receive(b"{")
    assert isinstance(heard, Fault)

    assert Peer[str]().receive(heard.reply) == Dropped(None)


def test_fault_leaves_open_requests_open(peer: Peer[str]) -> None:
    peer.request("m", {}, "one")
    peer.receive(b"{")

    heard = peer.receive(jsonrpc.encode_error(100, RpcError("no")))

    assert token_of(heard) == "one"
