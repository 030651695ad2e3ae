"""Frames on a byte stream: one a line, whatever the pieces it comes in."""

import pytest

from moorage_protocol.framing import LineFramer, Oversize, join_lines


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
