"""Grants and permissions in the shapes they have on the wire, in settings and on disk.

A field that is not known here is refused, never ignored: who misspells a limit has none.
"""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from moorage_protocol.acp import Shape


MOST = 2**53 - 1  # the largest integer that every JSON reader keeps
MAX_TIME = 86_400  # seconds; a grant is for a task, and no task is a day long
MIN_TIME = 1

Count = Annotated[int, Meta(ge=0, le=MOST)]


class Sensitivity(StrEnum):
    """How widely something may be known, from the widest to the narrowest."""

    PUBLIC = "public"
    INTERNAL = "internal"
    CONFIDENTIAL = "confidential"
    RESTRICTED = "restricted"

    @property
    def rank(self) -> int:
        """Greater is narrower."""
        return list(Sensitivity).index(self)


class GrantState(StrEnum):
    """Whether a grant still permits anything; the last two are final."""

    ACTIVE = "active"
    EXPIRED = "expired"
    CLOSED = "closed"


class Budget(Shape, frozen=True, forbid_unknown_fields=True):
    """The most that may be used of each; None is no limit. `micros` are millionths of a dollar."""

    calls: Count | None = None
    tokens: Count | None = None
    micros: Count | None = None


class RateLimit(Shape, frozen=True, forbid_unknown_fields=True):
    """At most so many calls in any so many seconds, wherever those begin."""

    calls: Annotated[int, Meta(ge=0, le=100_000)]
    per_seconds: Annotated[int, Meta(ge=1, le=MAX_TIME)] = 60


class Otherwise(StrEnum):
    """What happens to a call that no rule is about."""

    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"


class Permissions(Shape, frozen=True, forbid_unknown_fields=True):
    """Rules about tool calls; without `default` a call that no rule is about is left to others."""

    deny: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    ask: tuple[str, ...] = ()
    default: Otherwise | None = None


class OnTimeout(StrEnum):
    """What becomes of a question that nobody answered in time."""

    WAIT = "wait"
    REJECT = "reject"
    APPROVE = "approve"


class Asked(StrEnum):
    """To whom a question is put."""

    CONTROLLERS = "controllers"  # whoever is attached and may act
    OWNER = "owner"  # of these only the client that owns the session


class Confirmation(Shape, frozen=True, forbid_unknown_fields=True):
    """How a person is asked. A timeout approves only where that is written."""

    ask: Asked = Asked.CONTROLLERS
    timeout_seconds: Annotated[float, Meta(gt=0, le=31_536_000)] | None = None
    on_timeout: OnTimeout = OnTimeout.WAIT

    @property
    def limit(self) -> float | None:
        """Seconds after which something happens by itself, None for never."""
        return None if self.on_timeout is OnTimeout.WAIT else self.timeout_seconds
