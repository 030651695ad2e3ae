"""A person at a terminal: a pseudo-terminal with a command on it, read and typed into."""

import os
import pty
import select
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.commands import MOORAGE


PATIENCE = 60.0  # seconds until what a person waits for is on the screen, on a busy machine
INTERRUPT = "\x03"  # what the key Ctrl-C sends
END = "\x04"  # Ctrl-D

# Makes the terminal the one that Ctrl-C is pressed on, then becomes the command.
TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


@dataclass(eq=False)
class Terminal:
    """What is on the screen is kept in `shown`, from the last thing that was waited for on."""

    process: subprocess.Popen[bytes]
    descriptor: int
    shown: str = ""

    def wait_for(self, text: str) -> str:
        """Wait until it is on the screen; gives everything up to there, once."""
        while text not in self.shown:
            self._read(text)
        before, _, self.shown = self.shown.partition(text)
        return before + text

    def _read(self, wanted: str) -> None:
        readable, _, _ = select.select([self.descriptor], [], [], PATIENCE)
        assert readable, f"{wanted!r} did not come, but {self.shown!r}"
        try:
            data = os.read(self.descriptor, 65536)
        except OSError:  # the last program on it ended
            data = b""
        assert data, f"it ended before {wanted!r} came: {self.shown!r}"
        self.shown += data.decode(errors="replace").replace("\r\n", "\n")

    def type(self, line: str) -> None:
        """Type a line and press Enter."""
        self.press(line + "\r")

    def press(self, keys: str) -> None:
        os.write(self.descriptor, keys.encode())

    def ended(self) -> int:
        """Wait for the end; gives the exit code."""
        return self.process.wait(PATIENCE)


@contextmanager
def moorage_in_terminal(
    *words: str, state_dir: Path, cwd: Path, env: Mapping[str, str]
) -> Generator[Terminal]:
    """The command on a terminal; on leaving it is gone."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, *MOORAGE, *words],
            stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd,
            env={**env, "MOORAGE_STATE_DIR": str(state_dir)},
        )  # fmt: skip
    finally:
        os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait(PATIENCE)
        os.close(ours)
