"""Whatever bytes come, reading them gives a message or one of our errors, and nothing else."""

import json
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings, strategies as st

from moorage_protocol import jsonrpc, lenient
from moorage_protocol.acp import ContentBlock, ListParams, LoadParams, PermissionResult
from moorage_protocol.errors import InvalidParams, RpcError
from moorage_protocol.framing import StreamFramer, join_lines, join_with_headers
from moorage_protocol.jsonrpc import ErrorResponse, Message, Notification, Request, Response
from moorage_protocol.moorage import (
    AttachParams,
    CancelParams,
    ConfigureParams,
    EntriesParams,
    InitializeParams,
    KillParams,
    NewParams,
    PromptParams,
    TurnsParams,
)
from moorage_protocol.peer import Answer, Dropped, Fault, Peer


class Content(msgspec.Struct):
    block: ContentBlock


SHAPES: list[type[Any]] = [
    AttachParams,
    CancelParams,
    ConfigureParams,
    Content,
    EntriesParams,
    InitializeParams,
    KillParams,
    ListParams,
    LoadParams,
    NewParams,
    PermissionResult,
    PromptParams,
    TurnsParams,
]

# Members as the shapes know them, so that most of a random object means something.
KEYS = st.sampled_from([
    "jsonrpc", "id", "method", "params", "result", "error", "code", "message", "data", "_meta",
    "moorage", "sessionId", "cwd", "prompt", "type", "text", "outcome", "optionId", "overrides",
    "temperature", "mode", "generation", "scope", "afterSeq", "protocolVersion", "mcpServers",
    "clientCapabilities", "clientInfo", "fs", "name", "labels", "limit", "kinds",
    "a.b", "a`b", "[0]",
])  # fmt: skip
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["2.0", "text", "selected", "cancelled", "code", "chat", "all"]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=4), inner, max_size=6)
    ),
    max_leaves=24,
)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Something close to a message."""
    members = {
        "jsonrpc": st.just("2.0") | LEAVES,
        "id": LEAVES,
        "method": st.text(max_size=8) | LEAVES,
        "params": VALUES,
        "result": VALUES,
        "error": st.fixed_dictionaries({"code": LEAVES, "message": LEAVES}) | VALUES,
    }
    kept = draw(st.sets(st.sampled_from(sorted(members))))
    value = {key: draw(members[key]) for key in sorted(kept)}
    escaped = draw(st.booleans())
    return json.dumps(value, ensure_ascii=escaped).encode("utf-8", "surrogatepass")


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A message after something happened to it on the way."""
    frame = bytearray(draw(messages()))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(frame)))
        end = draw(st.integers(at, min(len(frame), at + 8)))
        frame[at:end] = draw(
            st.binary(max_size=6) | st.sampled_from([b"\\ud800", b"[", b'"', b"NaN"])
        )
    return bytes(frame)


FRAMES = st.one_of(messages(), damaged(), st.binary(max_size=200))

# How long an example takes on a busy machine, the first above all, says nothing about our code.
fuzz = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def read(frame: bytes) -> Message | RpcError:
    try:
        return jsonrpc.decode(frame)
    except RpcError as error:
        return error


@fuzz
@given(FRAMES)
def test_decoding_gives_a_message_or_one_of_our_errors(frame: bytes) -> None:
    message = read(frame)
    jsonrpc.id_of(frame)

    if not isinstance(message, RpcError):
        json.loads(frame)  # what we accept is JSON to others too


@fuzz
@given(FRAMES)
def test_id_that_is_sent_back_is_one_that_the_frame_had(frame: bytes) -> None:
    heard = Peer[str]().receive(frame)

    if isinstance(heard, Fault):
        request_id = json.loads(heard.reply)["id"]
        assert request_id is None or json.loads(frame)["id"] == request_id


@fuzz
@given(FRAMES, st.sampled_from(SHAPES))
def test_params_have_their_shape_or_are_invalid_params(frame: bytes, shape: type[Any]) -> None:
    message = read(frame)
    raw = message.params if isinstance(message, Request | Notification) else frame
    try:
        value = lenient.decode(raw, shape)
    except InvalidParams:
        return

    assert isinstance(value, shape)
    json.loads(msgspec.json.encode(value))


@fuzz
@given(st.lists(FRAMES, max_size=5))
def test_peer_says_of_every_frame_what_it_is(frames: list[bytes]) -> None:
    peer: Peer[str] = Peer(first_id=1)
    peer.request("m", {}, "token")

    for frame in frames:
        heard = peer.receive(frame)

        assert isinstance(heard, Request | Notification | Answer | Dropped | Fault)
        if isinstance(heard, Fault):
            reply = jsonrpc.decode(heard.reply)
            assert isinstance(reply, ErrorResponse)
            assert reply.error.code in (-32700, -32600)


@fuzz
@given(VALUES, st.integers(-(2**53), 2**53) | st.text(max_size=64) | st.none())
def test_what_is_written_is_read_back(value: Any, request_id: jsonrpc.RequestId) -> None:
    raw = msgspec.Raw(json.dumps(value, allow_nan=True).encode())
    for frame in (
        jsonrpc.encode_request(request_id, "m", raw),
        jsonrpc.encode_notification("m", raw),
        jsonrpc.encode_result(request_id, raw),
    ):
        message = read(frame)
        if isinstance(message, RpcError):
            assert not _is_plain(raw)
        elif isinstance(message, Response):
            assert (message.id, bytes(message.result)) == (request_id, bytes(raw))
        elif isinstance(message, Request | Notification):
            assert bytes(message.params) in (bytes(raw), b"{}")


def _is_plain(raw: msgspec.Raw) -> bool:
    """Whether a value is JSON that every peer can read."""
    text = bytes(raw).decode()
    if any(word in text for word in ("NaN", "Infinity")):
        return False
    try:
        json.dumps(json.loads(text), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


# What a stream framed by headers is made of, right and wrong.
PIECES = st.one_of(
    st.binary(max_size=12),
    st.sampled_from([
        b"Content-Length: 2", b"content-length:9", b"Content-Length: 0", b"Content-Length: 41",
        b"Content-Type: x", b"\r\n\r\n", b"\r\n", b"{}", b'{"a":1}', b"}", b"\n", b"x" * 300,
        b"x" * 4090,
    ]),
)  # fmt: skip


@fuzz
@given(
    st.lists(PIECES, max_size=20).map(b"".join)
    | st.lists(st.binary(max_size=40), max_size=8).map(join_lines)
    | st.lists(st.binary(max_size=40), max_size=8).map(join_with_headers),
    st.sampled_from([b"", b"C"]),
    st.integers(1, 40),
    st.lists(st.integers(0, 5000), max_size=8),
)
def test_framing_does_not_depend_on_how_the_stream_is_cut(
    stream: bytes, first: bytes, limit: int, cuts: list[int]
) -> None:
    stream = first + stream
    whole, pieces = StreamFramer(limit), StreamFramer(limit)

    expected = whole.receive(stream)
    places = sorted({0, len(stream), *(at for at in cuts if at < len(stream))})
    found = [
        frame for start, end in pairwise(places) for frame in pieces.receive(stream[start:end])
    ]

    assert found == expected
