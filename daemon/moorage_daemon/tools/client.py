"""The client that prompted, as far as it lends its agent files and terminals.

An editor knows more than the disk does: what was typed and is not saved. It also may go at any
moment, or never answer; so nothing waits for it without a bound, and what it cannot do is done
here instead.

    ClientFailed
    ├── ClientGone      it left
    ├── ClientSilent    it did not answer in time
    ├── ClientUnclear   what it answered is no answer
    └── ClientRefused   it answered with an error; `is_unserved`: it does not know such a request
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec


class ClientFailed(Exception):
    """The client did not do what it was asked for."""


class ClientGone(ClientFailed):
    """It left; whether it did it is not known."""


class ClientSilent(ClientFailed):
    """It did not answer in time; whether it did it is not known."""


class ClientUnclear(ClientFailed):
    """It answered with what is no answer; whether it did it is not known."""


class ClientRefused(ClientFailed):
    """It said no."""

    def __init__(self, *, is_unserved: bool = False) -> None:
        super().__init__("the client refused")
        self.is_unserved = is_unserved


class Ended(msgspec.Struct, frozen=True):
    """How a command in a terminal ended: by an exit code or a signal, as far as its client says."""

    code: int | None = None
    signal: str | None = None


class Screen(msgspec.Struct, frozen=True):
    """What a terminal shows; `is_cut` says that earlier output is lost."""

    text: str
    is_cut: bool = False
    ended: Ended | None = None


class Terminal(Protocol):
    """A command in a terminal of the client; it is `kill`ed in the end, however it came to that."""

    @property
    def pid(self) -> int | None:
        """None: its processes are the client's."""
        ...

    def kill(self) -> None:
        """End the command if it runs, and let go of the terminal: no checkpoint, idempotent."""
        ...

    async def start(self) -> None:
        """Start the command: it is asked for before the first checkpoint. Raises `ClientFailed`."""
        ...

    async def screen(self) -> Screen:
        """What there is to see now; raises `ClientFailed`."""
        ...

    async def ended(self, seconds: float) -> Ended | None:
        """Wait so long for the end; None while the command runs. Raises `ClientFailed`."""
        ...


class Client(Protocol):
    """What a client lends to one session. Paths are absolute."""

    @property
    def reads_files(self) -> bool:
        """Whether `read_text` is of use."""
        ...

    @property
    def writes_files(self) -> bool:
        """Whether `write_text` is of use."""
        ...

    @property
    def has_terminals(self) -> bool:
        """Whether `terminal` is of use."""
        ...

    async def read_text(self, path: str) -> str:
        """The text of a file as its user sees it; raises `ClientFailed`."""
        ...

    async def write_text(self, path: str, text: str) -> None:
        """Replace a file's text; raises `ClientFailed`."""
        ...

    def terminal(self, command: str, arguments: Sequence[str], cwd: str) -> Terminal:
        """A terminal for a command that is not started yet."""
        ...
