"""Bytes of a stream into whole frames: a line each, or behind headers that say their length."""

import re
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
            if isinstance(line, Refused) or line.strip(b" \t\r"):
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
_NEAR = 256  # bytes before its end in which a header that was found again is looked for
_END = b"\r\n\r\n"
_LENGTH = re.compile(
    rb"(?:^|(?<=[\n}]))content-length:[ \t]*(?P<length>[0-9]{1,12})[ \t]*(?:\r|$)", re.IGNORECASE
)
_FIELDS = re.compile(rb"\s*(?:[A-Za-z0-9-]+:[^\n]*\n)*")  # what may stand before the length


class Headers:
    """Cuts a stream at the lengths its headers say (Language Server Protocol, base protocol).

    By the daemon's own rule: behind a header without a length the stream goes on at the next
    length, also where that stands behind the end of an object, and all up to there is told once.
    """

    def __init__(self, limit: int = MAX_FRAME_BYTES) -> None:
        self.limit = limit
        self._buffer = bytearray()
        self._length = -1  # of the frame that follows; -1 between frames
        self._skip = 0  # bytes of an oversize frame still to come
        self._is_lost = False

    def receive(self, data: bytes) -> list[Taken]:
        """Take the next piece of the stream; gives the frames that it completed, as lines."""
        self._buffer += data
        frames: list[Taken] = []
        while self._step(frames):
            pass
        return frames

    def _step(self, frames: list[Taken]) -> bool:
        """Take one thing off the buffer; False where more has to come."""
        if self._skip:
            return self._skip_more(frames)
        if self._length < 0:
            return self._read_header(frames)
        if len(self._buffer) < self._length:
            return False
        frame = bytes(self._buffer[: self._length])
        del self._buffer[: self._length]
        self._length = -1
        frames.append(
            frame.replace(b"\r", b" ").replace(b"\n", b" ")
        )  # JSON holds none that counts
        return True

    def _skip_more(self, frames: list[Taken]) -> bool:
        gone = min(self._skip, len(self._buffer))
        del self._buffer[:gone]
        self._skip -= gone
        if self._skip == 0:
            frames.append(OVERSIZE)
        return self._skip == 0

    def _read_header(self, frames: list[Taken]) -> bool:
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

    def _lose(self, frames: list[Taken]) -> None:
        if not self._is_lost:
            frames.append(NO_LENGTH)
        self._is_lost = True


def framing_of(first: bytes) -> Lines | Headers:
    """How a stream is framed that begins like this: a header with a letter, JSON with none."""
    return Headers() if first[:1] in (b"C", b"c") else Lines()
