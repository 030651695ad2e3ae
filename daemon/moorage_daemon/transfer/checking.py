"""What of a file is believed: entries that this version can read and send, and a head that gives
its bringer nothing they have not got.

A head says whose a session is and what its tools may do unasked. Both are for whoever brings it to
say; of the policies only what forbids is taken over.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct
from msgspec.structs import replace

from moorage_daemon.store.model import (
    MAX_PATH,
    SCHEMA,
    UPDATE_KINDS,
    AnswerBody,
    ArchiveBody,
    ArtifactBody,
    AskBody,
    BeginBody,
    CompactionBody,
    ConfigBody,
    CostBody,
    Head,
    ImportedBody,
    IntentBody,
    Kind,
    OverrideBody,
    PostureBody,
    PromptBody,
    ResultBody,
    StateBody,
    UploadBody,
    VerdictBody,
)
from moorage_daemon.store.naming import digests_in
from moorage_daemon.store.port import MAX_BLOB
from moorage_daemon.transfer.lines import (
    OF_BYTES,
    Amount,
    BadLine,
    Count,
    EntryRecord,
    HeaderLine,
    Sum,
    Time,
    Window,
)
from moorage_protocol.config import (
    ConfigPatch,
    Confirmation,
    Labels,
    OnTimeout,
    PermissionDefault,
    Permissions,
)
from moorage_protocol.moorage import Posture
from moorage_protocol.views import Verification


MAX_HEAD = 512 * 2**10  # bytes: what is listed of it fits a message
MAX_BODY = 1000 * 2**10  # bytes of an entry's body: its message stays under 1 MiB
MAX_EXCERPT = 64 * 2**10  # bytes of a prompt in its admission: a page of turns fits a message

NULL = Raw(b"null")
MAX_SUMMARY = 128 * 2**10  # characters; more is no summary, and is told a model each time

BODIES: dict[str, type[Struct]] = {
    Kind.STATE: StateBody,
    Kind.PROMPT: PromptBody,
    Kind.BEGIN: BeginBody,
    Kind.ASK: AskBody,
    Kind.ANSWER: AnswerBody,
    Kind.INTENT: IntentBody,
    Kind.RESULT: ResultBody,
    Kind.OVERRIDE: OverrideBody,
    Kind.CONFIG: ConfigBody,
    Kind.POSTURE: PostureBody,
    Kind.COMPACTION: CompactionBody,
    Kind.COST: CostBody,
    Kind.REPORT: Verification,
    Kind.ARTIFACT: ArtifactBody,
    Kind.UPLOAD: UploadBody,
    Kind.ARCHIVE: ArchiveBody,
    Kind.IMPORTED: ImportedBody,
    Kind.VERDICT: VerdictBody,
}
OF_GRANTS = {Kind.GRANT, Kind.CHARGE, Kind.END}  # they stand in the log of a grant, never here
OF_A_TURN = {
    Kind.PROMPT,
    Kind.BEGIN,
    Kind.ASK,
    Kind.ANSWER,
    Kind.INTENT,
    Kind.COMPACTION,
    Kind.VERDICT,
}
BESIDE = {"sessionId", "seq", "at", "generation", "kind", "update"}  # these stand beside a body


def checked(record: EntryRecord, seq: int) -> bytes:
    """The body of the entry that is to be number `seq`; raises `BadLine`."""
    if record.seq != seq:
        raise BadLine(f"entry.seq must be {seq}")
    if record.kind in OF_GRANTS:
        raise BadLine(f"entry.kind is {record.kind}: that is of a grant, and no session has one")
    if record.kind in OF_A_TURN and record.generation is None:
        raise BadLine(f"entry.generation is missing: {record.kind} is of a turn")
    body = record.content
    if body is None:
        raise BadLine("entry.body is missing")
    check_body(record.kind, body)
    if record.kind == Kind.COMPACTION and not _is_of_before(body, record.generation or 0):
        raise BadLine("entry.body.upto is no turn before the one of the entry")
    return body


def _is_of_before(body: bytes, generation: int) -> bool:
    """Whether a summary is of turns before its own: else it would hide later ones."""
    found: CompactionBody = _decode(body, CompactionBody)
    return 0 < found.upto < generation


def check_body(kind: str, body: bytes) -> None:
    """Raises `BadLine` if this version could not read or send it."""
    fields = _decode(body, dict[str, Raw])
    if body[:1] != b"{" or b"\n" in body or b"\r" in body:
        raise BadLine("entry.body must be an object on one line")
    if len(body) > MAX_BODY and not (kind == Kind.PROMPT and _fits_without_content(fields)):
        raise BadLine(f"entry.body has more than {MAX_BODY} bytes: no client takes that")
    if kind in UPDATE_KINDS:
        if "sessionUpdate" not in fields:
            raise BadLine("entry.body.sessionUpdate is missing")
    elif not BESIDE.isdisjoint(fields):
        raise BadLine("entry.body has fields that stand beside it")
    if kind in BODIES:
        read = _decode(body, BODIES[kind])
        if kind in OF_BYTES and read.sha256 not in digests_in(body):
            raise BadLine("entry.body.sha256 is no digest, or is spelled so that none is seen")
        if kind in OF_BYTES:
            _decode(body, _Bytes)
        if isinstance(read, UploadBody) and not _lies_below(read.workspace_path):
            raise BadLine("entry.body.workspacePath leads out of the session's directory")
        if isinstance(read, CostBody):
            _decode(body, _Cost)
        if isinstance(read, ResultBody):
            _decode(body, _Result)
        if isinstance(read, CompactionBody):
            _decode(body, _Compaction)
        if isinstance(read, PromptBody) and len(read.text.encode()) > MAX_EXCERPT:
            raise BadLine(f"entry.body.text has more than {MAX_EXCERPT} bytes")


def _fits_without_content(prompt: dict[str, Raw]) -> bool:
    """Whether an admission fits a message: it is told without the blocks of its prompt."""
    return len(msgspec.json.encode({**prompt, "content": NULL})) <= MAX_BODY


def _decode(body: bytes, shape: Any) -> Any:
    try:
        body.decode()
        return msgspec.json.decode(body, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadLine(f"entry.body: {error}") from error


class _Bytes(Struct, frozen=True, rename="camel"):
    """What is shown of bytes."""

    size: Annotated[int, Meta(ge=0, le=MAX_BLOB)]
    name: Annotated[str, Meta(max_length=1024)]
    shown: Annotated[int, Meta(ge=0, le=MAX_BLOB)] = 0
    tool: Annotated[str, Meta(max_length=1024)] = ""
    media: Annotated[str, Meta(max_length=1024)] = ""
    marker: Annotated[str, Meta(max_length=8192)] = ""
    workspace_path: Annotated[str, Meta(max_length=MAX_PATH)] | None = None


def _lies_below(path: str | None) -> bool:
    """Whether a path means a file below a directory, by its looks."""
    if path is None:
        return True
    parts = path.split("/")
    return "\0" not in path and not {"", ".", ".."} & {*parts}


class _Result(Struct, frozen=True, rename="camel"):
    """What is shown of how a call ended."""

    exit_code: Annotated[int, Meta(ge=-(2**31), lt=2**32)] | None = None
    duration_ms: Count | None = None
    output_bytes: Count | None = None


class _Compaction(Struct, frozen=True):
    summary: Annotated[str, Meta(max_length=MAX_SUMMARY)] | None = None


class _Tokens(Struct, frozen=True, rename="camel"):
    input_tokens: Amount
    output_tokens: Amount
    cache_read_tokens: Amount = 0
    cache_write_tokens: Amount = 0
    reasoning_tokens: Amount = 0


class _Cost(Struct, frozen=True):
    """What one answer of a model can have taken: the sum of many is still a plain number."""

    tokens: _Tokens
    micros: Sum | None = None
    window: Window | None = None


class _Sums(Struct, frozen=True, rename="camel"):
    input_tokens: Sum
    output_tokens: Sum
    cache_read_tokens: Sum = 0
    cache_write_tokens: Sum = 0
    reasoning_tokens: Sum = 0


class _Totals(Struct, frozen=True):
    tokens: _Sums = _Sums(0, 0)
    micros: Sum | None = None
    used: Amount = 0
    window: Window | None = None


class _Overrides(Struct, frozen=True):
    """As they can be set."""

    model: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None


class _Bounded(Struct):
    """What of a head is shown as times and amounts, what is counted on from, and how it is set up:
    within the bounds in which it can be set."""

    created_at: Time
    updated_at: Time
    generation: Count = 0
    totals: _Totals = _Totals()
    title: Annotated[str, Meta(max_length=200)] | None = None
    overrides: _Overrides = _Overrides()
    config: ConfigPatch = ConfigPatch()
    labels: Labels = {}


def read_head(header: HeaderLine) -> Head:
    """The head in a file; raises `BadLine` if no session here could have it."""
    if len(header.head) > MAX_HEAD:
        raise BadLine(f"head: it has more than {MAX_HEAD} bytes")
    try:
        head = msgspec.json.decode(header.head, type=Head)
        msgspec.json.decode(header.head, type=_Bounded)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BadLine(f"head: {error}") from error
    if head.schema > SCHEMA:
        raise BadLine(f"it was written by a newer version: its schema is {head.schema}")
    if not is_directory(head.cwd):
        raise BadLine(f"head.cwd must be an absolute path of at most {MAX_PATH} bytes")
    return head


def is_directory(path: str) -> bool:
    """Whether that may be a session's directory, by its looks."""
    return path.startswith("/") and "\0" not in path and len(path.encode()) <= MAX_PATH


def taken_over(head: Head, notes: list[str], *, keep_allowed: bool = False) -> Head:
    """The head without what only its owner could have said; `notes` gets what was left behind.

    Rules that allow stay where whoever brings it says so. The grant stays, so that nothing may do
    more in a copy than where it came from.
    """
    changes: dict[str, object] = {
        "environment": None,
        "posture": Posture.ASK,
        "parent": None,
        "record": None,
        "complete": True,
        "imported": 0,
        "compacted": 0,
        "schema": SCHEMA,
        "config": replace(
            head.config,
            permissions=_narrowed(head.config.permissions, keep_allowed=keep_allowed),
            confirmation=_rejecting(head.config.confirmation),
        ),
    }
    taken = replace(head, **changes)
    for name, was, is_now in (
        ("the environment lent to its tools", head.environment, taken.environment),
        ("the mode in which tools may act unasked", head.posture, taken.posture),
        ("the parent", head.parent, taken.parent),
        ("permissions that allow", head.config.permissions, taken.config.permissions),
        ("a confirmation that approves", head.config.confirmation, taken.config.confirmation),
    ):
        if was != is_now:
            notes.append(f"left behind: {name}")
    if taken.grant is not None:
        notes.append("it stands on a grant: where that one is not known, none of its tools runs")
    return taken


def _narrowed(permissions: Permissions | None, *, keep_allowed: bool) -> Permissions | None:
    if permissions is None:
        return None
    may = permissions.default is PermissionDefault.ALLOW
    default = PermissionDefault.ASK if may else permissions.default
    allow = permissions.allow if keep_allowed else ()
    return Permissions(deny=permissions.deny, allow=allow, ask=permissions.ask, default=default)


def _rejecting(confirmation: Confirmation | None) -> Confirmation | None:
    if confirmation is None:
        return None
    return replace(confirmation, on_timeout=OnTimeout.REJECT)
