"""What moorage adds to the Agent Client Protocol: own methods, own keys under `_meta.moorage`.

A client that says nothing of moorage in `initialize` never meets any of this. `seq` numbers the
entries of a session's log, 1, 2, 3 … without gaps; `generation` numbers its turns.
"""

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import UNSET, Raw, UnsetType

from moorage_protocol.acp import (
    AgentCapabilities,
    ClientCapabilities,
    ConfigOption,
    Cost,
    CwdParams,
    Implementation,
    LoadParams,
    Meta,
    SessionModes,
    SessionParams,
    Shape,
    StopReason,
    Usage,
)
from moorage_protocol.config import ConfigWish, Labels
from moorage_protocol.grants import SessionGrant


class Mode(StrEnum):
    """Which siblings a session has: one TUI keeps chats and code sessions apart."""

    CHAT = "chat"
    CODE = "code"


class Posture(StrEnum):
    """What the tools of a session may do unasked; clients know it as the session's mode."""

    ASK = "ask"
    AUTO_EDIT = "auto-edit"
    READ_ONLY = "read-only"


class State(StrEnum):
    """A session as others see it."""

    IDLE = "idle"
    RUNNING = "running"
    REQUIRES_ACTION = "requires_action"
    PAUSED = "paused"
    KILLED = "killed"
    STORAGE_FAILED = "storage_failed"


class Cause(StrEnum):
    """Why a turn was asked to stop. There is no "unknown": whoever stops a turn says why."""

    CLIENT_RPC = "client_rpc"
    ADMIN_KILL = "admin_kill"
    SESSION_REMOVED = "session_removed"
    SUPERSEDED = "superseded"
    TURN_TIMEOUT = "turn_timeout"
    SESSION_EXPIRED = "session_expired"
    BUDGET = "budget"
    AGENT_DEACTIVATED = "agent_deactivated"
    PARENT_CANCELLED = "parent_cancelled"
    SHUTDOWN = "shutdown"
    DAEMON_RESTART = "daemon_restart"


class Outcome(StrEnum):
    """How a turn ended."""

    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"
    REFUSED = "refused"


class CancelOutcome(StrEnum):
    """What a cancel found: it stopped a turn, or there was nothing it could stop."""

    FIRED = "fired"
    ALREADY = "already"
    FINISHED = "finished"
    STALE = "stale"
    IDLE = "idle"


class OnBusy(StrEnum):
    """What a prompt does when a turn is running or waiting."""

    QUEUE = "queue"
    REFUSE = "refuse"
    SUPERSEDE = "supersede"


class Scope(StrEnum):
    """Which turns a cancel is about."""

    CURRENT = "current"
    QUEUED = "queued"
    ALL = "all"


class Access(StrEnum):
    CONTROLLER = "controller"
    OBSERVER = "observer"


class Role(StrEnum):
    OPERATOR = "operator"
    OWNER = "owner"
    OBSERVER = "observer"


# ---- initialize


class ClientHello(Shape, frozen=True):
    """A client that sends this object, `{}` too, has advertised moorage.

    `instance` is a name that one running client has made up for itself and keeps over its
    connections. With `relay` a program speaks for a client that has not advertised anything: the
    answer to `initialize` is all of moorage's own that it is sent unasked.
    """

    tui_id: str | None = None
    tui_secret: str | None = None
    name: str | None = None
    instance: str | None = None
    relay: bool = False


class DaemonInfo(Shape, frozen=True):
    version: str
    pid: int
    node: str


class Limits(Shape, frozen=True):
    max_frame_bytes: int
    max_open_requests: int


class Welcome(Shape, frozen=True):
    """`tui_secret` comes once, with a new `tui_id`: a client keeps it to be that TUI again.

    `secrets` says that blocks of a prompt can be marked as secret; elsewhere the mark is no help.
    """

    tui_id: str
    principal: str
    role: Role
    daemon: DaemonInfo
    limits: Limits
    methods: list[str]
    tui_secret: str | None = None
    secrets: bool = False


class InitializeParams(Shape, frozen=True):
    protocol_version: int
    client_capabilities: ClientCapabilities = ClientCapabilities()
    client_info: Implementation | None = None
    meta: Meta[ClientHello] = msgspec.field(name="_meta", default=Meta[ClientHello]())


class InitializeResult(Shape, frozen=True, omit_defaults=False):
    protocol_version: int
    agent_capabilities: AgentCapabilities
    agent_info: Implementation
    auth_methods: list[Raw] = []
    meta: Meta[Welcome] | UnsetType = msgspec.field(name="_meta", default=UNSET)


# ---- overrides


class Overrides(msgspec.Struct, frozen=True, omit_defaults=True):
    """The model settings of one session; None means the configured default."""

    model: str | None = None
    model_provider: str | None = None
    temperature: float | None = None


class OverridesPatch(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A change of overrides: absent keeps, null clears, a value sets; other names are refused."""

    model: str | UnsetType | None = UNSET
    model_provider: str | UnsetType | None = UNSET
    temperature: float | UnsetType | None = UNSET


class ConfigureParams(SessionParams, frozen=True):
    overrides: OverridesPatch


class ConfigureResult(Shape, frozen=True, omit_defaults=False):
    overrides: Overrides
    applies: str  # "now" | "next_turn"
    config_options: list[ConfigOption]


# ---- sessions


MAX_VARIABLE = 8192  # characters of one variable; long search paths have some 2,000

_Value = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_VARIABLE, pattern=r"^[^\0]*$")]
_Path = Annotated[str, msgspec.Meta(max_length=MAX_VARIABLE, pattern=r"^/[^\0]*$")]


class ToolEnvironment(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename="upper",
    omit_defaults=True,
    forbid_unknown_fields=True,
):
    """What a person's shell lends to the tools of their session; nothing else can be lent.

    None of it is secret: where programs are, and the address of an agent that keeps the keys.
    """

    path: _Value | None = None
    virtual_env: _Path | None = None
    ssh_auth_sock: _Path | None = None


class NewMeta(Shape, frozen=True):
    mode: Mode = Mode.CODE
    agent: str | None = None
    overrides: OverridesPatch = OverridesPatch()
    keep_siblings: bool = False
    labels: Labels = {}
    config: ConfigWish = ConfigWish()
    environment: ToolEnvironment | None = None
    grant: SessionGrant | None = None


class NewParams(CwdParams, frozen=True):
    meta: Meta[NewMeta] = msgspec.field(name="_meta", default=Meta[NewMeta]())


class NewResultMeta(Shape, frozen=True):
    """A client that has not advertised moorage is told `seq` alone."""

    seq: int
    owner: str | None = None
    mode: Mode | None = None
    parked: list[str] | UnsetType = UNSET
    grant_id: str | None = None


class NewResult(Shape, frozen=True):
    session_id: str
    modes: SessionModes | UnsetType = UNSET
    config_options: list[ConfigOption] | UnsetType = UNSET
    meta: Meta[NewResultMeta] | UnsetType = msgspec.field(name="_meta", default=UNSET)


class ReplayMeta(Shape, frozen=True):
    """Replay from behind `after_seq`: for a load that was cut when so much had come."""

    after_seq: int = 0


class ReplayParams(LoadParams, frozen=True):
    meta: Meta[ReplayMeta] = msgspec.field(name="_meta", default=Meta[ReplayMeta]())


class LoadedMeta(Shape, frozen=True):
    """A client that has not advertised moorage is told `seq` alone."""

    seq: int
    cwd: str | None = None


class LoadResult(Shape, frozen=True):
    modes: SessionModes | UnsetType = UNSET
    config_options: list[ConfigOption] | UnsetType = UNSET
    meta: Meta[LoadedMeta] | UnsetType = msgspec.field(name="_meta", default=UNSET)


class LiveRow(Shape, frozen=True):
    """A session as an operator lists it."""

    session_id: str
    agent: str
    owner: str
    principal: str
    mode: Mode
    cwd: str
    state: State
    generation: int
    seq: int
    queued: int
    pending_permissions: int
    attached: int
    created_at: float
    updated_at: float
    title: str | None = None
    started_at: float | None = None
    model: str | None = None
    cost: Cost | None = None
    killed: bool = False
    archived: bool = False


class SessionInfo(Shape, frozen=True):
    session_id: str
    cwd: str
    title: str | None = None
    updated_at: str | None = None
    archived: bool = False
    meta: Meta[LiveRow] | UnsetType = msgspec.field(name="_meta", default=UNSET)


class ListResult(Shape, frozen=True, omit_defaults=False):
    sessions: list[SessionInfo]
    next_cursor: str | UnsetType | None = UNSET


class LiveParams(Shape, frozen=True):
    all: bool = False


class DamagedRow(Shape, frozen=True):
    """A session that cannot be read: whose it is and what is in it, nobody knows."""

    session_id: str
    problem: str


class LiveResult(Shape, frozen=True, omit_defaults=False):
    """`damaged` is told to operators: none but they can remove those."""

    sessions: list[LiveRow]
    damaged: list[DamagedRow] = msgspec.field(default_factory=list[DamagedRow])


# ---- turns


class PromptMeta(Shape, frozen=True):
    prompt_id: str | None = None
    on_busy: OnBusy = OnBusy.QUEUE
    timeout_seconds: float | None = None


class BlockMeta(Shape, frozen=True):
    """What is ours about one content block: a `secret` one is for its turn and is never kept."""

    secret: bool = False


class SecretText(Shape, frozen=True, omit_defaults=False, tag_field="type", tag="text"):
    """A text block whose text is a secret."""

    text: str
    meta: Meta[BlockMeta] = msgspec.field(
        name="_meta", default=Meta[BlockMeta](moorage=BlockMeta(secret=True))
    )


class PromptParams(SessionParams, frozen=True):
    prompt: list[Raw]
    meta: Meta[PromptMeta] = msgspec.field(name="_meta", default=Meta[PromptMeta]())


class AlsoRequested(Shape, frozen=True):
    """A request to stop that came after the first one."""

    cause: Cause
    by: str
    at: float


class PromptVerdict(Shape, frozen=True):
    """`stop` is what a budget had no more of."""

    generation: int
    outcome: Outcome
    cause: Cause | None = None
    also_requested: list[AlsoRequested] = []
    cancel_lost: bool = False
    stop: str | None = None


class PromptResult(Shape, frozen=True):
    stop_reason: StopReason
    usage: Usage | UnsetType = UNSET
    meta: Meta[PromptVerdict] | UnsetType = msgspec.field(name="_meta", default=UNSET)


class CancelMeta(Shape, frozen=True):
    generation: int | None = None
    scope: Scope | None = None


class CancelParams(SessionParams, frozen=True):
    meta: Meta[CancelMeta] = msgspec.field(name="_meta", default=Meta[CancelMeta]())


class CancelResult(Shape, frozen=True):
    outcome: CancelOutcome
    generation: int | None = None


class WithdrawParams(SessionParams, frozen=True):
    generation: int


class WithdrawResult(Shape, frozen=True):
    withdrawn: bool


class PauseResult(Shape, frozen=True):
    """The state of a session after it was paused, or resumed."""

    state: State


class KillParams(SessionParams, frozen=True):
    reason: str | None = None


class KillResult(Shape, frozen=True, omit_defaults=False):
    killed: bool
    cause: Cause = Cause.ADMIN_KILL
    turns: list[int] = []
    processes: int = 0
    durable: bool = False


class ToolCallCounts(Shape, frozen=True, omit_defaults=False):
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    unknown: int = 0


class TokenUsage(Shape, frozen=True):
    """Tokens as models count them; what was cached or reasoned is counted in the first two."""

    input_tokens: int
    output_tokens: int
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: "TokenUsage") -> "TokenUsage":
        """Both together."""
        return TokenUsage(
            **{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__}
        )


NO_TOKENS = TokenUsage(input_tokens=0, output_tokens=0)


class Verdict(Shape, frozen=True):
    """How a turn ended, once and for ever. `cause` is set if and only if it was cancelled.

    `stop` is what a budget had no more of: "calls", "tokens" or "micros".
    """

    outcome: Outcome
    cause: Cause | None = None
    by: str | None = None
    also_requested: list[AlsoRequested] = []
    cancel_lost: bool = False
    forced: bool = False
    code: str | None = None
    stop: str | None = None
    stop_reason: StopReason | None = None
    tool_calls: ToolCallCounts = ToolCallCounts()
    usage: TokenUsage | None = None


class TurnRecord(Shape, frozen=True):
    """One turn as its entries tell it; times are seconds since 1970."""

    generation: int
    prompt: str
    queued_at: float
    by: str
    first_seq: int
    prompt_id: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    verdict: Verdict | None = None
    overrides: Overrides = Overrides()
    last_seq: int | None = None


class TurnsParams(SessionParams, frozen=True):
    after: int = 0
    limit: int = 100


class TurnsResult(Shape, frozen=True):
    turns: list[TurnRecord]
    next: int | None = None


# ---- the log


class AttachParams(SessionParams, frozen=True):
    """`continues`: an earlier connection of this client's instance was sent `after_seq`."""

    after_seq: int | None = None
    access: Access = Access.CONTROLLER
    continues: bool = False


class QueuedTurn(Shape, frozen=True):
    generation: int
    position: int
    prompt_id: str | None = None


class RunningTurn(Shape, frozen=True):
    generation: int
    started_at: float
    cause: Cause | None = None


class PendingPermission(Shape, frozen=True):
    tool_call_id: str
    title: str
    options: list[Raw]
    expires_at: float | None = None


class Snapshot(Shape, frozen=True, omit_defaults=False):
    """A session at one `seq`: what follows on the connection follows that entry."""

    session_id: str
    seq: int
    access: Access
    state: State
    queue: list[QueuedTurn]
    pending_permissions: list[PendingPermission]
    attached: int
    turn: RunningTurn | UnsetType = UNSET


class EntriesParams(SessionParams, frozen=True):
    after: int
    limit: int = 100
    kinds: list[str] | None = None


class EntriesResult(Shape, frozen=True):
    """`entries` are objects `{seq, at, generation?, kind, …}`; `gap`: some were trimmed."""

    entries: list[Raw]
    gap: bool = msgspec.field(default=False)
    next: int | None = None


class EntryMark(Shape, frozen=True):
    """What stands in `_meta.moorage` of every update made from an entry."""

    seq: int
    generation: int | None = None


class DetachReason(StrEnum):
    KILLED = "killed"
    CLOSED = "closed"
    SHUTDOWN = "shutdown"


class Detached(SessionParams, frozen=True):
    seq: int
    reason: DetachReason


class RespondParams(SessionParams, frozen=True):
    tool_call_id: str
    option_id: str


class RespondOutcome(StrEnum):
    APPLIED = "applied"
    ALREADY = "already"
    EXPIRED = "expired"
    UNKNOWN = "unknown"


class RespondResult(Shape, frozen=True):
    outcome: RespondOutcome


# ---- the daemon


class StoreHealth(Shape, frozen=True, omit_defaults=False):
    """What the daemon knows without writing: `healthy` says how the last write went.

    `low`: nothing new begins, for want of space. `damaged` sessions cannot be read.
    """

    name: str
    healthy: bool
    low: bool = False
    damaged: int = 0


class SessionCounts(Shape, frozen=True, omit_defaults=False):
    live: int
    parked: int
    by_agent: dict[str, int]


class StatusResult(Shape, frozen=True, omit_defaults=False):
    version: str
    pid: int
    node: str
    started: float
    store: StoreHealth
    sessions: SessionCounts
    connections: int
    turns: int


class TuiRow(Shape, frozen=True, omit_defaults=False):
    tui_id: str
    name: str | None
    principal: str
    connected: int
    transport: str | None
    sessions: int


class TuisResult(Shape, frozen=True, omit_defaults=False):
    tuis: list[TuiRow]
