"""The error tree: its codes, and what goes over the wire of it."""

import json

import msgspec
import pytest

from moorage_protocol import errors
from moorage_protocol.errors import (
    ErrorObject,
    RpcError,
    SessionState,
    Stopping,
    TurnFailed,
    from_object,
)


# Numbers that clients act on; JSON-RPC 2.0 and the Agent Client Protocol give the -32 ones.
CODES = {
    "ParseError": -32700,
    "InvalidRequest": -32600,
    "MethodNotFound": -32601,
    "InvalidParams": -32602,
    "InternalError": -32603,
    "AuthRequired": -32000,
    "NotFound": -32002,
    "RequestCancelled": -32800,
    "SessionLimit": -31001,
    "QueueFull": -31002,
    "Busy": -31003,
    "NotPermitted": -31004,
    "SessionState": -31005,
    "GrantRefused": -31006,
    "StorageError": -31007,
    "Overloaded": -31008,
    "TurnFailed": -31009,
    "CursorExpired": -31010,
}


def test_stopping_daemon_is_told_from_other_states_and_worth_another_try() -> None:
    received = from_object(Stopping().to_object())

    assert isinstance(received, SessionState)
    assert (received.code, received.kind, received.retryable) == (-31005, "stopping", True)


def kinds() -> list[type[RpcError]]:
    return RpcError.__subclasses__()


def test_every_error_has_the_code_that_clients_know() -> None:
    assert {kind.__name__: kind.code for kind in kinds()} == CODES


def test_every_error_stands_in_the_tree_of_the_docstring() -> None:
    for kind in kinds():
        [line] = [line for line in str(errors.__doc__).splitlines() if f" {kind.__name__} " in line]
        assert str(kind.code) in line


@pytest.mark.parametrize("kind", kinds())
def test_error_survives_the_wire(kind: type[RpcError]) -> None:
    sent = kind("what happened")

    received = from_object(
        msgspec.json.decode(msgspec.json.encode(sent.to_object()), type=ErrorObject)
    )

    assert type(received) is kind
    assert received.message == str(received) == "what happened"
    assert (received.code, received.kind, received.retryable) == (
        kind.code,
        kind.kind,
        kind.retryable,
    )


@pytest.mark.parametrize("kind", kinds())
def test_data_is_exactly_a_word_and_whether_to_try_again(kind: type[RpcError]) -> None:
    written = json.loads(msgspec.json.encode(kind().to_object()))

    assert written == {
        "code": kind.code,
        "message": kind.summary,
        "data": {"code": kind.kind, "retryable": kind.retryable},
    }


def test_kind_of_a_failed_turn_survives_the_wire() -> None:
    received = from_object(TurnFailed(kind="provider_rate").to_object())

    assert isinstance(received, TurnFailed)
    assert received.kind == "provider_rate"


def test_failure_of_a_provider_is_said_in_words() -> None:
    assert TurnFailed(kind="provider_auth").message.startswith("The model provider does not accept")
    assert TurnFailed(kind="tool").message == "The turn failed"


@pytest.mark.parametrize(
    ("kind", "retryable"),
    [
        ("provider_auth", False),
        ("provider_rate", True),
        ("provider_unavailable", True),
        ("provider_protocol", False),
        ("provider_timeout", True),
        ("internal", False),
    ],
)
def test_failure_of_a_turn_says_whether_trying_again_can_help(kind: str, retryable: bool) -> None:
    assert TurnFailed(kind=kind).retryable is retryable
    assert from_object(TurnFailed(kind=kind).to_object()).retryable is retryable


def test_kind_of_one_error_is_not_that_of_the_next() -> None:
    TurnFailed(kind="tool")

    assert TurnFailed().kind == "agent_failed"


def test_unknown_code_stays_what_it_is() -> None:
    received = from_object(ErrorObject(-1234, "strange"))

    assert type(received) is RpcError
    assert (received.code, received.message) == (-1234, "strange")
    assert received.to_object().code == -1234


@pytest.mark.parametrize("data", [b"null", b"5", b'"x"', b'{"details":"x"}', b'{"code":5}', b"[]"])
def test_data_of_another_program_is_left_alone(data: bytes) -> None:
    received = from_object(ErrorObject(-32601, "no", msgspec.Raw(data)))

    assert received.kind == "method_not_found"


def test_error_without_a_message_has_the_usual_one() -> None:
    assert from_object(ErrorObject(-32601)).message == "Method not found"
