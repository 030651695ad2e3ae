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
