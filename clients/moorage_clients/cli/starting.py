"""Seeing to it that a daemon runs, and saying why if none does."""

from collections.abc import Sequence

from moorage_clients.bridge import launch
from moorage_clients.cli.exits import Exit, Failure
from moorage_clients.plain_text import plain


def start_daemon(state_dir: str, flags: Sequence[str] = ()) -> None:
    """Wait until a daemon answers, starting one if none runs; raises `Failure`."""
    try:
        launch.connect(state_dir, flags).close()
    except launch.LaunchFailed as error:
        log = "\n".join(f"  {plain(line)}" for line in error.log)
        raise Failure(Exit.NO_DAEMON, error.problem, log) from error


def prepare(state_dir: str) -> None:
    """Make a state directory of our own; raises `Failure` if it would not be private."""
    try:
        launch.prepare(state_dir)
    except launch.LaunchFailed as error:
        raise Failure(Exit.FAILED, error.problem) from error
