"""Bytes of a stream into whole frames: a line each, or behind headers that say their length."""

from typing import NamedTuple


MAX_FRAME_BYTES = 8 * 2**20  # the daemon's own limit: longer frames would be refused there


class Refused(NamedTuple):
    """A frame that cannot be taken, and why."""

    problem: str


Taken = bytes | Refused

OVERSIZE = Refused(f"A frame may have at most {MAX_FRAME_BYTES} bytes")
NO_LENGTH = Refused("A header must say the Content-Length")


class Lines:
    """Cuts a stream into lines; a line over the limit is skipped to its end.

    A last line without its newline is no frame: a cut request is never run.
    """

    def __init__(self, limit: int = MAX_FRAME_BYTES) -> None:
        self.limit = limit
        self._parts: list[bytes] = []
        self._held = 0

    def receive(self, data: bytes) -> list[Taken]:
        """Take the next piece of the stream; gives the lines that it completed, blank ones not."""
        *complete, rest = data.split(b"\n")
        lines: list[Taken] = []
        for piece in complete:
            self._hold(piece)
            line = OVERSIZE if self._held > self.limit else b"".join(self._parts)
            self._parts.clear()
            self._held = 0
            if isinstance(line, Refused) or line.strip():
                lines.append(line)
        self._hold(rest)
        return lines

    def _hold(self, piece: bytes) -> None:
        self._held += len(piece)
        if self._held > self.limit:
            self._parts.clear()
        elif piece:
            self._parts.append(piece)


MAX_HEADER = 4096  # bytes; a length and a content type need a hundred


class Headers:
    """Cuts a stream at the lengths its headers say (Language Server Protocol, base protocol)."""

    def __init__(self, limit: int = MAX_FRAME_BYTES) -> None:
        self.limit = limit
        self._buffer = bytearray()
        self._length = -1  # of the frame that follows; -1 between frames
        self._skip = 0  # bytes of an oversize frame still to come

    def receive(self, data: bytes) -> list[Taken]:
        """Take the next piece of the stream; gives the frames that it completed, as lines."""
        self._buffer += data
        frames: list[Taken] = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self) -> Taken | None:
        if self._length < 0 and not self._skip:
            return self._read_header()
        if self._skip:
            gone = min(self._skip, len(self._buffer))
            del self._buffer[:gone]
            self._skip -= gone
            return None if self._skip else OVERSIZE
        if len(self._buffer) < self._length:
            return None
        frame = bytes(self._buffer[: self._length])
        del self._buffer[: self._length]
        self._length = -1
        return frame.replace(b"\r", b" ").replace(b"\n", b" ")  # JSON holds none that counts

    def _read_header(self) -> Taken | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) <= MAX_HEADER:
                return None
            del self._buffer[:-4]
            return NO_LENGTH
        header = bytes(self._buffer[:end])
        del self._buffer[: end + 4]
        length = _length_in(header)
        if length < 0:
            return NO_LENGTH
        if length > self.limit:
            self._skip = length
        else:
            self._length = length
        return self._next()


def _length_in(header: bytes) -> int:
    for line in header.split(b"\r\n"):
        name, _, value = line.partition(b":")
        value = value.strip()
        if name.lower() == b"content-length" and value.isdigit() and len(value) <= 12:
            return int(value)
    return -1


def framing_of(first: bytes) -> Lines | Headers:
    """How a stream is framed that begins like this: a header with a letter, JSON with none."""
    return Headers() if first[:1] in (b"C", b"c") else Lines()
