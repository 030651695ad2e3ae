"""The `moorage` command, one module for each kind of work.

`main` stands here and imports only what the words on the command line ask for: an editor that
starts `moorage acp` waits for every module that is loaded.
"""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (default: the process's); gives the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    state_dir = _bridge_state_dir(words)
    if state_dir is None:
        from moorage_clients.cli.command import run

        return run(words)
    from moorage_clients.bridge import relay

    return relay.run(state_dir)


def _bridge_state_dir(words: list[str]) -> str | None:
    """The state directory if the words say `acp` and nothing unusual; None: ask argparse."""
    match words:
        case ["acp"]:
            chosen = ""
        case ["acp", "--state-dir", chosen] | ["--state-dir", chosen, "acp"]:
            pass
        case _:
            return None
    import os

    from moorage_protocol.rendezvous import default_state_dir

    try:
        return os.path.abspath(chosen) if chosen else default_state_dir(os.environ)  # noqa: PTH100 - pathlib costs milliseconds
    except LookupError:
        return None  # the long way has the words for it
