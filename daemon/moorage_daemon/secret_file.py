"""A secret in a file: read when it is used, and only if nobody else can read it.

What others can read is not a secret any more. Nothing of the content is in an error.
"""

import os
import stat
from pathlib import Path


OTHERS = stat.S_IRWXG | stat.S_IRWXO


class UnusableSecret(Exception):
    """There is no secret in that file, or it is none; one line says why, without quoting it."""


def read_secret(path: Path, most: int) -> bytes:
    """The first bytes of the file, one more than `most` if there are so many.

    It blocks, if the file system does. Raises `UnusableSecret`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO does not hold us up
    except OSError as error:
        raise UnusableSecret(f"{path} cannot be read: {error.strerror}") from None
    try:
        return _content(path, descriptor, most)
    finally:
        os.close(descriptor)


def _content(path: Path, descriptor: int, most: int) -> bytes:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid not in (os.geteuid(), 0):
        raise UnusableSecret(f"{path} is not a regular file of this user")
    if stat.S_IMODE(found.st_mode) & OTHERS:
        raise UnusableSecret(f"{path} can be used by others: it needs mode 0600")
    try:
        return os.read(descriptor, most + 1)
    except OSError:
        raise UnusableSecret(f"{path} cannot be read") from None
