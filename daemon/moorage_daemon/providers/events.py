"""Server-sent events out of bytes, as the HTML standard describes them ("server-sent events").

Written here because the library for it keeps an endless line or event in memory to its end; this
one takes what a provider may reasonably say at once and no more. Only `data` matters to us:
names, ids and retry times of events are read over, and so are comments.
"""

MAX_EVENT = 2**20  # bytes of one event with its line ends; the longest pieces seen have kilobytes
_BOM = b"\xef\xbb\xbf"
_DATA = b"data: "
_END = b"\n\n"


class TooLarge(Exception):
    """An event, or a line of one, does not end."""


class Events:
    """What was not yet given as an event: at most `MAX_EVENT` bytes, however they are cut."""

    def __init__(self) -> None:
        self._line: list[bytes] = []  # pieces of a line that has not ended
        self._line_size = 0
        self._data: list[bytes] = []  # data of an event that has not ended
        self._data_size = 0  # of whole lines
        self._after_cr = False
        self._at_start = True

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that are whole now; raises `TooLarge`."""
        if not chunk:  # it ends nothing, not even the wait for what follows a CR
            return []
        if self._is_one_event(chunk):
            return [chunk[len(_DATA) : -len(_END)]]
        events: list[bytes] = []
        first, *others = self._with_plain_ends(chunk).split(b"\n")
        self._add(first)
        for following in others:
            event = self._end_line()
            if event is not None:
                events.append(event)
            self._add(following)
        return events

    def _is_one_event(self, chunk: bytes) -> bool:
        """Whether it is an event of one line and nothing else: so nearly all of them arrive."""
        return (
            chunk.startswith(_DATA)
            and chunk.find(b"\n") == len(chunk) - len(_END)
            and chunk.endswith(_END)
            and b"\r" not in chunk
            and len(chunk) <= MAX_EVENT
            and not (self._line_size or self._data or self._after_cr or self._at_start)
        )

    def _add(self, piece: bytes) -> None:
        self._line.append(piece)
        self._line_size += len(piece)
        if self._line_size + self._data_size > MAX_EVENT:
            raise TooLarge

    def flush(self) -> list[bytes]:
        """The last event, where the stream ended without the empty line behind it."""
        ended = self._end_line()
        last = ended if ended is not None else self._end_event()
        return [] if last is None else [last]

    def _with_plain_ends(self, chunk: bytes) -> bytes:
        """The chunk with LF for each of CR LF, CR and LF, however they were cut."""
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")
        self._after_cr = chunk.endswith(b"\r")
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return chunk

    def _end_line(self) -> bytes | None:
        line = b"".join(self._line)
        self._line, self._line_size = [], 0
        if self._at_start:
            line = line.removeprefix(_BOM)
            self._at_start = False
        if not line:
            return self._end_event()
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._data_size += len(line) + 1
        return None

    def _end_event(self) -> bytes | None:
        data, self._data, self._data_size = self._data, [], 0
        return b"\n".join(data) if data else None
