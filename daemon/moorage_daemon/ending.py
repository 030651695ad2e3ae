"""What has to be done to its end, whoever waits for it: the client that asked may be gone by then.

Closing, removing and recording a kill begin in the tick of the request and take until the last
verdict is durable. So they run beside the conductors and not in a connection's tasks.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from moorage_daemon.store.port import StoreError
from moorage_protocol.errors import RpcError, StorageError


@dataclass(eq=False)
class Ending:
    """Something that was begun; until it is done it counts as not written."""

    _done: trio.Event = field(default_factory=trio.Event)
    _problem: RpcError | None = field(default_factory=StorageError)

    async def bring_about(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do it, and let those know who wait."""
        try:
            await work()
            self._problem = None
        except RpcError as error:
            self._problem = error
        except StoreError:
            pass  # it was told in the log where it happened
        finally:
            self._done.set()

    async def over(self) -> None:
        """Wait for it; raises the `RpcError` that it came to."""
        await self._done.wait()
        if self._problem is not None:
            raise self._problem
