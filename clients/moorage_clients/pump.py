"""Lines on standard input and output, to and from a daemon's WebSocket.

What `moorage acp` starts for a daemon that is named by its address. The first line that comes in
is the token. The first line on standard error is empty when the connection stands, and else says
why it does not; nothing is ever said there afterwards. It ends with either side.
"""

import logging
import os
import sys

import trio

from moorage_clients.errors import CannotConnect, ConnectionLost
from moorage_clients.links import LineLink, Link
from moorage_clients.websocket_link import open_websocket_link


PATIENCE = 15.0  # seconds for the handshake; whoever started us waits a little longer


def main() -> None:
    """Pump until one side is gone."""
    logging.disable()  # the one line is all that standard error is for
    token = _read_line()
    try:
        trio.run(_pump, sys.argv[1], token)
    except CannotConnect as error:
        _say(error.problem)
    except trio.TooSlowError:
        _say("it does not answer")


def _read_line() -> str:
    """Byte by byte: what follows the line is not ours to take."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            sys.exit(0)
        line += byte
    return line.decode().strip()


def _say(problem: str) -> None:
    os.write(2, f"{problem}\n".encode())


async def _pump(address: str, token: str) -> None:
    editor = LineLink(trio.StapledStream(trio.lowlevel.FdStream(1), trio.lowlevel.FdStream(0)))
    with trio.fail_after(PATIENCE) as connecting:
        async with open_websocket_link(address, token) as daemon:
            connecting.deadline = float("inf")
            _say("")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_copy, editor, daemon, nursery.cancel_scope)
                nursery.start_soon(_copy, daemon, editor, nursery.cancel_scope)


async def _copy(source: Link, sink: Link, everything: trio.CancelScope) -> None:
    try:
        while True:
            await sink.send([await source.receive()])
    except ConnectionLost:
        everything.cancel()


if __name__ == "__main__":
    main()
