"""Frames on a byte stream: one a line (Agent Client Protocol), or behind a header (LSP).

Sans-I/O: bytes go in as they arrive, whole frames come out. The first byte of a stream decides
which of the two it has, and answers use the same. A frame over the limit is not kept in memory:
it is skipped to its end, told as `Oversize`, and the stream goes on.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec


MAX_FRAME_BYTES = 8 * 2**20  # in; a prompt with a pasted file fits, a mistake does not
MAX_SENT_BYTES = 2**20 - 4096  # out; a widely used client closes at 1 MiB


class Oversize(msgspec.Struct, frozen=True):
    """A frame was longer than `limit` bytes and was skipped."""

    limit: int


class Malformed(msgspec.Struct, frozen=True):
    """A header said no length; the stream goes on at the next one."""


Framed = bytes | Oversize | Malformed


@dataclass
class LineFramer:
    """Cuts a stream into lines.

    Call `receive` with each piece of the stream; it gives the frames that this piece completed,
    in order. A last line without its newline is no frame: a cut request is never run.
    """

    limit: int = MAX_FRAME_BYTES
    _parts: list[bytes] = field(default_factory=list[bytes])
    _held: int = 0
    _skipping: bool = False

    def receive(self, data: bytes) -> list[Framed]:
        """Take the next piece of the stream."""
        *complete, rest = data.split(b"\n")
        frames: list[Framed] = []
        for piece in complete:
            frame = self._end_line(piece)
            if isinstance(frame, Oversize) or frame.strip():
                frames.append(frame)
        self._hold(rest)
        return frames

    def _end_line(self, piece: bytes) -> bytes | Oversize:
        self._hold(piece)
        oversize, line = self._skipping, b"".join(self._parts)
        self._parts.clear()
        self._held, self._skipping = 0, False
        return Oversize(self.limit) if oversize else line

    def _hold(self, piece: bytes) -> None:
        self._held += len(piece)
        if self._held > self.limit:
            self._skipping = True
            self._parts.clear()
        elif piece:
            self._parts.append(piece)


def join_lines(messages: Sequence[bytes]) -> bytes:
    """Write messages to a line-framed stream; JSON text holds no raw newline."""
    return b"\n".join([*messages, b""])


MAX_HEADER = 4096  # bytes; a length and a content type need a hundred
_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"(?:^|\n)content-length:[ \t]*([0-9]{1,12})[ \t]*(?:\r|$)", re.IGNORECASE)


@dataclass
class HeaderFramer:
    """Cuts a stream at the lengths its headers say (Language Server Protocol, base protocol)."""

    limit: int = MAX_FRAME_BYTES
    _buffer: bytearray = field(default_factory=bytearray)
    _length: int | None = None  # of the frame that follows; None between frames
    _skip: int = 0  # bytes of an oversize frame still to come

    def receive(self, data: bytes) -> list[Framed]:
        """Take the next piece of the stream."""
        self._buffer += data
        frames: list[Framed] = []
        while True:
            frame = self._next()
            if frame is None:
                return frames
            frames.append(frame)

    def _next(self) -> Framed | None:
        if self._skip:
            return self._skip_more()
        if self._length is None:
            return self._read_header()
        if len(self._buffer) < self._length:
            return None
        frame = bytes(self._buffer[: self._length])
        del self._buffer[: self._length]
        self._length = None
        return frame

    def _read_header(self) -> Framed | None:
        end = self._buffer.find(_END)
        if end < 0:
            if len(self._buffer) <= MAX_HEADER:
                return None
            del self._buffer[: -len(_END)]
            return Malformed()
        found = _LENGTH.search(bytes(self._buffer[:end]))
        del self._buffer[: end + len(_END)]
        if found is None:
            return Malformed()
        self._length = int(found[1])
        if self._length > self.limit:
            self._skip, self._length = self._length, None
        return self._next()

    def _skip_more(self) -> Oversize | None:
        gone = min(self._skip, len(self._buffer))
        del self._buffer[:gone]
        self._skip -= gone
        return None if self._skip else Oversize(self.limit)


def join_with_headers(messages: Sequence[bytes]) -> bytes:
    """Write messages to a stream framed by headers."""
    return b"".join(b"Content-Length: %d\r\n\r\n%b" % (len(m), m) for m in messages)


@dataclass
class StreamFramer:
    """The framing of one connection, as its first byte decides.

    JSON begins with a brace and a header with a letter, so one byte is enough. Until it has come
    there is nothing to answer.
    """

    limit: int = MAX_FRAME_BYTES
    _framer: LineFramer | HeaderFramer | None = None

    def receive(self, data: bytes) -> list[Framed]:
        """Take the next piece of the stream."""
        if self._framer is None:
            if not data:
                return []
            by_header = data[:1] in (b"C", b"c")
            self._framer = HeaderFramer(self.limit) if by_header else LineFramer(self.limit)
        return self._framer.receive(data)

    def join(self, messages: Sequence[bytes]) -> bytes:
        """Write messages as this connection frames them."""
        if isinstance(self._framer, HeaderFramer):
            return join_with_headers(messages)
        return join_lines(messages)
