"""Frames that are none, over real sockets and pipes: each has its answer, and life goes on."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage_protocol.framing import MAX_FRAME_BYTES
from tests.e2e.daemons import running
from tests.e2e.streams import Framing, Headers, Json, Lines, Stream, over_stdio, over_unix


@pytest.fixture(scope="module")
def unix() -> Iterator[Path]:
    """The socket of a daemon; in the end, no frame was a bug to it."""
    with tempfile.TemporaryDirectory(prefix="moorage-") as path:
        with running(Path(path) / "state") as daemon:
            yield daemon.unix
            assert daemon.stop() == 0
            log = daemon.log.read_text()
            assert "Traceback" not in log
            assert " ERROR " not in log


@pytest.fixture(scope="module", params=[Lines, Headers])
def framing(request: pytest.FixtureRequest) -> Framing:
    framing: Framing = request.param()
    return framing


@pytest.fixture(scope="module", params=["unix", "stdio"])
def stream(request: pytest.FixtureRequest, framing: Framing) -> Iterator[Stream]:
    """One connection that has to live through it all."""
    if request.param == "unix":
        with over_unix(request.getfixturevalue("unix"), framing) as connected:
            connected.introduce()
            yield connected
        return
    with over_stdio(framing) as alone:
        alone.stream.introduce()
        yield alone.stream
        alone.stream.end()
        assert alone.stream.rest() == []
        code, errors = alone.left()
        assert code == 0
        assert "Traceback" not in errors


def request(
    request_id: bytes = b"1", params: bytes = b"{}", method: bytes = b'"_moorage/status"'
) -> bytes:
    return b'{"jsonrpc":"2.0","id":%b,"method":%b,"params":%b}' % (request_id, method, params)


def nested(depth: int) -> bytes:
    """A request whose deepest bracket is at `depth`; its own object is the first."""
    return request(params=b'{"x":' + b"[" * (depth - 2) + b"]" * (depth - 2) + b"}")


PARSE, INVALID, METHOD, PARAMS = -32700, -32600, -32601, -32602
OK = None

ANSWERED = {
    "no JSON": (b"{", PARSE, None),
    "a word": (b"hello", PARSE, None),
    "two objects": (b"{}{}", PARSE, None),
    "single quotes": (b"{'a':1}", PARSE, None),
    "a trailing comma": (b'{"a":1,}', PARSE, None),
    "a bare NUL": (b"\x00", PARSE, None),
    "a byte order mark": (b"\xef\xbb\xbf" + request(), PARSE, None),
    "no UTF-8": (b"\xff\xfe", PARSE, None),
    "no UTF-8 in a string nobody reads": (request(params=b'{"x":"\xff"}'), PARSE, None),
    "an overlong character": (request(params=b'{"x":"\xc0\xaf"}'), PARSE, None),
    "a surrogate in UTF-8": (request(params=b'{"x":"\xed\xa0\x80"}'), PARSE, None),
    "a lone surrogate": (request(params=b'{"x":"\\ud800"}'), PARSE, None),
    "a lone surrogate in a key": (request(params=b'{"\\udfff":1}'), PARSE, None),
    "a lone surrogate as id": (request(b'"\\ud800"'), PARSE, None),
    "a raw control character": (request(params=b'{"x":"\x01"}'), PARSE, None),
    "a form feed behind": (request() + b"\x0c", PARSE, None),
    "a vertical tab before": (b"\x0b" + request(), PARSE, None),
    "a vertical tab alone": (b"\x0b", PARSE, None),
    "not a number": (request(params=b'{"x":NaN}'), PARSE, None),
    "infinity": (request(params=b'{"x":Infinity}'), PARSE, None),
    "less than infinity": (request(params=b'{"x":[-Infinity]}'), PARSE, None),
    "a leading zero": (request(params=b'{"x":01}'), PARSE, None),
    "an empty batch": (b"[]", INVALID, None),
    "a batch": (b"[" + request() + b"," + request(b"2") + b"]", INVALID, None),
    "a batch of a thousand": (b"[" + b",".join([request()] * 1000) + b"]", INVALID, None),
    "a number": (b"5", INVALID, None),
    "a string": (b'"hello"', INVALID, None),
    "null": (b"null", INVALID, None),
    "an empty object": (b"{}", INVALID, None),
    "64 levels": (nested(64), OK, 1),
    "65 levels": (nested(65), INVALID, 1),
    "1,000 brackets": (b"[" * 1000, INVALID, None),
    "100,000 brackets": (b'{"a":' * 100_000, INVALID, None),
    "an id of 256 bytes": (request(b'"%b"' % (b"x" * 256)), OK, "x" * 256),
    "an id of 257 bytes": (request(b'"%b"' % (b"x" * 257)), INVALID, None),
    "an id of 129 wide characters": (request('"{}"'.format("é" * 129).encode()), INVALID, None),
    "the largest id": (request(b"%d" % 2**53), OK, 2**53),
    "an id too large": (request(b"%d" % (2**53 + 1)), INVALID, None),
    "the smallest id": (request(b"-%d" % 2**53), OK, -(2**53)),
    "an id too small": (request(b"-%d" % (2**53 + 1)), INVALID, None),
    "an id of 5,000 digits": (request(b"9" * 5000), INVALID, None),
    "a fraction as id": (request(b"1.5"), INVALID, None),
    "a truth as id": (request(b"true"), INVALID, None),
    "an object as id": (request(b"{}"), INVALID, None),
    "null as id": (request(b"null"), OK, None),
    "an empty id": (request(b'""'), OK, ""),
    "no version": (b'{"id":1,"method":"_moorage/status"}', INVALID, 1),
    "another version": (b'{"jsonrpc":"1.0","id":1,"method":"_moorage/status"}', INVALID, 1),
    "a number as method": (request(method=b"5"), INVALID, None),
    "an unknown method": (request(method=b'"session/unheard_of"'), METHOD, 1),
    "an empty method": (request(method=b'""'), METHOD, 1),
    "params as a list": (request(params=b"[1]"), PARAMS, 1),
    "params as a string": (request(params=b'"x"'), PARAMS, 1),
    "keys that come twice": (
        b'{"jsonrpc":"1.0","id":7,"id":8,"method":"x","method":"_moorage/status","jsonrpc":"2.0"}',
        OK,
        8,
    ),
    "a second initialize": (
        request(method=b'"initialize"', params=b'{"protocolVersion":1}'),
        INVALID,
        1,
    ),
    "neither request nor answer": (b'{"jsonrpc":"2.0","id":1}', INVALID, None),
    "an error that is none": (b'{"jsonrpc":"2.0","id":1,"error":5}', INVALID, None),
    "a large frame of nonsense": (b"x" * 2**20, PARSE, None),
    "spaces around": (b" \t" + request() + b" \r", OK, 1),
}


@pytest.mark.parametrize("name", ANSWERED)
def test_bad_frame_has_its_answer_and_the_connection_lives(stream: Stream, name: str) -> None:
    frame, code, request_id = ANSWERED[name]

    stream.say(frame)

    answer = stream.hear()
    assert answer is not None
    assert answer["id"] == request_id
    assert type(answer["id"]) is type(request_id)
    assert answer.get("error", {}).get("code") == code
    if code is not OK:
        assert set(answer["error"]["data"]) == {"code", "retryable"}
        assert len(json.dumps(answer)) < 400  # nothing of the frame is sent back but its id
    assert "result" in stream.call("_moorage/status")


UNANSWERED = {
    "an unknown notification": b'"method":"session/unheard_of"',
    "a notification with the params of another": b'"method":"session/cancel","params":{}',
    "a request without its id": b'"method":"session/new","params":{"cwd":5}',
    "a cancel of nothing": b'"method":"$/cancel_request","params":{"requestId":9}',
    "a cancel that is none": b'"method":"$/cancel_request","params":[]',
    "an answer to nothing": b'"id":99,"result":{}',
    "an answer to an id that we never use": b'"id":"x","result":null',
    "an error to nothing": b'"id":99,"error":{"code":1,"message":"m"}',
    "an error without an id": b'"id":null,"error":{"code":-32700,"message":"m"}',
    "an answer that is both": b'"id":1,"result":1,"error":{"code":1,"message":"m","data":[1]}',
}


@pytest.mark.parametrize("name", UNANSWERED)
def test_what_is_no_request_has_no_answer(stream: Stream, name: str) -> None:
    stream.say(b'{"jsonrpc":"2.0",%b}' % UNANSWERED[name])

    stream.say(request(b'"next"'))
    answer = stream.hear()
    assert answer is not None
    assert answer["id"] == "next"


def test_frame_over_the_limit_is_told_once_and_skipped(stream: Stream) -> None:
    stream.say(b"x" * (MAX_FRAME_BYTES + 1))
    refusal = stream.hear()

    assert refusal is not None
    assert (refusal["id"], refusal["error"]["code"]) == (None, INVALID)
    assert str(MAX_FRAME_BYTES) in refusal["error"]["message"]
    assert "result" in stream.call("_moorage/status")


def test_frame_of_exactly_the_limit_is_read(stream: Stream) -> None:
    stream.say(request().ljust(MAX_FRAME_BYTES))

    assert (stream.hear() or {}).get("id") == 1


def test_blank_lines_are_nothing(unix: Path) -> None:
    with over_unix(unix, Lines()) as stream:
        stream.introduce()
        stream.send(b"\n\r\n \t\n\n")

        assert "result" in stream.call("_moorage/status")


BROKEN_HEADERS = {
    "no length": b"Content-Type: x\r\n\r\n",
    "an empty header": b"\r\n\r\n",
    "a length that is no number": b"Content-Length: many\r\n\r\n",
    "a negative length": b"Content-Length: -1\r\n\r\n",
    "a header without end": b"Content-Length" * 1000 + b"\r\n\r\n",
    "a frame without its length": b'Content-Type: x\r\n\r\n{"jsonrpc":"2.0"}',
    "a line": request() + b"\n",
}


@pytest.mark.parametrize("name", BROKEN_HEADERS)
@pytest.mark.parametrize("framing", [Headers], indirect=True)
def test_broken_header_is_told_once_and_the_next_frame_is_read(stream: Stream, name: str) -> None:
    stream.send(BROKEN_HEADERS[name])
    stream.say(request(b'"next"'))

    refusal, answer = stream.hear(), stream.hear()
    assert refusal is not None
    assert answer is not None
    assert (refusal["id"], refusal["error"]["code"]) == (None, INVALID)
    assert (answer["id"], "result" in answer) == ("next", True)


def test_empty_frame_behind_a_header_is_no_json(unix: Path) -> None:
    with over_unix(unix, Headers()) as stream:
        stream.introduce()
        stream.say(b"")

        assert (stream.hear() or {})["error"]["code"] == PARSE
        assert "result" in stream.call("_moorage/status")


def test_cut_frame_is_never_run(unix: Path, framing: Framing) -> None:
    with over_unix(unix, framing) as stream:
        stream.introduce()
        new = request(method=b'"session/new"', params=b'{"cwd":"/","mcpServers":[]}')
        before = sessions(stream)

        stream.send(framing.pack(new)[:-1])
        stream.end()

        assert stream.rest() == []
    with over_unix(unix, framing) as stream:
        stream.introduce()
        assert sessions(stream) == before


def sessions(stream: Stream) -> Json:
    found: Json = stream.call("_moorage/status")["result"]["sessions"]
    return found
