"""Frames: lines that know whether they are whole.

A frame is the checksum of what follows, a length, and so many bytes of JSON, on one line:

    c5f2a4b1 0000002a {"version":3,"seq":17,"entries":[…]}

A checksum alone is not enough: a bit that flips in a newline would join two lines, and the second
would be taken for one that was never finished.
"""

import re
import zlib
from collections.abc import Generator
from dataclasses import dataclass

from moorage_daemon.store.disk import Disk, File


HEADER = 18  # bytes: two numbers of eight hexadecimal digits, a space behind each
MAX_FRAME = 2**28  # bytes of JSON; a longer length is damage and no reason to ask for memory
CHUNK = 2**16  # bytes read at once

_HEADER = re.compile(rb"([0-9a-f]{8}) ([0-9a-f]{8} )")


def frame(payload: bytes) -> bytes:
    """A payload as a frame; it must hold no newline."""
    sized = b"%08x %b" % (len(payload), payload)
    return b"%08x %b\n" % (zlib.crc32(sized), sized)


def frame_size(payload: bytes) -> int:
    """How long its frame is."""
    return HEADER + len(payload) + 1


def payload_at(data: bytes, at: int) -> bytes | None:
    """The payload of the frame that begins there; None if there is no whole one."""
    header = _HEADER.match(data, at)
    if header is None:
        return None
    checksum, sized = header.groups()
    start = at + HEADER
    end = start + int(sized, 16)
    if data[end : end + 1] != b"\n":
        return None
    payload = data[start:end]
    return payload if zlib.crc32(payload, zlib.crc32(sized)) == int(checksum, 16) else None


def claimed_size(data: bytes) -> int | None:
    """The length that the header there names; None if it is none."""
    header = _HEADER.match(data)
    size = MAX_FRAME + 1 if header is None else int(header[2], 16)
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
        data, used = b"", 0
        while self.at < self.end:
            payload = payload_at(data, used)
            if payload is None:
                data, used = self._more(data[used:]), 0
                payload = payload_at(data, 0)
            if payload is None:
                return
            size = frame_size(payload)
            place, self.at, used = self.at, self.at + size, used + size
            yield place, payload

    def _more(self, held: bytes) -> bytes:
        """What stands at `at`: a chunk, or the whole of a longer frame; it begins with `held`."""
        if len(held) < HEADER:
            held += self._behind(held, max(self.chunk, HEADER))
        size = claimed_size(held)
        return held + self._behind(held, max(self.chunk, 0 if size is None else HEADER + size + 1))

    def _behind(self, held: bytes, wanted: int) -> bytes:
        missing = min(wanted, self.end - self.at) - len(held)
        return self.disk.read(self.file, self.at + len(held), missing)


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
