"""What handlers are given, and the kinds of answer they give."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import msgspec

from moorage_daemon.agents.absent import agent_named
from moorage_daemon.agents.port import Agent
from moorage_daemon.handlers.options import Offered
from moorage_daemon.housekeeping import Housekeeping
from moorage_daemon.identity import Identity, TuiKeys
from moorage_daemon.ledger.ledger import Ledger
from moorage_daemon.log.log import Log
from moorage_daemon.session import Session
from moorage_daemon.sessions import Sessions
from moorage_daemon.tools.client import Client
from moorage_daemon.transfer.imports import Imports
from moorage_daemon.turn.turn import Turn
from moorage_protocol.errors import RpcError
from moorage_protocol.moorage import Access, InitializeParams


P = TypeVar("P", bound=msgspec.Struct)


class Now(msgspec.Struct, frozen=True):
    """The answer, and frames that go out behind it."""

    result: msgspec.Struct
    then: tuple[bytes, ...] = ()


class AtSeq(msgspec.Struct, frozen=True):
    """An answer that stands in the log's order: it goes out when the client has entry `seq`.

    `is_replay` says that having the entries before is what was asked for.
    """

    log: Log
    seq: int
    result: msgspec.Struct | RpcError
    then: tuple[bytes, ...] = ()
    is_replay: bool = False


class OnVerdict(msgspec.Struct, frozen=True):
    """The answer to a prompt: it goes out behind the verdict of its turn."""

    session: Session
    turn: Turn


class Later(msgspec.Struct, frozen=True):
    """An answer that takes waiting; it is worked out beside the connection's other requests.

    One that is `certain` is there already and only has to be found: nothing is left to cancel. One
    that `has_acted` is never refused for being one too many: it would deny what has happened. What
    it answers can happen once, or there is no bound.
    """

    work: Callable[[], Awaitable[msgspec.Struct | AtSeq]]
    certain: bool = False
    has_acted: bool = False


Answer = Now | AtSeq | OnVerdict | Later


class About(msgspec.Struct, frozen=True):
    """What the daemon says of itself."""

    version: str
    pid: int
    node: str
    started: float


@dataclass(eq=False)
class Desk:
    """What handlers work on, the same for all connections."""

    about: About
    sessions: Sessions
    housekeeping: Housekeeping
    ledger: Ledger
    tuis: TuiKeys
    agents: dict[str, Agent]
    default_agent: str
    providers: Offered
    imports: Imports
    close_is_served_to_all: bool
    connected: Callable[[], list[Identity]] = field(default=list)

    def agent_named(self, name: str) -> Agent:
        """The agent of that name, or a stand-in for one that is not configured any more."""
        return agent_named(self.agents, name)


class Peer(Protocol):
    """The connection a message came in on."""

    @property
    def identity(self) -> Identity:
        """Who is there."""
        ...

    def introduce(self, params: InitializeParams) -> Identity:
        """The peer has said who it is; raises `NotPermitted` for a wrong claim."""
        ...

    def lends_to(self, session_id: str) -> Client:
        """What the client lends to turns of the session that it prompts."""
        ...

    def access_to(self, session_id: str) -> Access | None:
        """How this connection attached to the session, None if it did not."""
        ...

    def attach_new(self, session: Session) -> None:
        """Send a session that this connection creates; its first entry is the answer's."""
        ...

    def attach(
        self, session: Session, after: int | None, access: Access, *, continues: bool = False
    ) -> None:
        """Send the session's entries beyond `after`, or only new ones.

        With `continues` the peer's own words among them are not for it: it had `after` before.
        """
        ...

    def detach(self, session_id: str) -> None:
        """Send no more of the session."""
        ...


Handler = Callable[[Desk, Peer, P], Answer]


class Method(msgspec.Struct, Generic[P], frozen=True):
    """One method: its params' shape and who handles it.

    `is_ours` says that the Agent Client Protocol does not know it, nor asks to forgive its params.
    """

    params: type[P]
    handle: Handler[P]
    before_initialize: bool = False
    is_ours: bool = False
