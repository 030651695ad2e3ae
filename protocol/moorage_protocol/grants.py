"""Grants and permissions in the shapes they have on the wire, in settings and on disk.

A field that is not known here is refused, never ignored: who misspells a limit has none.
"""

from enum import StrEnum
from typing import Annotated

from msgspec import UNSET, Meta, Raw, UnsetType, field

from moorage_protocol.acp import Shape


MOST = 2**53 - 1  # the largest integer that every JSON reader keeps
MAX_TIME = 86_400  # seconds; a grant is for a task, and no task is a day long
MIN_TIME = 1

# The tools that rules name, beside mcp__SERVER__TOOL. An agent may bring others.
TOOLS = (
    "Read", "Write", "Edit", "List", "Glob", "Search",
    "Run", "Bash", "Todo", "Fetch", "Delegate", "Recall",
)  # fmt: skip

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


# ---- the methods: a grant made, used and ended by whoever it was made for


class GrantWish(Shape, frozen=True, forbid_unknown_fields=True):
    """A grant as somebody wishes it. `tools` has to be said: null is any, an empty list none.

    Where `agent` is absent it is the session's. `parent` is the grant to carve it out of.
    """

    tools: tuple[str, ...] | UnsetType | None = UNSET
    agent: str | None = None
    intent: str = ""
    credentials: tuple[str, ...] = ()
    budget: Budget = Budget()
    rate: RateLimit | None = None
    time_limit_seconds: float = 3600.0
    ceiling: Sensitivity = Sensitivity.INTERNAL
    depth: int = 4
    parent: str | None = None


class SessionGrant(GrantWish, frozen=True, forbid_unknown_fields=True):
    """What a new session stands on: the grant of that id, or a new one that ends with it."""

    grant_id: str | None = None


class CreateParams(GrantWish, frozen=True, forbid_unknown_fields=True):
    """`session_id` is the session that the grant is for: it ends with that one."""

    session_id: str | None = None
    meta: Raw | UnsetType = field(name="_meta", default=UNSET)


class GrantParams(Shape, frozen=True):
    grant_id: str


class UseParams(GrantParams, frozen=True):
    """`tool` is a tool's name, or `Tool(what it is about)`."""

    agent: str
    tool: str


class UseBatchParams(GrantParams, frozen=True):
    agent: str
    tools: list[str]


class RaiseParams(GrantParams, frozen=True, forbid_unknown_fields=True):
    budget: Budget = Budget()
    time_limit_seconds: float | None = None
    meta: Raw | UnsetType = field(name="_meta", default=UNSET)


class AgentParams(Shape, frozen=True):
    agent: str


class GrantListParams(Shape, frozen=True):
    agent: str | None = None
    cursor: str | None = None


class Remaining(Shape, frozen=True):
    """What is left; an axis that is absent has no limit."""

    seconds: float
    calls: int | None = None
    tokens: int | None = None
    micros: int | None = None


class GrantStatus(Shape, frozen=True, omit_defaults=False):
    """How a grant stands. `warnings` are the axes, and "seconds", of which a fifth is left."""

    grant_id: str
    revision: int
    state: GrantState
    remaining: Remaining
    warnings: list[str]


class Used(Shape, frozen=True, omit_defaults=False):
    """What was used by the agent itself, and how often it was refused."""

    calls: int
    tokens: int
    micros: int
    seconds: float
    refused: int


class GrantDetail(GrantStatus, frozen=True, kw_only=True, omit_defaults=False):
    """All there is to say of a grant to whom it belongs.

    `given` is what grants below it hold or have used; `chain` are the grants above, the first one
    first. While the session that it was made for is `paused`, nobody else may use it. Times are
    seconds since 1970.
    """

    agent: str
    intent: str
    tools: tuple[str, ...] | None
    credentials: tuple[str, ...]
    budget: Budget
    rate: RateLimit | None
    time_limit_seconds: float
    ceiling: Sensitivity
    depth: int
    chain: list[str]
    session_id: str | None
    paused: bool
    used: Used
    given: Budget
    created_at: float
    ended_at: float | None
    cause: str | None


class GrantSummary(Shape, frozen=True, omit_defaults=False):
    """How a grant was used: `utilisation` is the part of its calls, null without a limit."""

    calls: int
    utilisation: float | None
    seconds: float
    refused: int


class CloseResult(Shape, frozen=True, omit_defaults=False):
    summary: GrantSummary


class CloseForAgentResult(Shape, frozen=True, omit_defaults=False):
    closed: int


class GrantListResult(Shape, frozen=True, omit_defaults=False):
    grants: list[GrantDetail]
    next_cursor: str | UnsetType | None = UNSET


class GcResult(Shape, frozen=True, omit_defaults=False):
    removed: int
