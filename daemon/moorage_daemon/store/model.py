"""What is stored of a session: one small head, and an append-only log of entries.

Transcript, turn records, tool records and override history are views of the log, so nothing is
stored twice. An entry's body is JSON text that stays as it was written: a kind that this version
does not know survives loading and sending byte for byte.
"""

from enum import StrEnum
from typing import TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.structs import replace

from moorage_daemon.grants.account import Ended
from moorage_daemon.grants.grant import Grant, Spend
from moorage_protocol.acp import Cost, StopReason
from moorage_protocol.config import ConfigPatch, SessionConfig
from moorage_protocol.grants import GrantState
from moorage_protocol.moorage import NO_TOKENS, Mode, Overrides, Posture, TokenUsage, Verdict


B = TypeVar("B")

SCHEMA = 1  # of heads and entry bodies; a head with a higher one is opened read-only
MAX_PATH = 4096  # bytes of a session's directory; longer ones no system call takes


class Life(StrEnum):
    """The durable part of a session's state; killed is final."""

    ACTIVE = "active"
    PAUSED = "paused"
    KILLED = "killed"


class PromptRef(Struct, frozen=True, array_like=True):
    """A prompt id that was used, for which prompt and which turn; `seq` is its admission."""

    prompt_id: str
    digest: str
    generation: int
    seq: int


class Totals(Struct, frozen=True, omit_defaults=True):
    """What a session took so far: the sum of its cost entries, kept so that none has to be read.

    `micros` are millionths of a US dollar, None where no price was known; `used` tokens of
    `window` are in the context of the model that answered last.
    """

    tokens: TokenUsage = NO_TOKENS
    micros: int | None = None
    used: int = 0
    window: int | None = None


class GrantRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a grant stands; `parent` is what it was carved out of, `session` the one it is for."""

    grant: Grant
    spend: Spend
    parent: str | None = None
    revision: int = 1
    ended: Ended | None = None
    session: str | None = None


class Head(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What has to be known of a session without its log: to list it, to authorise, to resume.

    Times are seconds since 1970. `open_turns` are the generations that were admitted and have no
    verdict yet: after a crash they are what recovery has to end. `environment` is what its creator
    lent to its tools. `parent` is the session that this one was started for, `grant` the grant it
    stands on. One that is not `complete` is still being written out of a file: nobody sees it, and
    a restart removes it. Up to entry `imported` it came out of a file; 0 says that none of it did.
    Entry `compacted` has the summary that stands for its first turns; 0 says that none does.
    With a `record` it is no session but a grant, which is kept the same way.
    """

    id: str
    principal: str
    owner: str
    agent: str
    mode: Mode
    cwd: str
    created_at: float
    updated_at: float
    life: Life = Life.ACTIVE
    generation: int = 0
    open_turns: tuple[int, ...] = ()
    prompts: tuple[PromptRef, ...] = ()
    overrides: Overrides = Overrides()
    posture: Posture = Posture.ASK
    title: str | None = None
    archived: bool = False
    labels: dict[str, str] = {}
    parent: str | None = None
    config: SessionConfig = SessionConfig()
    totals: Totals = Totals()
    environment: dict[str, str] | None = None
    complete: bool = True
    imported: int = 0
    compacted: int = 0
    grant: str | None = None
    record: GrantRecord | None = None
    schema: int = SCHEMA


class Kind(StrEnum):
    """What an entry records. The first four are the protocol's own session updates."""

    MESSAGE = "message"  # a piece of text of the user or the agent
    TOOL = "tool"  # a tool call as clients show it
    PLAN = "plan"
    UPDATE = "update"  # any other session update
    STATE = "state"
    PROMPT = "prompt"  # a turn was admitted
    BEGIN = "begin"
    ASK = "ask"
    ANSWER = "answer"
    INTENT = "intent"  # a tool is about to start
    RESULT = "result"
    OVERRIDE = "override"
    CONFIG = "config"
    POSTURE = "posture"
    COMPACTION = "compaction"  # models are told a summary of the turns before, from here on
    COST = "cost"  # what an answer of a model took
    REPORT = "report"  # what was verified
    ARTIFACT = "artifact"  # bytes that a turn made
    UPLOAD = "upload"  # bytes that it was given
    ARCHIVE = "archive"
    IMPORTED = "imported"  # all before it came out of a file
    GRANT = "grant"  # a grant was made, or raised
    CHARGE = "charge"  # some of it was used, or given back
    END = "end"  # it has ended
    VERDICT = "verdict"


UPDATE_KINDS = frozenset({Kind.MESSAGE, Kind.TOOL, Kind.PLAN, Kind.UPDATE})


class Entry(Struct, frozen=True, gc=False):
    """One numbered item of a session's log.

    `body` is a JSON object without the fields that stand beside it here. `origin` names the
    client whose own words the entry repeats: they are not echoed to it.
    """

    seq: int
    at: float
    kind: str
    body: bytes
    generation: int | None = None
    origin: str | None = None


# ---- bodies, by kind; updates have the protocol's own shapes


class Body(Struct, frozen=True, rename="camel", omit_defaults=True):
    """Base of the entry bodies that are moorage's own."""


class StateBody(Body, frozen=True):
    state: Life
    by: str
    reason: str | None = None


class PromptBody(Body, frozen=True, kw_only=True):
    """`position` is 0 for a turn that starts at once; one that was `paused` waits for that to end.

    `content` holds the prompt while it waits in the queue; a turn that starts has it in its
    message entries. `meta` is what its client attached and is not ours, like trace context.
    """

    by: str
    position: int
    text: str
    prompt_id: str | None = None
    content: list[Raw] | None = None
    paused: bool = False
    meta: Raw | UnsetType = msgspec.field(name="_meta", default=UNSET)


class BeginBody(Body, frozen=True):
    overrides: Overrides = Overrides()


class AskBody(Body, frozen=True, kw_only=True):
    tool_call_id: str
    title: str
    tool_call: Raw
    options: list[Raw]
    expires_at: float | None = None


class AnswerBody(Body, frozen=True, kw_only=True):
    """`outcome` is "selected", "cancelled" or "timed_out"."""

    tool_call_id: str
    outcome: str
    option_id: str | None = None
    by: str | None = None


class IntentBody(Body, frozen=True, kw_only=True):
    """`rule` is the key under which an "always" answer is remembered; None if none was given."""

    tool_call_id: str
    tool: str
    arguments: Raw
    decision: str
    rule: str | None = None


class ResultBody(Body, frozen=True, kw_only=True):
    """`status` is "completed", "failed", "cancelled", "refused" or "unknown_outcome".

    `code` is a stable word for what broke, or for what refused it. The last two are what is known
    of a call that came out of a file: which addresses and which kinds of detail it named.
    """

    tool_call_id: str
    status: str
    code: str | None = None
    tool: str | None = None
    exit_code: int | None = None
    duration_ms: int | None = None
    output_bytes: int | None = None
    artifacts: tuple[str, ...] = ()
    metadata_keys: tuple[str, ...] = ()


class OverrideBody(Body, frozen=True):
    overrides: Overrides
    by: str


class ConfigBody(Body, frozen=True):
    """`changes` as they were asked for: null went back to the default."""

    changes: ConfigPatch
    by: str


class ArchiveBody(Body, frozen=True, omit_defaults=False):
    """Whether the session is off the usual list from here on."""

    archived: bool
    by: str


class PostureBody(Body, frozen=True):
    posture: Posture
    by: str


class CompactionBody(Body, frozen=True, kw_only=True):
    """`summary` stands for the turns up to number `upto` in what models are told; the log keeps
    them. Without a summary it was tried in vain, for `code`, and all is as before.

    A turn and not an entry is named: a cut never comes between a call and its result, and turns
    keep their numbers where a log that was trimmed is imported.
    """

    upto: int
    summary: str | None = None
    code: str | None = None


class CostBody(Body, frozen=True, kw_only=True):
    """`micros` are millionths of a US dollar; None says that nobody knows, as for `window`.

    What has a `purpose`, as "compaction", was asked beside the conversation.
    """

    provider: str
    model: str
    tokens: TokenUsage
    micros: int | None = None
    window: int | None = None
    purpose: str | None = None


class ArtifactBody(Body, frozen=True, kw_only=True):
    """Bytes of a turn, kept by their digest; `shown` of them stand in the log as well.

    The last two are what it was called in the file that it came out of.
    """

    sha256: str
    size: int
    tool: str
    name: str
    media: str = "text/plain; charset=utf-8"
    shown: int = 0
    tool_call_id: str | None = None
    artifact_id: str | None = None
    artifact_uri: str | None = None


class UploadBody(Body, frozen=True, kw_only=True):
    """Bytes that a session was given, kept by their digest; a later entry of it takes its place.

    `marker` stands for them in a prompt. `workspace_path` is where they were put for tools, below
    the session's directory; None if nowhere.
    """

    sha256: str
    size: int
    name: str
    marker: str = ""
    media: str = "application/octet-stream"
    workspace_path: str | None = None


class ImportedBody(Body, frozen=True, kw_only=True):
    """`source` is what kind of file it was, `former_id` how the session was called there.

    `lost` are the digests of bytes that it names and did not bring: no entry before it has them.
    """

    source: str
    former_id: str
    by: str
    notes: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


class GrantBody(Body, frozen=True):
    """A revision of a grant; the first one makes it."""

    grant: Grant
    revision: int
    by: str


class ChargeBody(Body, frozen=True, kw_only=True):
    """What was used of a grant; negative amounts were given back.

    What is held is for an answer that was asked for; with what that took it is given back.
    `session`, `generation` and `tool_call_id` say for what, if that is known here.
    """

    calls: int = 0
    tokens: int = 0
    micros: int = 0
    held_tokens: int = 0
    held_micros: int = 0
    tools: tuple[str, ...] = ()
    session: str | None = None
    generation: int | None = None
    tool_call_id: str | None = None


class EndBody(Body, frozen=True):
    """How a grant ended; `cause` is "closed" or what a turn could be stopped for."""

    state: GrantState
    cause: str
    by: str


class VerdictBody(Verdict, frozen=True, kw_only=True):
    """A verdict with the answer its prompt got."""

    answered: StopReason | None = None


def added(totals: Totals, cost: CostBody) -> Totals:
    """The totals with one more answer of a model."""
    micros = totals.micros
    if cost.micros is not None:
        micros = (micros or 0) + cost.micros
    if cost.purpose is not None:
        return replace(totals, tokens=totals.tokens + cost.tokens, micros=micros)
    return Totals(
        tokens=totals.tokens + cost.tokens,
        micros=micros,
        used=cost.tokens.input_tokens + cost.tokens.output_tokens,
        window=cost.window,
    )


def as_cost(micros: int) -> Cost:
    """An amount of money as clients are told it."""
    return Cost(amount=micros / 1_000_000)


def encode_body(body: Struct) -> bytes:
    """Write an entry body."""
    return msgspec.json.encode(body)


class UnreadableBody(Exception):
    """An entry is damaged, or of a version that wrote its kind in another shape."""


def read_body(entry: Entry, shape: type[B]) -> B:
    """Read an entry's body; raises `UnreadableBody`."""
    try:
        return msgspec.json.decode(entry.body, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableBody(f"entry {entry.seq}, {entry.kind}: {error}") from error
