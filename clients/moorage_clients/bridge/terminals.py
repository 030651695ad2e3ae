"""The editor's terminals that a daemon has asked for and not let go of.

What runs in them are the editor's processes, so it outlives a daemon that is killed; whoever still
knows of them has to let go of them in its place.
"""

from typing import NamedTuple, TypeVar

from moorage_clients.bridge.frames import Frame


K = TypeVar("K")
V = TypeVar("V")

MAX_TERMINALS = 1000  # of one editor; of more, the oldest are left to it


class Terminal(NamedTuple):
    """As requests about it name it."""

    session: str
    id: str


class Terminals:
    """Those that are being made, by the request for each, and those that are there."""

    def __init__(self) -> None:
        self._making: dict[str, str] = {}  # request -> session
        self._there: dict[Terminal, None] = {}

    def asked(self, request: Frame) -> None:
        """The daemon's request is on its way to the editor."""
        if request.id is None or request.session is None:
            return
        if request.method == "terminal/create":
            _add(self._making, request.id, request.session)
        elif request.method == "terminal/release":
            found = request.value("params.terminalId")
            if isinstance(found, str):
                self._there.pop(Terminal(request.session, found), None)

    def is_making(self, key: str | None) -> bool:
        """Whether a terminal may still come of that request."""
        return key in self._making

    def made(self, answer: Frame, *, is_awaited: bool) -> Terminal | None:
        """The editor has answered a request; gives the terminal that came of it, if one did.

        One that is awaited is kept in mind: there is somebody to let go of it.
        """
        session = self._making.pop(answer.id or "", None)
        found = answer.value("result.terminalId")
        if session is None or not isinstance(found, str):
            return None
        terminal = Terminal(session, found)
        if is_awaited:
            _add(self._there, terminal, None)
        return terminal

    def lost(self) -> list[Terminal]:
        """Whoever asked for them is gone; gives those that are there."""
        left = [*self._there]
        self._there.clear()
        return left


def _add(found: dict[K, V], key: K, value: V) -> None:
    found[key] = value
    if len(found) > MAX_TERMINALS:
        del found[next(iter(found))]
