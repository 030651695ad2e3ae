"""The files that are being read now. Each belongs to the connection that brings it.

A client that goes in the middle leaves nothing behind; one that stands still makes room for
others.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import trio

from moorage_daemon.identity import new_id
from moorage_daemon.sessions import Sessions
from moorage_daemon.store.port import StoreError
from moorage_protocol.errors import NotFound, Overloaded


if TYPE_CHECKING:  # it is loaded when the first file comes
    from moorage_daemon.transfer.intake import Intake

logger = logging.getLogger(__name__)

MAX_IMPORTS = 8  # at once, each with a line in memory
STALE = 60.0  # seconds of silence after which an import makes room


class _Open(msgspec.Struct, frozen=True):
    connection: str
    intake: "Intake"


@dataclass(eq=False)
class Imports:
    """Files by the id of their import; `_leaving` are those whose rest is still being removed."""

    sessions: Sessions
    _open: dict[str, _Open] = field(default_factory=dict[str, _Open])
    _leaving: list["Intake"] = field(default_factory=list["Intake"])

    def begin(
        self, connection: str, intake: "Callable[[Sessions, Callable[[str], bool]], Intake]"
    ) -> str:
        """A file begins, which `intake` reads; gives its import's id. Raises `Overloaded`.

        `intake` is told which sessions there are, and asks which ids are taken.
        """
        if len(self._open) >= MAX_IMPORTS:
            self._make_room()
        import_id = new_id()
        self._open[import_id] = _Open(connection, intake(self.sessions, self._is_taken))
        return import_id

    def _is_taken(self, session: str) -> bool:
        """Whether there is, or may be, anything stored under that id."""
        written = [*(found.intake for found in self._open.values()), *self._leaving]
        return self.sessions.head(session) is not None or any(
            intake.session_id == session for intake in written
        )

    def _make_room(self) -> None:
        idle = [name for name, found in self._open.items() if not found.intake.is_busy]
        oldest = min(idle, key=lambda name: self._open[name].intake.touched, default=None)
        if oldest is None or trio.current_time() - self._open[oldest].intake.touched < STALE:
            raise Overloaded
        self.drop(oldest)

    def find(self, connection: str, import_id: str) -> "Intake":
        """The file that this connection brings under that id; raises `NotFound`."""
        found = self._open.get(import_id)
        if found is None or found.connection != connection:
            raise NotFound
        return found.intake

    def forget(self, import_id: str) -> None:
        """A file was read to its end."""
        self._open.pop(import_id, None)

    def drop(self, import_id: str) -> None:
        """Give a file up, and remove what was written of it."""
        found = self._open.pop(import_id, None)
        if found is not None:
            self._leaving.append(found.intake)
            self.sessions.around.sessions.start_soon(self._discard, found.intake)

    async def _discard(self, intake: "Intake") -> None:
        try:
            await intake.discard()
        except StoreError:
            logger.exception("what is left of an import stays until the next start")
        self._leaving.remove(intake)

    def drop_all_of(self, connection: str) -> None:
        """A client has gone."""
        for name in [name for name, found in self._open.items() if found.connection == connection]:
            self.drop(name)
