"""What a command wrote, in bounded memory: its first and its last bytes.

The beginning says what was done, the end how it went: that is what people and models are shown.
Much more of it is kept for whoever wants to see all; a flood beyond that is only counted.
"""

from codecs import getincrementaldecoder


KEPT = 32 * 1024  # bytes at either end; together about 16,000 tokens of a model
WHOLE = 4 * 2**20  # bytes from the beginning on; more than anybody reads, and bearable in memory


class Output:
    """The first `WHOLE` and the last `KEPT` bytes of a stream, and its length."""

    def __init__(self) -> None:
        self.total = 0
        self._head = bytearray()
        self._tail = bytearray()

    def add(self, chunk: bytes) -> None:
        """Take what came next."""
        room = WHOLE - len(self._head)
        self.total += len(chunk)
        self._head += chunk[:room]
        self._tail += chunk[room:]
        if len(self._tail) > 2 * KEPT:  # cutting at each chunk would copy each time
            del self._tail[:-KEPT]

    @property
    def left_out(self) -> int:
        """How many bytes between the two ends are not in `text`."""
        return max(0, self.total - 2 * KEPT)

    def text(self) -> str:
        """Return both ends; what was left out is marked with its size.

        Bytes that are no UTF-8 show as U+FFFD; a character that the cut went through is dropped.
        """
        return self._text(KEPT)

    def whole(self) -> str | None:
        """Return all that is kept, marked where some of it is lost; None if `text` is all."""
        return self._text(WHOLE) if self.left_out else None

    def _text(self, beginning: int) -> str:
        if self.total <= beginning + KEPT:
            return (self._head + self._tail).decode(errors="replace")
        mark = f"\n[... {self.total - beginning - KEPT:,} bytes left out ...]\n"
        end = self._tail if len(self._tail) >= KEPT else self._head[-KEPT:] + self._tail
        return _decode_start(self._head[:beginning]) + mark + _decode_end(end[-KEPT:])

    def tail(self, limit: int = 1024) -> str:
        """Return the last bytes, at most `limit`: progress of a command that still runs."""
        kept = self._head + self._tail if len(self._tail) < limit else self._tail
        return _decode_start(_whole_end(kept[-limit:] if limit < self.total else kept))


def _decode_start(data: bytes | bytearray) -> str:
    """Decode bytes that were cut at their end."""
    return getincrementaldecoder("utf-8")("replace").decode(data)


def _decode_end(data: bytes | bytearray) -> str:
    return _whole_end(data).decode(errors="replace")


def _whole_end(data: bytes | bytearray) -> bytes | bytearray:
    """Drop the rest of a character that was cut; it has at most three more bytes."""
    for start in range(min(4, len(data))):
        if data[start] & 0b1100_0000 != 0b1000_0000:
            return data[start:]
    return data
