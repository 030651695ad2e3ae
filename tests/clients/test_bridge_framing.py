"""Bytes into frames and frames into bytes, as the bridge does it for either kind of editor."""

from hypothesis import given, settings, strategies as st

from moorage_clients.bridge.framing import NO_LENGTH, OVERSIZE, Headers, Lines, Taken, framing_of
from moorage_protocol.framing import Framed, HeaderFramer, Malformed, Oversize


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


def as_the_daemon(found: list[Framed]) -> list[Taken]:
    """What the daemon's own framing gives, as the bridge says it."""

    def said(one: Framed) -> Taken:
        match one:
            case Oversize():
                return OVERSIZE
            case Malformed():
                return NO_LENGTH
            case frame:
                return frame.replace(b"\r", b" ").replace(b"\n", b" ")

    return [said(one) for one in found]


PIECES = st.sampled_from(
    [
        b"Content-Length: 2\r\n\r\n{}",
        b"content-length:8\r\n\r\n",
        b'{"id":1}',
        b'{"id":1}\n',
        b"\n",
        b"Content-Type: x\r\n\r\n",
        b"Content-Length: 99\r\n\r\n" + b"z" * 99,
        b"\r\n\r\n",
        b"}",
        b"Content-Length: two\r\n\r\n",
        b"x" * 300,
    ]
)


@given(st.lists(PIECES, max_size=12), st.integers(1, 50))
@settings(max_examples=200, deadline=None)
def test_broken_headers_are_taken_as_the_daemon_takes_them(pieces: list[bytes], cut: int) -> None:
    stream = b"Content-Length: 2\r\n\r\n[]" + b"".join(pieces)
    headers, framer = Headers(limit=50), HeaderFramer(limit=50)
    parts = [stream[at : at + cut] for at in range(0, len(stream), cut)]

    found = [frame for part in parts for frame in headers.receive(part)]

    wanted = [frame for part in parts for frame in framer.receive(part)]
    assert found == as_the_daemon(wanted)
