"""What a shell offers when a person presses TAB: from the grammar, and from the running daemon.

No daemon is started for it, and nothing that goes wrong is told: there is a half-typed line on the
screen, and no place for complaints. What takes too long is not offered.
"""

import argparse
import os
from typing import NoReturn

import argcomplete
import trio
from argcomplete import shell_integration
from argcomplete.completers import DirectoriesCompleter, FilesCompleter, SuppressCompleter

from moorage_clients.cli.choosing import is_killed
from moorage_clients.cli.exits import Failure
from moorage_clients.cli.invocation import Remote
from moorage_clients.cli.loop import run
from moorage_clients.cli.opening import Way
from moorage_clients.cli.remote import read_address
from moorage_clients.client import open_client
from moorage_clients.errors import ClientError
from moorage_clients.plain_text import one_line
from moorage_protocol.errors import RpcError
from moorage_protocol.moorage import DamagedRow, SessionInfo
from moorage_protocol.rendezvous import default_state_dir


PATIENCE = 1.0  # seconds; then a person would rather have typed it
TITLE_WIDTH = 40  # characters beside an id, where a shell shows them


def complete(parser: argparse.ArgumentParser) -> NoReturn:
    """Tell the shell how the line can go on, and end the process."""
    argcomplete.autocomplete(
        parser, always_complete_options=False, default_completer=SuppressCompleter()
    )
    raise SystemExit  # it was no shell that set the variable


def script(shell: str) -> str:
    """What the shell has to run once, so that it asks this command."""
    return shell_integration.shellcode(["moorage"], shell=shell)


def paths(prefix: str, *, only_directories: bool) -> dict[str, str]:
    """What of the file system begins like that."""
    completer = DirectoriesCompleter() if only_directories else FilesCompleter()
    return dict.fromkeys(completer(prefix), "")


def sessions(prefix: str, typed: argparse.Namespace, *, killed: bool) -> dict[str, str]:
    """The ids of sessions that begin like that, each with its title."""
    try:
        found = run(_listed, _way(typed))
    except (Failure, ClientError, RpcError, trio.TooSlowError, ValueError, LookupError):
        return {}
    return {
        session.session_id: one_line(session.title or session.cwd, TITLE_WIDTH)
        for session in found
        if session.session_id.startswith(prefix) and (killed or not is_killed(session))
    }


def removable(prefix: str, typed: argparse.Namespace) -> dict[str, str]:
    """The same of all that can be removed: killed sessions, and those that cannot be read."""
    try:
        damaged = run(_damaged, _way(typed))
    except (Failure, ClientError, RpcError, trio.TooSlowError, ValueError, LookupError):
        return {}
    unread = {found.session_id: "damaged" for found in damaged}
    offered = {name: told for name, told in unread.items() if name.startswith(prefix)}
    return sessions(prefix, typed, killed=True) | offered


def _way(typed: argparse.Namespace) -> Way:
    """The way to the daemon that the line names so far, or the usual one."""
    connect: str | None = getattr(typed, "connect", None)
    token_file: str | None = getattr(typed, "token_file", None)
    state_dir: str | None = getattr(typed, "state_dir", None)
    if connect is not None:
        address = read_address(connect, has_token=token_file is not None)
        return Way.to(Remote(address, token_file))
    return Way.within(state_dir or default_state_dir(os.environ))


async def _listed(way: Way) -> list[SessionInfo]:
    with trio.fail_after(PATIENCE):
        async with open_client(way.address, token=way.token, name="moorage") as client:
            return await client.sessions()


async def _damaged(way: Way) -> list[DamagedRow]:
    with trio.fail_after(PATIENCE):
        async with open_client(way.address, token=way.token, name="moorage") as client:
            return (await client.live()).damaged
