"""What a tool is to the turn that calls it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import msgspec

from moorage_daemon.grants.calls import Call
from moorage_daemon.tools.client import Client
from moorage_protocol.acp import ToolCallContent, ToolCallLocation, ToolKind


A_contra = TypeVar("A_contra", bound=msgspec.Struct, contravariant=True)


class ToolFailed(Exception):
    """A tool could not do it; the text is for the user and the agent."""


class NotBegun(ToolFailed):
    """It did not so much as begin: nothing was started, and nothing is paid for."""


class Killable(Protocol):
    """Something that runs outside the daemon and can be ended at once."""

    @property
    def pid(self) -> int | None:
        """The process that is an ancestor of all of it; None where that is another program's."""
        ...

    def kill(self) -> None:
        """End it now: no checkpoint, idempotent."""
        ...


@dataclass(frozen=True)
class Bench:
    """Where a tool works: `cwd` is absolute; `running` is what a kill has to end.

    `progress` shows text while the tool is at work; it replaces what was shown before. `lent` is
    what the session's creator lent of their environment, None if they lent nothing. `client` is
    the one that prompted, None if it lends nothing or has left. `secrets` are the credentials that
    the arguments refer to, by name: they are for what is started here and go nowhere else. So are
    the arguments themselves where they hold a secret, which `is_secret` says.
    """

    cwd: str
    progress: Callable[[str], None]
    running: set[Killable] = field(default_factory=set[Killable])
    lent: Mapping[str, str] | None = None
    client: Client | None = None
    secrets: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    is_secret: bool = False


class Report(msgspec.Struct, frozen=True):
    """What a tool has to say: `text` for people and agents alike, `ok` whether it worked.

    `is_shown` says that what the call shows already says it better to people. `exit_code` is
    that of the program it ran, None if it ran none or that was ended by a signal. `whole` is all
    there is to read where `text` is only a part of it: what is taken out of the one has to be taken
    out of the other.
    """

    text: str
    ok: bool = True
    is_shown: bool = False
    exit_code: int | None = None
    whole: str | None = None


class Tool(Protocol[A_contra]):
    """One thing an agent can do.

    `asks` says that a person is asked first. `run` starts what it starts before its first
    checkpoint: the caller has checked in that very tick that it still may. A failure that the
    user should read about is a `ToolFailed`.
    """

    @property
    def name(self) -> str:
        """The word that permissions and records use."""
        ...

    @property
    def kind(self) -> ToolKind:
        """How clients draw it."""
        ...

    @property
    def asks(self) -> bool:
        """Whether a person is asked before each call."""
        ...

    def title(self, arguments: A_contra) -> str:
        """One line that says what this call will do, exactly."""
        ...

    def locations(self, arguments: A_contra, cwd: str) -> list[ToolCallLocation]:
        """The files this call is about."""
        ...

    def about(self, arguments: A_contra, cwd: str) -> Call:
        """The call as rules see it: under which name, and what it is about."""
        ...

    async def preview(self, arguments: A_contra, bench: Bench) -> Sequence[ToolCallContent]:
        """What a person should see before deciding; nothing for most. It changes nothing."""
        ...

    async def run(self, arguments: A_contra, bench: Bench) -> Report:
        """Do it."""
        ...
