"""The WebSocket library as it comes: what our listener is compared with."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
from websockets.trio.server import Server, ServerConnection, serve


Handler = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def open_stock(handler: Handler, **settings: Any) -> AsyncGenerator[tuple[int, Server]]:
    """Its server on a free port; ended by cancelling it."""
    settings = {"compression": None, "ping_interval": None, "close_timeout": 1, **settings}
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(
            partial(serve, handler, 0, host="127.0.0.1", **settings)
        )
        yield server.listeners[0].socket.getsockname()[1], server
        nursery.cancel_scope.cancel()


def reader_tasks() -> int:
    """How many tasks of the library read from a client at this moment."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    return sum(task.name.endswith("recv_events") for task in _descendants(root))


def _descendants(task: trio.lowlevel.Task) -> list[trio.lowlevel.Task]:
    children = [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return [*children, *(below for child in children for below in _descendants(child))]
