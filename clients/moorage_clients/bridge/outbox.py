"""Lines on their way out of the relay, in order, whole until the last byte of them is written."""

from collections import deque
from itertools import islice


MOST_JOINED = 64  # lines in one write; beyond that a write costs no less a line


class Outbox:
    """Lines that wait to be written. Whoever fills it looks at `size` first."""

    def __init__(self) -> None:
        self.size = 0  # bytes still to be written
        self.by_header = False  # lengths in front, instead of newlines behind
        self._lines: deque[bytes] = deque()
        self._written = 0  # of the first line

    def __bool__(self) -> bool:
        return bool(self._lines)

    def put(self, line: bytes) -> None:
        """Add a line, given without its newline."""
        header = b"Content-Length: %d\r\n\r\n%b"
        whole = header % (len(line), line) if self.by_header else line + b"\n"
        self._lines.append(whole)
        self.size += len(whole)

    def head(self, most: int) -> bytes:
        """The next bytes to write: at most `most`, and as many lines joined as that holds."""
        pieces = [self._lines[0][self._written : self._written + most]]
        room = most - len(pieces[0])
        for line in islice(self._lines, 1, MOST_JOINED):
            if len(line) > room:
                break
            pieces.append(line)
            room -= len(line)
        return b"".join(pieces)

    def wrote(self, count: int) -> None:
        """Note that so many bytes are out."""
        self.size -= count
        self._written += count
        while self._lines and self._written >= len(self._lines[0]):
            self._written -= len(self._lines.popleft())

    def take_back(self) -> list[bytes]:
        """Empty a box of lines: gives those of which the other end cannot have seen the end."""
        unsent = [line[:-1] for line in self._lines]
        self._lines.clear()
        self.size = self._written = 0
        return unsent


class Discarded(Outbox):
    """Where lines go that nobody is left to read."""

    def put(self, line: bytes) -> None:
        """Forget a line."""
