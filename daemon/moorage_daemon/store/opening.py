"""Which store the setting `store` means: `SCHEME:REST`.

    sqlite:         a database in the state directory     sqlite:FILE   in that file
    file:           a directory of journals in it         file:DIR      in that directory
    memory:         nothing outlives the daemon

A relative path lies beneath the state directory. Other schemes are those of installed packages:
one declares the entry point SCHEME in the group `moorage.stores`, and it loads to a function
`open(rest: str, state_dir: Path)` that returns an async context manager which gives a `Store` as
`port` promises it, closes it on leaving, and raises `StoreError` on entering if it cannot be
opened, or `BadStore` when called if `rest` makes no sense. Packages are looked through only when
a scheme is not one of ours: that alone would add a third to the start.
"""

import importlib.metadata
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path, PurePath
from typing import cast

import msgspec

from moorage_daemon.settings import StoreAddress
from moorage_daemon.store import database
from moorage_daemon.store.disk import Disk, made
from moorage_daemon.store.port import Store
from moorage_daemon.store.sqlite import open_sqlite


GROUP = "moorage.stores"
DATABASE = "sessions.db"
DIRECTORY = "store"

Opening = AbstractAsyncContextManager[Store]
Factory = Callable[[str, Path], Opening]


class BadStore(Exception):
    """The setting `store` means no store; one line says why."""


class Choice(msgspec.Struct, frozen=True):
    """A store that was found but not touched. `path` is where it keeps its sessions, if we know.

    `inspect` raises the `StoreError` with which what is there could not be opened, if any.
    """

    open: Callable[[], Opening]
    path: Path | None = None
    inspect: Callable[[], None] = lambda: None


def find_store(address: StoreAddress, state_dir: Path) -> Choice:
    """The store that a setting means; raises `BadStore`."""
    rest = address.rest
    match address.scheme:
        case "memory":
            if rest:
                raise BadStore(f"store is {str(address)!r}, but memory: takes nothing behind it")
            return Choice(_open_memory)
        case "sqlite":
            path = _path(address, state_dir, DATABASE)
            return Choice(partial(open_sqlite, path), path, partial(database.inspect, path))
        case "file":
            path = _path(address, state_dir, DIRECTORY)
            return _files(path)
        case _:
            factory = _installed(address.scheme)
            opening = factory(rest, state_dir)
            return Choice(lambda: opening)


def _path(address: StoreAddress, state_dir: Path, default: str) -> Path:
    given = PurePath(address.rest or default)
    if not given.is_absolute() and ".." in given.parts:
        raise BadStore(f"store is {str(address)!r}, but a relative path lies beneath the state dir")
    return state_dir / given


@asynccontextmanager
async def _open_memory() -> AsyncGenerator[Store]:
    from moorage_daemon.store.memory import MemoryStore  # not above, as below

    yield MemoryStore()


def _files(path: Path) -> Choice:
    # Here and not above: not every daemon keeps files, and every one starts.
    from moorage_daemon.store.files import directory
    from moorage_daemon.store.files.store import open_files

    def ours() -> Disk:
        if path.exists():
            directory.inspect(path)  # before anything is changed in one of somebody else's
        return made(path)

    @asynccontextmanager
    async def opening() -> AsyncGenerator[Store]:
        async with open_files(ours()) as store:
            yield store

    return Choice(opening, path, partial(directory.inspect, path))


def _installed(scheme: str) -> Factory:
    """The factory that an installed package declares for a scheme."""
    found = importlib.metadata.entry_points(group=GROUP)
    for point in found:
        if point.name == scheme:
            return _loaded(point)
    known = ", ".join(f"{name}:" for name in ["sqlite", "file", "memory", *sorted(found.names)])
    raise BadStore(f"store is {scheme!r}:, there are: {known}")


def _loaded(point: importlib.metadata.EntryPoint) -> Factory:
    try:
        return cast("Factory", point.load())
    except (ImportError, AttributeError) as error:
        raise BadStore(f"the store {point.name}: cannot be loaded: {error}") from error
