"""A daemon that lets a second principal in: the real one in all but who its WebSocket knows.

    python -m tests.e2e.two_tokens --state-dir DIR

The second token stands in DIR/other-token. It says where it listens as the daemon does, and runs
until it is killed.
"""

import json
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

import trio

from moorage_daemon.app import OWNER, open_app
from moorage_daemon.identity import Principal
from moorage_daemon.settings import Settings, WebsocketAddress
from moorage_daemon.statedir import StateDir, open_state_dir
from moorage_daemon.transports.gate import PATH, Gate, token_check
from moorage_daemon.transports.room import open_room
from moorage_daemon.transports.websocket import open_websocket
from moorage_protocol.moorage import Role


OTHER = Principal("other", Role.OWNER)
TOKEN_FILE = "other-token"


def either(*checks: Callable[[str], Principal | None]) -> Callable[[str], Principal | None]:
    """The principal of whichever token it is."""

    def authenticate(token: str) -> Principal | None:
        return next(filter(None, (check(token) for check in checks)), None)

    return authenticate


async def serve(state: StateDir, token: str) -> None:
    authenticate = either(token_check(state.token, OWNER), token_check(token, OTHER))

    def gate_for(port: int) -> Gate:
        return Gate(port, authenticate)

    address = WebsocketAddress("127.0.0.1", 0)
    async with open_app(Settings(state_dir=state.path), state) as app:
        async with open_websocket(address, gate_for, app.serve, open_room()) as port:
            told = {"ready": True, "websocket": f"ws://127.0.0.1:{port}{PATH}"}
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()
            await trio.sleep_forever()


def main(state_dir: Path) -> None:
    with open_state_dir(state_dir) as state:
        token = secrets.token_urlsafe(32)
        (state_dir / TOKEN_FILE).write_text(token)
        trio.run(serve, state, token)


if __name__ == "__main__":
    main(Path(sys.argv[2]))
