"""Frames: lines that know whether they are whole.

A frame is the checksum of what follows, a length, and so many bytes of JSON, on one line:

    c5f2a4b1 0000002a {"version":3,"seq":17,"entries":[…]}

A checksum alone is not enough: a bit that flips in a newline would join two lines, and the second
would be taken for one that was never finished.
"""

import zlib
from collections.abc import Generator
from dataclasses import dataclass

from moorage_daemon.store.disk import Disk, File


HEADER = 18  # bytes: two numbers of eight hexadecimal digits, a space behind each
MAX_FRAME = 2**28  # bytes of JSON; a longer length is damage and no reason to ask for memory
CHUNK = 2**18  # bytes read at once


def frame(payload: bytes) -> bytes:
    """A payload as a frame; it must hold no newline."""
    sized = b"%08x %b" % (len(payload), payload)
    return b"%08x %b\n" % (zlib.crc32(sized), sized)


def frame_size(payload: bytes) -> int:
    """How long its frame is."""
    return HEADER + len(payload) + 1


def payload_at(data: bytes, at: int) -> bytes | None:
    """The payload of the frame that begins there; None if there is no whole one."""
    size = claimed_size(data[at : at + HEADER])
    if size is None:
        return None
    end = at + HEADER + size
    if data[end : end + 1] != b"\n":
        return None
    checked = data[at + 9 : end]
    return checked[9:] if zlib.crc32(checked) == int(data[at : at + 8], 16) else None


def claimed_size(header: bytes) -> int | None:
    """The length that a header names; None if it is none."""
    if len(header) < HEADER or header[8] != ord(" ") or header[17] != ord(" "):
        return None
    digits = header[:8] + header[9:17]
    if digits.strip(b"0123456789abcdef"):
        return None
    size = int(header[9:17], 16)
    return size if size <= MAX_FRAME else None


@dataclass(slots=True)
class Frames:
    """The whole frames of a file from `at` to `end`, one after the other.

    Iterating ends where none follows: `at` is then `end`, or where something else begins. At
    least `chunk` bytes are read at once.
    """

    disk: Disk
    file: File
    at: int
    end: int
    chunk: int = CHUNK

    def __iter__(self) -> Generator[tuple[int, bytes]]:
        """Each frame's place and payload."""
        held, data = self.at, b""
        while self.at < self.end:
            payload = payload_at(data, self.at - held)
            if payload is None:
                held, data = self.at, self._next()
                payload = payload_at(data, 0)
            if payload is None:
                return
            place, self.at = self.at, self.at + frame_size(payload)
            yield place, payload

    def _next(self) -> bytes:
        """What stands at `at`: a chunk, or the whole of a longer frame."""
        size = claimed_size(self.disk.read(self.file, self.at, HEADER))
        wanted = max(self.chunk, HEADER if size is None else HEADER + size + 1)
        return self.disk.read(self.file, self.at, min(wanted, self.end - self.at))


def last_frame(disk: Disk, file: File, end: int) -> tuple[int, bytes] | None:
    """The place and payload of the frame that ends there; None if none does."""
    size = 2**12
    while True:
        start = max(0, end - size)
        data = disk.read(file, start, end - start)
        place = data.rfind(b"\n", 0, max(0, len(data) - 1)) + 1
        if place > 0 or start == 0:
            payload = payload_at(data, place)
            whole = payload is not None and place + frame_size(payload) == len(data)
            return (start + place, payload) if whole and payload is not None else None
        size *= 16


def next_frame(data: bytes, mark: bytes) -> int | None:
    """Where the first whole frame begins whose payload begins with `mark`; None if there is none.

    None begins inside another one: a payload has no newline.
    """
    at = data.find(mark)
    while at >= 0:
        if at >= HEADER and payload_at(data, at - HEADER) is not None:
            return at - HEADER
        at = data.find(mark, at + 1)
    return None
