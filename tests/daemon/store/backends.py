"""Every backend as a daemon opens it: closed and opened again, looked into, and spoilt."""

import sqlite3
from contextlib import AbstractAsyncContextManager, closing
from dataclasses import dataclass
from pathlib import Path

from moorage_daemon.settings import StoreAddress
from moorage_daemon.store.files.journal import name_of
from moorage_daemon.store.opening import DATABASE, DIRECTORY, find_store
from moorage_daemon.store.port import Store


DURABLE = ("sqlite", "file")
BACKENDS = ("memory", *DURABLE)


@dataclass(frozen=True)
class Backend:
    """A backend and the directory in which it keeps what it keeps."""

    name: str
    folder: Path

    def open(self) -> AbstractAsyncContextManager[Store]:
        """The store, on what is there."""
        return find_store(StoreAddress(self.name, ""), self.folder).open()

    def files(self) -> set[Path]:
        """All that lies there."""
        return {path for path in self.folder.rglob("*") if path.is_file()}

    def spoil(self, session: str, content: bytes) -> None:
        """Put something else in the place of what is known of a session; the store is closed."""
        if self.name == "file":
            (self.folder / DIRECTORY / "sessions" / name_of(session)).write_bytes(content)
            return
        with closing(sqlite3.connect(self.folder / DATABASE)) as database, database:
            database.execute("update session set head = ? where id = ?", (content, session))
