"""A daemon's core on one store, for one client on standard input and output: what is killed here.

Without a state directory and listeners, all that it asks of a disk it asks for its store.

    scribe STORE FOLDER [FAULT]

Faults, for control arms: a `hasty` store says that a commit is durable before it writes it, a
`careless` one does not wait for the medium to have it.
"""

import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import trio

from moorage_daemon.agents.scripted import ScriptedAgent
from moorage_daemon.app import open_conversation, open_core
from moorage_daemon.settings import Settings, StoreAddress
from moorage_daemon.store.files.store import open_files
from moorage_daemon.store.opening import DIRECTORY, find_store
from moorage_daemon.store.port import Change, Store, StoreError
from moorage_daemon.transports.stdio import open_stdio
from tests.daemon.store.lives import meddling
from tests.daemon.store.platters import Platter, TestDisk


GRACE = 2.0  # seconds
LATE = 0.02  # seconds between a hasty store's word and its deed
KEY = b"k" * 32


class Hasty:
    """A store that writes what it has said is written: later, if ever."""

    def __init__(self, store: Store, send: trio.MemorySendChannel[Sequence[Change]]) -> None:
        self._store, self._send = store, send

    async def commit(self, changes: Sequence[Change]) -> None:
        """Say that it is done."""
        await self._send.send(changes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@asynccontextmanager
async def hasty(opening: AbstractAsyncContextManager[Store]) -> AsyncGenerator[Store]:
    """The store, and behind its back what writes."""
    send, receive = trio.open_memory_channel[Sequence[Change]](1000)
    async with opening as store, trio.open_nursery() as nursery:
        nursery.start_soon(_write, store, receive)
        async with send:
            yield cast("Store", Hasty(store, send))  # it passes on all else


async def _write(store: Store, receive: trio.MemoryReceiveChannel[Sequence[Change]]) -> None:
    async for changes in receive:
        await trio.sleep(LATE)
        await store.commit(changes)


def opening_of(scheme: str, folder: Path, fault: str) -> AbstractAsyncContextManager[Store]:
    """The store as a daemon opens it, or as the fault has it."""
    if scheme == "file" and fault == "careless":
        (folder / DIRECTORY).mkdir(mode=0o700)
        return open_files(TestDisk(folder / DIRECTORY, Platter()))  # which is never synced
    opening = find_store(StoreAddress(scheme, ""), folder).open()
    return hasty(opening) if fault == "hasty" else opening


async def serve(scheme: str, folder: Path, fault: str) -> None:
    """Serve until the input ends; then turns are ended and everything is written."""
    settings = Settings(state_dir=folder, grace_seconds=GRACE)
    opening = opening_of(scheme, folder, fault)
    async with open_core(settings, opening, KEY, {"scripted": ScriptedAgent()}) as app:
        async with open_stdio() as transport, open_conversation(app, settings, transport):
            await transport.over.wait()


def main() -> None:
    """Run; a store that cannot be opened is one line and no traceback."""
    scheme, folder, fault = (*sys.argv[1:], "none")[:3]
    is_meddled = scheme == "sqlite" and fault == "careless"
    try:
        with meddling(careless=True) if is_meddled else nullcontext():
            trio.run(serve, scheme, Path(folder), fault)
    except* StoreError as problems:
        sys.exit(f"scribe: {problems.exceptions[0]}")


if __name__ == "__main__":
    main()
