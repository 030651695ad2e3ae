"""Asking `mooraged` about itself, where only the daemon's own code knows.

It is a program of the same installation, run for a moment; nothing of it is imported here.
"""

import subprocess
import sys
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from moorage_clients.bridge import launch
from moorage_clients.cli.exits import Exit, Failure
from moorage_clients.plain_text import plain


PATIENCE = 60.0  # seconds; half of one is usual

T = TypeVar("T")


def ask(flags: Sequence[str], shape: type[T]) -> T:
    """What the daemon prints for these flags; raises `Failure` with what it says instead."""
    return msgspec.json.decode(_run(flags), type=shape)


def ask_plainly(flags: Sequence[str]) -> str:
    """The same, where the answer is a line for people."""
    return plain(_run(flags).decode(errors="replace")).strip()


def _run(flags: Sequence[str]) -> bytes:
    try:
        ended = subprocess.run(
            [*launch.program(), *flags],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=launch.environment(),
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(Exit.FAILED, f"{sys.executable} cannot run the daemon: {error}") from error
    if ended.returncode != 0:
        said = plain(ended.stderr.decode(errors="replace")).strip()
        problem = said.removeprefix("mooraged: ") or f"mooraged ended with {ended.returncode}"
        raise Failure(Exit.FAILED, problem)
    return ended.stdout
