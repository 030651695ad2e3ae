"""Frames on a byte stream, whatever the pieces it comes in."""

import pytest

from moorage_protocol.framing import (
    HeaderFramer,
    LineFramer,
    Malformed,
    Oversize,
    StreamFramer,
    join_lines,
    join_with_headers,
)


FRAMES = [b'{"a":1}', b'{"text":"\xe2\x80\xa8 \xf0\x9f\x98\x80"}', b"[]"]


@pytest.mark.parametrize("at", range(len(join_lines(FRAMES)) + 1))
def test_frames_are_the_same_wherever_the_stream_is_split(at: int) -> None:
    stream, framer = join_lines(FRAMES), LineFramer()

    assert framer.receive(stream[:at]) + framer.receive(stream[at:]) == FRAMES


def test_frames_are_the_same_when_every_byte_comes_alone() -> None:
    framer = LineFramer()

    assert [f for byte in join_lines(FRAMES) for f in framer.receive(bytes([byte]))] == FRAMES


def test_many_frames_in_one_piece_come_in_their_order() -> None:
    frames = [b"%d" % number for number in range(1000)]

    assert LineFramer().receive(join_lines(frames)) == frames


def test_last_line_without_its_newline_is_no_frame() -> None:
    framer = LineFramer()

    assert framer.receive(b'{"a":1}\n{"method":"session/prompt"}') == [b'{"a":1}']
    assert framer.receive(b"") == []
    assert framer.receive(b"\n") == [b'{"method":"session/prompt"}']


def test_blank_lines_are_no_frames() -> None:
    assert LineFramer().receive(b"\n \n\r\n\t\n{}\n\n") == [b"{}"]


def test_carriage_return_stays_as_blank_space_of_the_frame() -> None:
    assert LineFramer().receive(b"{}\r\n") == [b"{}\r"]


def test_frame_of_exactly_the_limit_passes_and_one_byte_more_does_not() -> None:
    framer = LineFramer(limit=8)

    assert framer.receive(b"12345678\n123456789\n") == [b"12345678", Oversize(8)]


@pytest.mark.parametrize("piece", [1, 3, 7, 64])
def test_oversize_frame_is_told_once_and_the_stream_goes_on(piece: int) -> None:
    stream, framer = b"before\n" + b"x" * 50 + b"\nafter\n", LineFramer(limit=8)

    pieces = [stream[at : at + piece] for at in range(0, len(stream), piece)]

    assert [f for data in pieces for f in framer.receive(data)] == [
        b"before",
        Oversize(8),
        b"after",
    ]


def test_oversize_frame_is_not_kept_in_memory() -> None:
    framer = LineFramer(limit=1000)

    for _ in range(100):
        framer.receive(b"x" * 100)

    assert framer.receive(b"\n") == [Oversize(1000)]
    assert framer.receive(b"12\n") == [b"12"]


def test_frame_is_told_oversize_only_when_it_ends() -> None:
    framer = LineFramer(limit=2)

    assert framer.receive(b"xxxxxx") == []
    assert framer.receive(b"xxx\n") == [Oversize(2)]


def test_joining_no_messages_writes_nothing() -> None:
    assert join_lines([]) == b""


# ---- behind headers


def by_header(*frames: bytes) -> bytes:
    return join_with_headers(frames)


@pytest.mark.parametrize("at", range(len(by_header(*FRAMES)) + 1))
def test_frames_behind_headers_are_the_same_wherever_the_stream_is_split(at: int) -> None:
    stream, framer = by_header(*FRAMES), HeaderFramer()

    assert framer.receive(stream[:at]) + framer.receive(stream[at:]) == FRAMES


def test_frames_behind_headers_are_the_same_when_every_byte_comes_alone() -> None:
    framer, stream = HeaderFramer(), by_header(*FRAMES)

    assert [frame for byte in stream for frame in framer.receive(bytes([byte]))] == FRAMES


@pytest.mark.parametrize(
    "header",
    [
        b"Content-Length: 2",
        b"content-length:2",
        b"CONTENT-LENGTH:\t2 ",
        b"Content-Type: application/vscode-jsonrpc; charset=utf-8\r\nContent-Length: 2",
        b"Content-Length: 2\r\nContent-Type: x",
        b"Content-Length: 002",
    ],
)
def test_header_is_read_as_programs_write_it(header: bytes) -> None:
    assert HeaderFramer().receive(header + b"\r\n\r\n{}") == [b"{}"]


@pytest.mark.parametrize(
    "header",
    [
        b"Content-Type: x",
        b"Content-Length:",
        b"Content-Length: two",
        b"Content-Length: -2",
        b"Content-Length: 2.0",
        b"Content-Length: 0x2",
        b"Content-Length: 2 2",
        b"Content-Length: 9999999999999999",
        b"X-Content-Length: 2",
        b"",
    ],
)
def test_header_without_a_length_is_told_and_the_stream_goes_on(header: bytes) -> None:
    stream = header + b"\r\n\r\n" + by_header(b"{}")

    assert HeaderFramer().receive(stream) == [Malformed(), b"{}"]


def test_endless_header_is_told_and_not_kept_in_memory() -> None:
    framer = HeaderFramer()

    told = [frame for _ in range(100) for frame in framer.receive(b"x" * 1000)]

    assert told
    assert set(told) == {Malformed()}
    assert framer.receive(b"\r\n\r\n" + by_header(b"{}"))[-1] == b"{}"


@pytest.mark.parametrize("piece", [1, 3, 7, 1000])
@pytest.mark.parametrize(
    "broken",
    [
        b'Content-Type: x\r\n\r\n{"without":"a length"}',
        b'Content-Length: two\r\n\r\n{"without":\r\n\r\n"a length"}',
        b'Content-Type: x\r\n\r\n{"one":1}Content-Type: x\r\n\r\n{"two":2}',
        b"Content-Type: x\r\n\r\n[" + b"1," * 5000 + b"{}",
        b'{"framed":"as a line"}\n',
    ],
    ids=["missing", "no number", "twice", "long", "a line"],
)
def test_frame_without_a_length_is_told_once_and_the_next_one_is_found(
    broken: bytes, piece: int
) -> None:
    stream, framer = broken + by_header(*FRAMES), HeaderFramer()

    pieces = [stream[at : at + piece] for at in range(0, len(stream), piece)]

    told = [frame for data in pieces for frame in framer.receive(data)]
    assert told == [Malformed(), *FRAMES]


@pytest.mark.parametrize("between", [b"\n", b"\r\n", b"\r\n\r\n \n"])
def test_blank_lines_between_frames_are_forgiven(between: bytes) -> None:
    stream = between.join([by_header(frame) for frame in FRAMES])

    found = HeaderFramer().receive(stream)

    assert [frame for frame in found if frame != Malformed()] == FRAMES
    assert Malformed() not in found or between.count(b"\r\n\r\n")


def test_length_that_is_too_small_costs_no_more_than_its_frame() -> None:
    stream = b'Content-Length: 5\r\n\r\n{"a":1}' + by_header(b"{}", b"[]")

    assert HeaderFramer().receive(stream) == [b'{"a":', Malformed(), b"{}", b"[]"]


def test_length_that_is_too_large_costs_no_more_than_one_frame_behind_its_own() -> None:
    stream = b'Content-Length: 9\r\n\r\n{"a":1}' + by_header(b"{}", b"[]")

    assert HeaderFramer().receive(stream) == [b'{"a":1}Co', Malformed(), b"[]"]


@pytest.mark.parametrize("piece", [1, 3, 7, 64])
def test_oversize_frame_behind_a_header_is_told_once_and_skipped(piece: int) -> None:
    stream = by_header(b"before", b"x" * 9, b"after")
    framer = HeaderFramer(limit=8)

    pieces = [stream[at : at + piece] for at in range(0, len(stream), piece)]

    told = [frame for data in pieces for frame in framer.receive(data)]
    assert told == [b"before", Oversize(8), b"after"]


def test_frame_behind_a_header_of_exactly_the_limit_passes() -> None:
    assert HeaderFramer(limit=8).receive(by_header(b"12345678")) == [b"12345678"]


def test_frame_behind_a_header_may_hold_newlines_and_headers() -> None:
    frame = b'{\n"a":\r\n\r\n"Content-Length: 5"}'

    assert HeaderFramer().receive(by_header(frame, b"{}")) == [frame, b"{}"]


def test_frame_behind_a_header_that_was_cut_off_is_no_frame() -> None:
    assert HeaderFramer().receive(by_header(b"{}")[:-1]) == []


# ---- whichever the first byte says


@pytest.mark.parametrize("first", [b"C", b"c"])
def test_letter_begins_a_header(first: bytes) -> None:
    framer = StreamFramer()

    assert framer.receive(first) == []
    assert framer.receive(b"ontent-Length: 2\r\n\r\n{}") == [b"{}"]
    assert framer.join([b"{}"]) == b"Content-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize("start", [b"{", b" {", b"\n{", b"["])
def test_everything_else_begins_a_line(start: bytes) -> None:
    framer = StreamFramer()

    assert framer.receive(b"") == []
    assert framer.receive(start + b"}\n") == [start.removeprefix(b"\n") + b"}"]
    assert framer.join([b"{}"]) == b"{}\n"


def test_framing_does_not_change_in_the_middle_of_a_stream() -> None:
    framer = StreamFramer()

    assert framer.receive(b"{}\nContent-Length: 2\n") == [b"{}", b"Content-Length: 2"]
