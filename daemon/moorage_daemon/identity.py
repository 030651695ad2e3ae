"""Who is at the other end, and what that lets them do.

Access goes by principal: who authenticated. A TUI is something else: it groups sessions (eviction,
"mine", who owns a session after a reconnect) and guards nothing; its secret only keeps one client
from taking another's place. Every verb on a session passes `authorize`, in the tick of its effect.
"""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from moorage_protocol.errors import NotFound, NotPermitted
from moorage_protocol.moorage import Access, Role


LOCAL = "local"  # the daemon's own user, and the token of the first start
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


class Verb(StrEnum):
    """What can be done with a session: watch it, act on it, hold it or let it go on, end it."""

    WATCH = "watch"
    ACT = "act"
    PAUSE = "pause"
    KILL = "kill"


class Principal(msgspec.Struct, frozen=True):
    """Who authenticated, and as what."""

    name: str
    role: Role


class Identity(msgspec.Struct, frozen=True):
    """One connection's client. `advertised` says that it knows moorage's own messages.

    `origin` is what a client that names its instance has in common with itself on its other
    connections; for others it is the connection.
    """

    connection: str
    principal: Principal
    tui: str
    advertised: bool
    name: str | None = None
    transport: str = ""
    instance: str | None = None

    @property
    def origin(self) -> str:
        """Whose words are not echoed to it, and whose turns a bare cancel stops."""
        return self.connection if self.instance is None else f"{self.tui}/{self.instance}"


def authorize(
    principal: Principal, owner_principal: str, verb: Verb, access: Access | None = None
) -> None:
    """Return if the principal may do that to a session of `owner_principal`.

    `access` is how the connection attached, None if it did not. A session of somebody else
    answers like one that does not exist (`NotFound`), except to operators; a verb that the role
    or the attachment does not allow is `NotPermitted`.
    """
    operator = principal.role is Role.OPERATOR
    if principal.name != owner_principal and not operator:
        raise NotFound
    may_act = granted(principal, owner_principal, access) is Access.CONTROLLER
    match verb:
        case Verb.WATCH:
            allowed = True
        case Verb.ACT:
            allowed = may_act
        case Verb.PAUSE | Verb.KILL:
            allowed = may_act or operator
    if not allowed:
        raise NotPermitted


def granted(principal: Principal, owner_principal: str, wish: Access | None) -> Access:
    """How the principal may follow a session of `owner_principal`, at most as it wishes.

    Controllers are of the session's own principal; operators of others watch, pause, and end.
    """
    may_act = principal.name == owner_principal and principal.role is not Role.OBSERVER
    return Access.CONTROLLER if may_act and wish is not Access.OBSERVER else Access.OBSERVER


def new_id() -> str:
    """128 random bits as `[a-z0-9]{26}`: an id that nobody guesses and every file system takes."""
    return base64.b32encode(secrets.token_bytes(16)).decode().rstrip("=").lower()


def is_id(text: str) -> bool:
    """Whether `new_id` could have made it."""
    return len(text) == 26 and all(letter in _ALPHABET for letter in text)


@dataclass(frozen=True, repr=False)
class TuiKeys:
    """Issues and proves TUI identities. The secret is derived, so nothing has to be stored."""

    key: bytes

    def issue(self) -> tuple[str, str]:
        """A new TUI id and its secret."""
        tui = new_id()
        return tui, self.secret(tui)

    def prove(self, tui: str, secret: str | None) -> None:
        """Raise `NotPermitted` unless the secret is the one issued with that id."""
        if secret is None or not is_id(tui):
            raise NotPermitted("That tuiId needs the secret it was issued with")
        if not hmac.compare_digest(self.secret(tui).encode(), secret.encode()):
            raise NotPermitted("That tuiId needs the secret it was issued with")

    def secret(self, tui: str) -> str:
        """The secret that goes with a TUI id."""
        digest = hmac.new(self.key, b"tui:" + tui.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
