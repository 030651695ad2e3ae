"""What is read out of a session's log: what it cost, what was verified, what it produced.

Each is a page of rows in the order of the log; `after` is the `seq` behind which a page begins.
"""

from enum import StrEnum

from moorage_protocol.acp import Cost, SessionParams, Shape
from moorage_protocol.moorage import TokenUsage


DEFAULT_WINDOW = 200_000  # tokens of context where nobody said how many fit


class PageParams(SessionParams, frozen=True):
    after: int = 0
    limit: int = 100


# ---- usage


class Context(Shape, frozen=True, omit_defaults=False):
    """How full the context was at the last answer: `used` tokens of `size`, after so many turns."""

    used: int
    size: int
    fraction: float
    turns: int


class CostRow(Shape, frozen=True):
    """One answer of a model; `micros` are millionths of a US dollar, absent where nobody knows.

    One with a `purpose`, as "compaction", was given beside the conversation.
    """

    seq: int
    at: float
    provider: str
    model: str
    tokens: TokenUsage
    generation: int | None = None
    micros: int | None = None
    purpose: str | None = None


class UsageResult(Shape, frozen=True):
    """The sums of a whole session, and a page of what they are made of.

    `cost` counts what has a price; it is absent where nothing had one.
    """

    context: Context
    tokens: TokenUsage
    records: list[CostRow]
    cost: Cost | None = None
    next: int | None = None


# ---- tool calls


class TraceRow(Shape, frozen=True):
    """How one tool call ended; without a duration its tool was never started."""

    seq: int
    at: float
    tool_call_id: str
    status: str
    generation: int | None = None
    tool: str | None = None
    code: str | None = None
    exit_code: int | None = None
    duration_ms: int | None = None
    output_bytes: int | None = None
    artifacts: tuple[str, ...] = ()
    metadata_keys: tuple[str, ...] = ()


class TracesResult(Shape, frozen=True, omit_defaults=False):
    traces: list[TraceRow]
    next: int | None = None


# ---- artifacts


class ArtifactRow(Shape, frozen=True):
    """Bytes under their address: of the kind "artifact" a turn made them, of "upload" it got them.

    `shown` of an artifact's stand in the log as well; `artifact_id` and `artifact_uri` are what it
    was called in the file that it came out of. For an upload `marker` stands in a prompt, and
    `workspace_path`, if it has one, is where below the session's directory it was put.
    """

    seq: int
    at: float
    uri: str
    sha256: str
    size: int
    name: str
    media: str
    kind: str = "artifact"
    tool: str = ""
    shown: int = 0
    generation: int | None = None
    tool_call_id: str | None = None
    artifact_id: str | None = None
    artifact_uri: str | None = None
    marker: str = ""
    workspace_path: str | None = None


class ArtifactsResult(Shape, frozen=True, omit_defaults=False):
    artifacts: list[ArtifactRow]
    next: int | None = None


MAX_PIECE = 512 * 2**10  # bytes of an artifact in one answer; in base64 it fits a message


class ArtifactParams(Shape, frozen=True):
    uri: str
    offset: int = 0
    limit: int = MAX_PIECE


class ArtifactResult(Shape, frozen=True, omit_defaults=False):
    """A part of an artifact, in base64, and how long all of it is."""

    data: bytes
    size: int


# ---- verification


class CheckStatus(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    NEEDS_REVIEW = "needs_review"
    SKIPPED = "skipped"


class Check(Shape, frozen=True):
    """One thing that was verified, or has to be."""

    id: str
    kind: str
    description: str = ""
    status: CheckStatus = CheckStatus.NEEDS_REVIEW
    required: bool = False
    suggested_tools: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    risk: str | None = None


class Verification(Shape, frozen=True):
    """A report: what was verified about a subject, and which risks are left."""

    subject: str
    checks: tuple[Check, ...] = ()
    risks: tuple[str, ...] = ()

    @property
    def status(self) -> CheckStatus:
        """What the checks come to: nothing that is required may be open, no risk may be left."""
        if any(check.status is CheckStatus.FAILED for check in self.checks):
            return CheckStatus.FAILED
        is_open = {CheckStatus.NEEDS_REVIEW, CheckStatus.SKIPPED}
        if self.risks or any(c.required and c.status in is_open for c in self.checks):
            return CheckStatus.NEEDS_REVIEW
        return CheckStatus.PASSED if self.checks else CheckStatus.SKIPPED


class ReportRow(Shape, frozen=True):
    seq: int
    at: float
    report: Verification
    status: CheckStatus
    generation: int | None = None


class ReportsResult(Shape, frozen=True, omit_defaults=False):
    reports: list[ReportRow]
    next: int | None = None
