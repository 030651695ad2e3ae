"""Lines that a person types, read without a thread and without changing the terminal.

The descriptor stays blocking, as it is the terminal's other streams too; it is only read when the
kernel says that a line is there.
"""

import os
import termios
from contextlib import suppress

import trio


READ_BYTES = 4096  # a terminal gives one line at a time, of no more than that


class Keyboard:
    """Lines from a descriptor: a terminal's, a pipe's or a file's."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._typed = b""
        self._is_over = False

    async def line(self) -> str | None:
        """The next line without its end; None when there are no more."""
        while b"\n" not in self._typed and not self._is_over:
            with suppress(PermissionError):  # epoll knows no files, and those are always readable
                await trio.lowlevel.wait_readable(self._descriptor)
            try:
                data = os.read(self._descriptor, READ_BYTES)
            except OSError:  # the terminal is gone
                data = b""
            self._is_over = not data
            self._typed += data
        line, end, self._typed = self._typed.partition(b"\n")
        return line.decode(errors="replace") if line or end else None

    def forget(self) -> None:
        """Drop what was typed before now: it is no answer to what is asked next."""
        self._typed = b""
        with suppress(termios.error):
            termios.tcflush(self._descriptor, termios.TCIFLUSH)
