"""Frames on a byte stream, one a line (Agent Client Protocol, stdio transport).

Sans-I/O: bytes go in as they arrive, whole frames come out. A frame over the limit is not kept
in memory: it is skipped to its end, told as `Oversize`, and the stream goes on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec


MAX_FRAME_BYTES = 8 * 2**20  # in; a prompt with a pasted file fits, a mistake does not
MAX_SENT_BYTES = 2**20 - 4096  # out; a widely used client closes at 1 MiB


class Oversize(msgspec.Struct, frozen=True):
    """A frame was longer than `limit` bytes and was skipped."""

    limit: int


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

    def receive(self, data: bytes) -> list[bytes | Oversize]:
        """Take the next piece of the stream."""
        *complete, rest = data.split(b"\n")
        frames: list[bytes | Oversize] = []
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
