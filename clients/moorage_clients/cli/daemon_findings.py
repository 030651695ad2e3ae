"""Whether the daemon of a state directory runs, answers, and can write."""

from collections.abc import AsyncGenerator

import trio

from moorage_clients.client import Client, open_client
from moorage_clients.errors import ClientError
from moorage_clients.plain_text import counted
from moorage_protocol import __version__
from moorage_protocol.checkup import Finding, State
from moorage_protocol.errors import RpcError
from moorage_protocol.rendezvous import DaemonInfo, is_alive, read_daemon, read_token


PATIENCE = 5.0  # seconds for a daemon to answer; it takes milliseconds

SEE_LOGS = "See: moorage daemon logs. It is ended with: moorage daemon stop, and again to insist"


async def look_at_daemon(state_dir: str) -> list[Finding]:
    """What there is to say of it; none is started."""
    return [finding async for finding in _look(state_dir)]


async def _look(state_dir: str) -> AsyncGenerator[Finding]:
    daemon = read_daemon(state_dir)
    if not is_alive(state_dir):
        yield Finding("daemon", State.GOOD, "none runs, the next command starts one")
        return
    if daemon is None:
        said = "one runs, and does not listen yet or any more"
        yield Finding("daemon", State.WEAK, said, SEE_LOGS)
        return
    try:
        with trio.fail_after(PATIENCE):
            async with open_client(f"unix:{daemon.unix}", name="moorage") as client:
                yield _version(client, daemon)
                yield await _store(client)
    except (ClientError, RpcError, trio.TooSlowError) as error:
        said = f"pid {daemon.pid} runs and does not answer at {daemon.unix}: {_problem(error)}"
        yield Finding("daemon", State.BROKEN, said, SEE_LOGS)
    yield await _websocket(state_dir, daemon)


def _version(client: Client, daemon: DaemonInfo) -> Finding:
    version = client.welcome.daemon.version
    if version == __version__:
        return Finding("daemon", State.GOOD, f"pid {daemon.pid} answers at {daemon.unix}")
    said = f"pid {daemon.pid} is of version {version}, this command of {__version__}"
    advice = "Start it again: moorage daemon stop, moorage daemon start"
    return Finding("daemon", State.WEAK, said, advice)


async def _store(client: Client) -> Finding:
    store = await client.store_health()
    if not store.healthy or store.low:
        problem = "has too little space" if store.healthy else "cannot be written"
        said = f"{store.name} {problem}: new prompts are refused"
        advice = "Make room on its disk; see: moorage daemon logs"
        return Finding("store", State.BROKEN, said, advice)
    if store.damaged:
        said = f"{counted(store.damaged, 'session')} in {store.name} cannot be read"
        advice = "moorage ls names them, moorage delete removes one"
        return Finding("store", State.WEAK, said, advice)
    return Finding("store", State.GOOD, f"{store.name} takes what is written")


async def _websocket(state_dir: str, daemon: DaemonInfo) -> Finding:
    about = "websocket"
    if daemon.websocket is None:
        return Finding(about, State.GOOD, "switched off")
    try:
        token = read_token(state_dir)
        with trio.fail_after(PATIENCE):
            async with open_client(daemon.websocket, token=token, name="moorage"):
                pass
    except OSError as error:
        return Finding(about, State.BROKEN, f"its token cannot be read: {error.strerror}", SEE_LOGS)
    except (ClientError, RpcError, trio.TooSlowError) as error:
        return Finding(about, State.BROKEN, f"{daemon.websocket}: {_problem(error)}", SEE_LOGS)
    return Finding(about, State.GOOD, f"{daemon.websocket} takes the token")


def _problem(error: Exception) -> str:
    match error:
        case trio.TooSlowError():
            return "no answer in time"
        case RpcError(message=message):
            return message
        case _:
            return str(error)
