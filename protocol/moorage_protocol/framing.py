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
            if isinstance(frame, Oversize) or frame.strip(b" \t\r"):
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
_NEAR = 256  # bytes before its end in which a header that was found again is looked for
_END = b"\r\n\r\n"
_LENGTH = re.compile(
    rb"(?:^|(?<=[\n}]))content-length:[ \t]*(?P<length>[0-9]{1,12})[ \t]*(?:\r|$)", re.IGNORECASE
)
_FIELDS = re.compile(rb"\s*(?:[A-Za-z0-9-]+:[^\n]*\n)*")  # what may stand before the length


@dataclass
class HeaderFramer:
    """Cuts a stream at the lengths its headers say (Language Server Protocol, base protocol).

    Behind a header without a length, or with a wrong one, nobody knows where the frame ends. The
    stream goes on at the next length, also where it stands behind the end of an object; all up to
    there is told as one `Malformed`.
    """

    limit: int = MAX_FRAME_BYTES
    _buffer: bytearray = field(default_factory=bytearray)
    _length: int | None = None  # of the frame that follows; None between frames
    _skip: int = 0  # bytes of an oversize frame still to come
    _is_lost: bool = False

    def receive(self, data: bytes) -> list[Framed]:
        """Take the next piece of the stream."""
        self._buffer += data
        frames: list[Framed] = []
        while self._step(frames):
            pass
        return frames

    def _step(self, frames: list[Framed]) -> bool:
        """Take one thing off the buffer; False where more has to come."""
        if self._skip:
            return self._skip_more(frames)
        if self._length is None:
            return self._read_header(frames)
        if len(self._buffer) < self._length:
            return False
        frames.append(bytes(self._buffer[: self._length]))
        del self._buffer[: self._length]
        self._length = None
        return True

    def _read_header(self, frames: list[Framed]) -> bool:
        end = self._buffer.find(_END)
        if end < 0:
            if len(self._buffer) >= MAX_HEADER + len(_END):
                del self._buffer[: -_NEAR - len(_END)]
                self._lose(frames)
            return False
        if end > MAX_HEADER:
            self._lose(frames)
        head = bytes(self._buffer[:end])
        del self._buffer[: end + len(_END)]
        if self._is_lost and end > _NEAR:
            head = b" " + head[-_NEAR:]  # that is not its beginning
        found = _LENGTH.search(head)
        if found is None or not _FIELDS.fullmatch(head, 0, found.start()):
            self._lose(frames)
        if found is not None:
            self._begin(int(found["length"]))
        return True

    def _begin(self, length: int) -> None:
        self._is_lost = False
        if length > self.limit:
            self._skip = length
        else:
            self._length = length

    def _lose(self, frames: list[Framed]) -> None:
        if not self._is_lost:
            frames.append(Malformed())
        self._is_lost = True

    def _skip_more(self, frames: list[Framed]) -> bool:
        gone = min(self._skip, len(self._buffer))
        del self._buffer[:gone]
        self._skip -= gone
        if self._skip == 0:
            frames.append(Oversize(self.limit))
        return self._skip == 0


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
