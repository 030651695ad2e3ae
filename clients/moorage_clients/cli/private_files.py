"""Secrets that a command is given: in files, as a command line can be read by every user."""

import os
import stat
import sys
from collections.abc import Sequence

from moorage_clients.cli.exits import Exit, Failure


MAX_SECRET = 64 * 2**10  # bytes; a daemon takes less, and says how much
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def read_private(path: str, option: str, most: int) -> bytes:
    """The beginning of a file that nobody else can read, or of a pipe: a byte more than `most`.

    Raises `Failure`, which names the `option` that named the file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            content = file.read(most + 1)
    except OSError as error:
        raise Failure(Exit.USAGE, f"{option}: {error.strerror}") from error
    if stat.S_ISREG(found.st_mode) and found.st_mode & _OTHERS:
        mode = stat.S_IMODE(found.st_mode)
        problem = f"{option}: others may read it (mode {mode:04o})"
        raise Failure(Exit.USAGE, problem, f"Keep it to yourself: chmod 600 {path}")
    return content


def read_secrets(paths: Sequence[str]) -> list[str]:
    """What is in these files, "-" being stdin, without the end of the last line; see above."""
    return [_secret(path) for path in paths]


def _secret(path: str) -> str:
    option = f"--secret-file {path}"
    if path == "-":
        content = sys.stdin.buffer.read(MAX_SECRET + 1)
    else:
        content = read_private(path, option, MAX_SECRET)
    if len(content) > MAX_SECRET:
        raise Failure(Exit.USAGE, f"{option}: that is too long for a secret")
    try:
        text = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise Failure(Exit.USAGE, f"{option}: that is no text") from None
    if not text.strip():
        raise Failure(Exit.USAGE, f"{option}: there is nothing in it")
    return text
