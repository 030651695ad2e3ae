"""A command's way to the daemon: start one if none runs, talk to it, and say what went wrong."""

from collections.abc import Awaitable, Callable

import trio

from moorage_clients.cli.exits import Exit, Failure
from moorage_clients.cli.starting import start_daemon
from moorage_clients.client import Client, open_client
from moorage_clients.connection import OnPermission
from moorage_clients.errors import ClientError
from moorage_clients.identity import IdentityFile
from moorage_clients.plain_text import plain
from moorage_protocol.errors import NotFound, RpcError
from moorage_protocol.rendezvous import is_alive


CONNECT_PATIENCE = 10.0  # seconds for a daemon that runs to answer `initialize`

Work = Callable[[Client], Awaitable[Exit]]


def run_with_client(
    state_dir: str, work: Work, *, on_permission: OnPermission | None = None, start: bool = True
) -> Exit:
    """Connect to the daemon of `state_dir`, starting one if need be, and do the work.

    Raises `Failure` for whatever goes wrong between here and there.
    """
    if start:
        start_daemon(state_dir)
    elif not is_alive(state_dir):
        raise Failure(
            Exit.NO_DAEMON,
            f"No daemon runs in {state_dir}.",
            "Start one with: moorage daemon start",
        )
    try:
        return trio.run(_work, state_dir, work, on_permission, strict_exception_groups=True)
    except NotFound as error:
        raise Failure(Exit.NO_SESSION, plain(error.message)) from error
    except RpcError as error:
        raise Failure(Exit.FAILED, f"The daemon refused: {plain(error.message)}") from error
    except trio.TooSlowError as error:
        raise Failure(Exit.NO_DAEMON, "The daemon does not answer.", SEE_LOGS) from error
    except ClientError as error:
        raise Failure(Exit.NO_DAEMON, plain(str(error)), SEE_LOGS) from error


SEE_LOGS = "See: moorage daemon status, moorage daemon logs"


async def _work(state_dir: str, work: Work, on_permission: OnPermission | None) -> Exit:
    with trio.fail_after(CONNECT_PATIENCE) as connecting:
        async with open_client(
            state_dir=state_dir,
            name="moorage",
            identity=IdentityFile.in_state_dir(state_dir, "moorage"),
            on_permission=on_permission,
        ) as client:
            connecting.deadline = float("inf")
            return await work(client)
