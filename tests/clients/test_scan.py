"""The scanner says of a message what a JSON decoder would, and nothing of what is no JSON."""

import json
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from moorage_clients.bridge.frames import Kind, read, with_ours
from moorage_clients.bridge.framing import MAX_FRAME_BYTES
from moorage_clients.bridge.scan import Unreadable, Wanted, fields


WANTED: Wanted = {
    b"id": {},
    b"params": {b"sessionId": {}, b"_meta": {b"seq": {}}},
    b"x\xc3\xbc": {},
}

NAMES = st.sampled_from(["id", "params", "sessionId", "_meta", "seq", "xü", "other", 'q"\\', "}]"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=5)
FORMS: list[dict[str, Any]] = [
    {},
    {"separators": (",", ":")},
    {"indent": 1},
    {"ensure_ascii": False, "separators": (" ,\t", "\r\n: ")},
]


def paths(value: Any, wanted: Wanted, before: str = "") -> dict[str, Any]:
    """What should be found, taken from the decoded value."""
    found: dict[str, Any] = {}
    for key, inner in wanted.items():
        name = key.decode()
        if isinstance(value, dict) and name in value:
            found[before + name] = value[name]
            found |= paths(value[name], inner, f"{before}{name}.")
    return found


@given(OBJECTS, st.sampled_from(FORMS))
@settings(max_examples=300, deadline=None)
def test_wanted_fields_are_found_with_their_values(value: Any, form: dict[str, Any]) -> None:
    data = json.dumps(value, **form).encode("utf-8", "surrogatepass")

    found = fields(data, WANTED)

    assert {p: json.loads(data[slice(*s)]) for p, s in found.items()} == paths(value, WANTED)


@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:\\ a1\n', max_size=40).map(str.encode))
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_an_object_or_unreadable(data: bytes) -> None:
    try:
        json.loads(data.decode())
        is_object = data.lstrip(b" \t\r\n")[:1] == b"{"
    except (ValueError, RecursionError):
        is_object = False

    try:
        fields(data, WANTED)
    except Unreadable:
        assert not is_object
    assert read(data).kind in Kind


def test_of_a_field_that_is_there_twice_the_last_one_counts() -> None:
    data = (
        b'{"params":{"sessionId":"a","_meta":{"seq":1}},"params":{"_meta":{}},"id":1,"\\u0069d":2}'
    )

    found = fields(data, WANTED)

    assert sorted(found) == ["id", "params", "params._meta"]
    assert data[slice(*found["id"])] == b"2"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b'{"a":1} x',
        b'{"a" 1}',
        b'{"a":}',
        b'{"a":1,}',
        b'{"a":"x}',
        b'{"a":[1}',
        b'{"\\ud800":1}',
        b'{"a":' + b"[" * 100_000,
    ],
    ids=lambda data: repr(data[:20]),
)
def test_what_is_no_object_is_unreadable(data: bytes) -> None:
    with pytest.raises(Unreadable):
        fields(data, WANTED)


# ---- frames


def line(**message: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **message}, separators=(",", ":")).encode()


def streamed(update: Any, **mark: int) -> bytes:
    """An update as the daemon writes it."""
    params = {"sessionId": "s1", "update": update, "_meta": {"moorage": mark}}
    return line(method="session/update", params=params)


DECEPTIVE = 'x"},"_meta":{"moorage":{"seq":7}}}}'


@pytest.mark.parametrize(
    "update",
    [
        {"text": "hello"},
        {"text": DECEPTIVE},
        {"_meta": {"moorage": {"seq": 7}}},
        {"content": {"_meta": {"moorage": {"seq": 7}}}},
        {},
    ],
    ids=str,
)
def test_number_of_an_update_is_its_own(update: Any) -> None:
    """And never one that stands somewhere in what the agent said."""
    for mark in ({"seq": 12}, {"seq": 12, "generation": 3}, {"seq": 12, "more": 1}):
        frame = read(streamed(update, **mark))

        assert (frame.kind, frame.method) == (Kind.NOTIFICATION, "session/update")
        assert (frame.session, frame.seq) == ("s1", 12)
    assert (
        read(line(method="session/update", params={"sessionId": "s", "update": update})).seq is None
    )


@pytest.mark.parametrize("request_id", [0, 1, -7, "1", "ü", "", None, 2**53], ids=repr)
def test_id_is_the_same_however_it_is_written(request_id: Any) -> None:
    request = read(json.dumps({"id": request_id, "method": "x"}).encode())
    answer = read(json.dumps({"result": 1, "id": request_id}, ensure_ascii=False).encode())

    assert request.id is not None
    assert request.id == answer.id
    assert json.loads(request.id) == request_id
    assert (request.kind, answer.kind) == (Kind.REQUEST, Kind.RESPONSE)


def test_number_and_string_are_not_the_same_id() -> None:
    assert read(line(id=1, method="x")).id != read(line(id="1", method="x")).id


@pytest.mark.parametrize(
    "data", [b'{"id":1}', b'{"id":{},"method":"x"}', b"{}", b'{"id":1.5,"method":"x"}']
)
def test_what_is_no_message_is_left_to_the_daemon(data: bytes) -> None:
    assert read(data).kind is Kind.OTHER


# ---- adding a field


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"sessionId": "s"},
        {"_meta": {}, "sessionId": "s"},
        {"_meta": {"other": {"moorage": 1}}},
        {"_meta": {"moorage": {}, "other": 2}},
        {"_meta": {"moorage": {"onBusy": "queue"}}},
    ],
    ids=str,
)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_field_is_added_and_all_else_stays(params: Any, form: dict[str, Any]) -> None:
    message = {"id": 1, "method": "session/prompt", "params": params}
    frame = read(json.dumps(message, **form).encode())

    found = with_ours(frame, "promptId", 'p"1')

    meta = params.get("_meta", {})
    ours = {**meta.get("moorage", {}), "promptId": 'p"1'}
    wanted = {**params, "_meta": {**meta, "moorage": ours}}
    assert json.loads(found.data) == {**message, "params": wanted}
    assert found.value("params._meta.moorage.promptId") == 'p"1'
    assert with_ours(found, "promptId", "p2") is found


def test_malformed_meta_is_as_good_as_none_and_malformed_moorage_stays() -> None:
    odd = [read(line(id=1, method="m", params={"_meta": meta})) for meta in (7, {"moorage": 7})]

    found = [json.loads(with_ours(frame, "promptId", "p").data)["params"] for frame in odd]

    assert found == [{"_meta": {"moorage": {"promptId": "p"}}}, {"_meta": {"moorage": 7}}]


def test_frame_that_would_get_too_long_stays_as_it_is() -> None:
    frame = read(line(id=1, method="session/prompt", params={"text": "x" * (MAX_FRAME_BYTES - 90)}))

    assert with_ours(frame, "promptId", "p" * 60) is frame
