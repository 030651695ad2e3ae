"""One frame in, one message out: what is read, what is refused, and how it is answered."""

import json
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec
import pytest

from moorage_protocol.errors import (
    InvalidRequest,
    NotFound,
    ParseError,
    RpcError,
)
from moorage_protocol.framing import MAX_FRAME_BYTES
from moorage_protocol.jsonrpc import (
    MAX_DEPTH,
    ErrorResponse,
    Notification,
    Request,
    Response,
    decode,
    encode_error,
    encode_notification,
    encode_request,
    encode_result,
    id_of,
)


def request(params: bytes = b"{}", request_id: bytes = b"1") -> bytes:
    return b'{"jsonrpc":"2.0","id":%b,"method":"m","params":%b}' % (request_id, params)


def read_request(frame: bytes) -> Request:
    message = decode(frame)
    assert isinstance(message, Request)
    return message


def nested(depth: int) -> bytes:
    """A request whose deepest bracket is at `depth`; its own object is the first."""
    return request(b"[" * (depth - 1) + b"]" * (depth - 1))


# ---- what is read


def test_request_is_read_with_its_params_unopened() -> None:
    message = read_request(b' {"jsonrpc":"2.0","id":7,"method":"m","params":{"a": [1, 2]}} \r')

    assert (message.id, message.method) == (7, "m")
    assert bytes(message.params) == b'{"a": [1, 2]}'


@pytest.mark.parametrize("params", [b"null", b" null "])
def test_params_null_are_params_that_are_absent(params: bytes) -> None:
    assert bytes(read_request(request(params)).params) == b"{}"
    assert bytes(read_request(b'{"jsonrpc":"2.0","id":1,"method":"m"}').params) == b"{}"


def test_call_without_an_id_is_a_notification_and_one_with_id_null_is_not() -> None:
    assert isinstance(decode(b'{"jsonrpc":"2.0","method":"m"}'), Notification)
    assert isinstance(decode(b'{"jsonrpc":"2.0","method":"m","id":null}'), Request)


def test_unknown_members_of_the_envelope_are_ignored() -> None:
    assert read_request(b'{"jsonrpc":"2.0","x":[{}],"id":1,"method":"m"}').method == "m"


def test_last_of_duplicate_keys_counts() -> None:
    message = read_request(
        b'{"jsonrpc":"1.0","jsonrpc":"2.0","method":"a","id":1,"method":"b","id":"x",'
        b'"params":5,"params":{"z":1}}'
    )

    assert (message.id, message.method, bytes(message.params)) == ("x", "b", b'{"z":1}')


@pytest.mark.parametrize("result", [b"null", b"{}", b"[]", b"5", b'"x"'])
def test_response_carries_any_result(result: bytes) -> None:
    message = decode(b'{"jsonrpc":"2.0","id":3,"result":%b}' % result)

    assert isinstance(message, Response)
    assert (message.id, bytes(message.result)) == (3, result)


def test_response_with_result_and_error_is_an_error() -> None:
    frame = b'{"id":3,"result":1,"error":{"code":-32603,"message":"x"}}'

    assert isinstance(decode(frame), ErrorResponse)


def test_error_response_with_id_null_is_read_for_somebody_to_drop() -> None:
    message = decode(b'{"id":null,"error":{"code":-32601,"message":"no","data":[1]}}')

    assert isinstance(message, ErrorResponse)
    assert (message.id, message.error.code) == (None, -32601)


def test_peer_that_leaves_the_version_out_of_a_response_is_understood() -> None:
    assert isinstance(decode(b'{"id":3,"result":{}}'), Response)


# ---- ids


@pytest.mark.parametrize(
    "request_id",
    [
        b"0", b"-1", b"1", b'"1"', b'"0"', b'""', b"null", b"9007199254740992",
        b"-9007199254740992", b'"1c6e7a2e-6a1c-4f0e-9a66-9d1d3b8a4f10"',
        b'"' + b"x" * 256 + b'"', b'"' + "é".encode() * 128 + b'"',
    ],
)  # fmt: skip
def test_answer_gives_an_id_back_in_type_and_value(request_id: bytes) -> None:
    answer = encode_result(read_request(request(request_id=request_id)).id, {})

    assert b'"id":%b,' % request_id in answer


@pytest.mark.parametrize(
    "request_id",
    [
        b"true", b"1.5", b"1.0", b"1e3", b"[]", b"{}", b"9007199254740993", b"-9007199254740993",
        b"9" * 400, b'"' + b"x" * 257 + b'"', b'"' + "é".encode() * 129 + b'"',
    ],
)  # fmt: skip
def test_other_ids_are_refused_and_never_sent_back(request_id: bytes) -> None:
    frame = request(request_id=request_id)

    with pytest.raises(InvalidRequest, match="id"):
        decode(frame)
    assert id_of(frame) is None


def test_broken_response_has_no_id_that_could_be_answered() -> None:
    assert id_of(b'{"jsonrpc":"2.0","id":4,"error":"not an object"}') is None


# ---- what is refused


NO_JSON = {
    "nothing": b"",
    "blank": b" ",
    "half": b'{"jsonrpc":"2.0"',
    "two values": b'{"jsonrpc":"2.0","method":"m"} {}',
    "byte order mark": b'\xef\xbb\xbf{"jsonrpc":"2.0","method":"m"}',
    "not UTF-8": request(b'{"x":"\xff"}'),
    "overlong UTF-8": request(b'{"x":"\xc0\xaf"}'),
    "surrogate in UTF-8": request(b'{"x":"\xed\xa0\x80"}'),
    "not UTF-8 in a member nobody reads": b'{"jsonrpc":"2.0","id":1,"method":"m","x":"\xfe"}',
    "NaN": request(b'{"x":NaN}'),
    "Infinity": request(b'{"x":Infinity}'),
    "minus Infinity": request(b'{"x":-Infinity}'),
    "raw control character": request(b'{"x":"a\x01b"}'),
    "leading zero": request(b'{"x":01}'),
    "plus sign": request(b'{"x":+1}'),
    "bare point": request(b'{"x":.5}'),
    "comment": request(b'{"x":/* */1}'),
    "trailing comma": request(b'{"x":1,}'),
    "single quotes": request(b"{'x':1}"),
    "number as a key": request(b"{1:2}"),
    "unknown escape": request(rb'{"x":"\q"}'),
    "lone high surrogate": request(rb'{"x":"\ud83d"}'),
    "lone low surrogate": request(rb'{"x":"\ude00"}'),
    "upper case lone surrogate": request(rb'{"x":"\uD83D"}'),
    "halves in the wrong order": request(rb'{"x":"\ude00\ud83d"}'),
    "halves apart": request(rb'{"x":"\ud83d \ude00"}'),
    "backslash between halves": request(rb'{"x":"\ud83d\\\ude00"}'),
    "high half twice": request(rb'{"x":"\ud83d\ud83d\ude00"}'),
    "low half twice": request(rb'{"x":"\ud83d\ude00\ude00"}'),
    "lone surrogate in a key": request(rb'{"\ud83d":1}'),
    "lone surrogate behind a backslash": request(rb'{"x":"\\\ud83d"}'),
    "lone surrogate in an id": request(request_id=rb'"\ud83d"'),
    "lone surrogate in the method": rb'{"jsonrpc":"2.0","id":1,"method":"\ud83d"}',
}


@pytest.mark.parametrize("frame", NO_JSON.values(), ids=NO_JSON)
def test_text_that_is_no_json_is_a_parse_error(frame: bytes) -> None:
    with pytest.raises(ParseError):
        decode(frame)


NO_REQUEST = {
    "empty batch": b"[]",
    "batch": b'[{"jsonrpc":"2.0","id":1,"method":"m"}]',
    "batch behind blanks": b" \t[1]",
    "number": b"5",
    "string": b'"m"',
    "null": b"null",
    "no members": b"{}",
    "no version": b'{"id":1,"method":"m"}',
    "old version": b'{"jsonrpc":"1.0","id":1,"method":"m"}',
    "version as a number": b'{"jsonrpc":2.0,"id":1,"method":"m"}',
    "method as a number": b'{"jsonrpc":"2.0","id":1,"method":5}',
    "method null": b'{"jsonrpc":"2.0","id":1,"method":null}',
    "only an id": b'{"jsonrpc":"2.0","id":1}',
    "only a result": b'{"jsonrpc":"2.0","result":1}',
    "error as text": b'{"jsonrpc":"2.0","id":1,"error":"x"}',
    "error null": b'{"jsonrpc":"2.0","id":1,"error":null}',
    "error without a code": b'{"jsonrpc":"2.0","id":1,"error":{"message":"x"}}',
    "error code as text": b'{"jsonrpc":"2.0","id":1,"error":{"code":"x"}}',
}


@pytest.mark.parametrize("frame", NO_REQUEST.values(), ids=NO_REQUEST)
def test_json_that_is_no_message_is_an_invalid_request(frame: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode(frame)


@pytest.mark.parametrize("frame", [b"[]", b" [{}]", b"[" + request() + b"," + request() + b"]"])
def test_batch_is_refused_as_a_whole_in_so_many_words(frame: bytes) -> None:
    with pytest.raises(InvalidRequest, match="Batches are not supported"):
        decode(frame)
    assert id_of(frame) is None


def test_refusal_names_the_member_and_nothing_else() -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(b'{"jsonrpc":"2.0","id":1,"method":{"secret":"value"}}')

    assert caught.value.message == "Invalid request: method"


def test_surrogate_pairs_and_escaped_backslashes_are_plain_text() -> None:
    params = rb'{"x":"\ud83d\ude00\uD83D\uDE00","y":"\\ud83d","z":"\\\\\ud83d\ude00"}'

    assert json.loads(bytes(read_request(request(params)).params)) == {
        "x": "😀😀",
        "y": r"\ud83d",
        "z": r"\\" + "😀",
    }


# ---- depth


def test_nesting_up_to_the_limit_is_read_and_one_more_is_not() -> None:
    assert read_request(nested(MAX_DEPTH)).method == "m"

    with pytest.raises(InvalidRequest, match="64"):
        decode(nested(MAX_DEPTH + 1))


@pytest.mark.parametrize(
    ("opening", "closing", "levels"),
    [
        (b"[", b"]", 1),
        (b'{"a":', b"}", 1),
        (b'{"a":[', b"]}", 2),
        (b' [ {} , "" , ', b" , [] ] ", 1),
        (b'["]",', b"]", 1),
        (rb'["\"[",', b"]", 1),
        (rb'["\\",', b"]", 1),
        (rb'["\\\"{",', b"]", 1),
    ],
)
def test_depth_is_that_of_the_brackets_outside_strings(
    opening: bytes, closing: bytes, levels: int
) -> None:
    steps = (MAX_DEPTH - 2) // levels  # the request is one level, the array in the middle another

    def frame(steps: int) -> bytes:
        return request(opening * steps + b"[]" + closing * steps)

    assert read_request(frame(steps)).id == 1
    with pytest.raises(InvalidRequest, match="Nesting"):
        decode(frame(steps + 1))


def test_many_brackets_side_by_side_are_not_deep() -> None:
    wide = b"[" + b",".join([b'{"a":[1,{"b":"]]]{{"}]}'] * 5000) + b"]"

    assert read_request(request(wide)).id == 1


def test_brackets_in_strings_are_text() -> None:
    assert read_request(request(b'{"x":"%b"}' % (b"[" * 1000))).id == 1


@pytest.mark.parametrize("where", [0, 2**16 - 9, 2**16, 2**17 + 1])
def test_depth_is_found_wherever_it_is_in_a_long_frame(where: int) -> None:
    text = b"\\\\" * (where // 2) + b"x" * (where % 2)

    def frame(depth: int) -> bytes:
        return request(b'{"t":"%b","x":%b}' % (text, b"[" * (depth - 2) + b"]" * (depth - 2)))

    assert read_request(frame(MAX_DEPTH)).id == 1
    with pytest.raises(InvalidRequest, match="Nesting"):
        decode(frame(MAX_DEPTH + 1))


# ---- cost


SIZE = 2**20


def fill(pattern: bytes) -> bytes:
    return pattern * (SIZE // len(pattern))


HOSTILE: dict[str, Callable[[], bytes]] = {
    "deep": lambda: request(b"[" * SIZE),
    "deep and closed": lambda: request(b"[" * (SIZE // 2) + b"]" * (SIZE // 2)),
    "deep objects": lambda: request(fill(b'{"a":')),
    "as deep as may be, often": lambda: request(b"[" + fill(b"[" * 60 + b"]" * 60 + b",") + b"[]]"),
    "empty arrays": lambda: request(b"[" + fill(b"[],") + b"[]]"),
    "empty strings": lambda: request(b"[" * 50 + b"]" * 49 + fill(b',""') + b",[],[],[],[]]"),
    "small objects": lambda: request(b"[" + fill(b'{"a":[1,2,3]},') + b"[]]"),
    "quotes": lambda: request(b"[" * 70 + b'"' * SIZE),
    "unterminated string": lambda: request(b"[" * 70 + b'"' + fill(b'\\"')),
    "backslashes": lambda: request(b"[" * 70 + b'"' + b"\\" * SIZE),
    "surrogate pairs": lambda: request(b'"' + fill(rb"\ud83d\ude00") + b'"'),
    "escapes behind a surrogate": lambda: request(b'"\\ud83d\\ude00' + fill(rb"\n") + b'"'),
    "long id": lambda: request(request_id=b'"' + b"x" * SIZE + b'"'),
    "long number": lambda: request(request_id=b"9" * SIZE),
    "blanks": lambda: b" " * SIZE + b"[",
    "members": lambda: request(b"{" + fill(b'"a":1,') + b'"a":1}'),
    "bad number": lambda: request(b"-" * SIZE),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_time_grows_with_a_frame_and_not_faster(name: str) -> None:
    frame = HOSTILE[name]()
    assert SIZE // 2 < len(frame) <= MAX_FRAME_BYTES

    start = time.process_time()
    with suppress(RpcError):
        decode(frame)
    id_of(frame)
    spent = time.process_time() - start

    assert spent < 2  # seconds of this process; it takes 0.04 at most, and minutes if quadratic


# ---- what is written


TEXT = "a\nb\u2028c\r\u0085\x00 😀"


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (encode_request(5, "m", {"t": TEXT}), {"id": 5, "method": "m", "params": {"t": TEXT}}),
        (encode_notification("m", {"t": TEXT}), {"method": "m", "params": {"t": TEXT}}),
        (encode_result("x", {"t": TEXT}), {"id": "x", "result": {"t": TEXT}}),
        (
            encode_error(1, NotFound(TEXT)),
            {
                "id": 1,
                "error": {
                    "code": -32002,
                    "message": TEXT,
                    "data": {"code": "not_found", "retryable": False},
                },
            },
        ),
    ],
)
def test_message_is_written_as_one_line_of_json(frame: bytes, message: dict[str, object]) -> None:
    assert b"\n" not in frame
    assert b"\r" not in frame
    assert json.loads(frame) == {"jsonrpc": "2.0", **message}
    decode(frame)


def test_id_null_is_written_out() -> None:
    assert b'"id":null' in encode_result(None, {})
    assert b'"id":null' in encode_error(None, ParseError())


def test_raw_params_and_results_are_written_as_they_are() -> None:
    raw = msgspec.Raw(b'{"a": 1}')

    assert encode_request(1, "m", raw).endswith(b'"params":{"a": 1}}')
    assert encode_result(1, raw) == b'{"jsonrpc":"2.0","id":1,"result":{"a": 1}}'


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r", b" \n\t"])
def test_what_was_written_on_several_lines_stays_on_one(end: bytes) -> None:
    """Raw values go out again, on streams too that are cut at line ends."""
    params = b'{"a":[1.0e3,"\\n"],"b":{}}'
    spread = params.replace(b"{", b"{" + end).replace(b",", end + b"," + end)
    frame = b'{"jsonrpc":"2.0",%b"id":1,"method":"m","params":%b}%b' % (end, spread, end)

    assert bytes(read_request(frame).params) == params


@pytest.mark.parametrize("inside", [b"\n", b"\r", b"\r\n"])
def test_a_line_end_inside_a_string_is_no_json(inside: bytes) -> None:
    with pytest.raises(ParseError):
        decode(request(b'{"a":"x%by"}' % inside))
