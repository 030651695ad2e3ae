"""A command's way to the daemon: start one if none runs, talk to it, and say what went wrong."""

import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

import trio

from moorage_clients.cli.exits import Exit, Failure
from moorage_clients.cli.invocation import Invocation, Remote
from moorage_clients.cli.loop import run
from moorage_clients.cli.starting import prepare, start_daemon
from moorage_clients.client import Client, open_client
from moorage_clients.connection import OnPermission
from moorage_clients.conversation import OnConnection
from moorage_clients.errors import ClientError, KeepsNoSecrets, TooLarge
from moorage_clients.identity import IdentityFile
from moorage_clients.plain_text import plain
from moorage_protocol.errors import NotFound, RpcError
from moorage_protocol.rendezvous import is_alive, read_daemon


CONNECT_PATIENCE = 10.0  # seconds for a daemon that runs to answer `initialize`

SEE_LOGS = "See: moorage doctor, moorage daemon logs"
SEE_THERE = "Does a daemon run there, and does the address lead to it?"

# What can be done about a refusal, by the `kind` of its error.
_NEW = "Start another session with: moorage new"
_WIRE_WORDS = "Invalid params: "  # how every such message begins, for programs

_WAYS_OUT = {
    "expired": _NEW,
    "closed": _NEW,
    "budget": "Give it more with: moorage grant raise",
    "rate": "See how much it may do, and try again later: moorage grant show",
    "too_many": "End one with: moorage grant close (see them with: moorage grant list)",
    "paused": "Let it go on with: moorage resume",
    "busy": "Wait for the turn that runs, or stop it with: moorage cancel",
    "queue_full": "Wait for a turn to end, or drop what waits: moorage cancel --scope queued",
    "stopping": "Try again: a command starts the next daemon.",
    "storage": "See why with: moorage store health",
    "internal": SEE_LOGS,
}

Work = Callable[[Client], Awaitable[Exit]]


@dataclass(frozen=True)
class Way:
    """Where a daemon is, and what opens it. `hint` is what to do when it cannot be talked to."""

    address: str
    token: str | None = field(default=None, repr=False)
    hint: str = SEE_LOGS

    @classmethod
    def to(cls, remote: Remote) -> "Way":
        """To a daemon that was named; raises `Failure` if there is no token to be had."""
        from moorage_clients.cli.remote import token_of  # what it takes, few commands need

        return cls(remote.address, token_of(remote), SEE_THERE)

    @classmethod
    def within(cls, state_dir: str) -> "Way":
        """To the daemon of a state directory; raises `Failure` if none says where it is."""
        daemon = read_daemon(state_dir)
        if daemon is None:
            raise no_daemon(state_dir)
        return cls(f"unix:{daemon.unix}")


def no_daemon(state_dir: str) -> Failure:
    """None runs, and the command is none that starts one."""
    problem = f"No daemon runs in {state_dir}."
    return Failure(Exit.NO_DAEMON, problem, "Start one with: moorage daemon start")


def run_with_client(
    invocation: Invocation,
    work: Work,
    *,
    on_permission: OnPermission | None = None,
    on_connection: OnConnection | None = None,
    start: bool = True,
    returns: bool = True,
) -> Exit:
    """Connect to the daemon that is meant, starting one if need be, and do the work.

    When the connection is lost the client `returns` by itself, or leaves that to the work. A daemon
    that was named by its address is never started. Raises `Failure` for whatever goes wrong between
    here and there.
    """
    if invocation.remote is not None:
        way = Way.to(invocation.remote)
    else:
        if start:
            start_daemon(invocation.state_dir)
        elif not is_alive(invocation.state_dir):
            raise no_daemon(invocation.state_dir)
        way = Way.within(invocation.state_dir)
    identity = _identity(invocation)
    try:
        opening = open_client(
            way.address,
            token=way.token,
            name="moorage",
            identity=identity,
            on_permission=on_permission,
            on_connection=on_connection,
            returns=returns,
        )
        return run(_work, opening, work)
    except NotFound as error:
        raise Failure(Exit.NO_SESSION, plain(error.message)) from error
    except RpcError as error:
        message = plain(error.message)
        if not invocation.json:
            message = message.removeprefix(_WIRE_WORDS)
        problem = f"The daemon refused: {message}"
        raise Failure(Exit.FAILED, problem, _WAYS_OUT.get(error.kind, "")) from error
    except trio.TooSlowError as error:
        raise Failure(Exit.NO_DAEMON, "The daemon does not answer.", way.hint) from error
    except KeepsNoSecrets as error:
        problem = f"Nothing was sent: {error}."
        raise Failure(Exit.FAILED, problem, "Have it started anew: moorage daemon stop") from error
    except TooLarge as error:
        problem = f"That is too much at once: {error.limit >> 20} MiB are the most."
        raise Failure(Exit.USAGE, problem, "Put it in a file, and name that file.") from error
    except ClientError as error:
        raise Failure(Exit.NO_DAEMON, plain(str(error)), way.hint) from error


def _identity(invocation: Invocation) -> IdentityFile:
    """Who this terminal is to that daemon; another daemon knows it by another name."""
    if invocation.remote is None:
        return IdentityFile.in_state_dir(invocation.state_dir, "moorage")
    from moorage_clients.cli.remote import name_of

    prepare(invocation.state_dir)
    return IdentityFile.in_state_dir(invocation.state_dir, f"moorage-{name_of(invocation.remote)}")


async def _work(opening: AbstractAsyncContextManager[Client], work: Work) -> Exit:
    with trio.fail_after(CONNECT_PATIENCE) as connecting:
        async with opening as client:
            connecting.deadline = float("inf")
            if client.version_notice is not None:
                print(f"moorage: {plain(client.version_notice)}", file=sys.stderr)
            return await work(client)
