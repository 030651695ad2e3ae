"""The parts of a session in the a3s layout, as far as they are known here.

What is not named is passed over by whoever reads a part, and kept as it came with the document.
"""

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Raw, Struct, field

from moorage_daemon.transfer.a3s_permissions import A3sPolicy
from moorage_daemon.transfer.lines import Amount, BlobRecord, Digest, Time
from moorage_protocol.config import Fraction, Names, Tokens
from moorage_protocol.moorage import TokenUsage
from moorage_protocol.views import CheckStatus


NULL = Raw(b"null")


class Usage(Struct):
    prompt_tokens: Amount = 0
    completion_tokens: Amount = 0
    cache_read_tokens: Amount | None = None
    cache_write_tokens: Amount | None = None

    def tokens(self) -> TokenUsage:
        return TokenUsage(
            input_tokens=self.prompt_tokens,
            output_tokens=self.completion_tokens,
            cache_read_tokens=self.cache_read_tokens or 0,
            cache_write_tokens=self.cache_write_tokens or 0,
        )


class Context(Struct):
    used_tokens: Amount = 0
    max_tokens: Amount = 200_000


class Task(Struct):
    content: str = ""
    description: str = ""
    status: str = "pending"
    priority: str = "medium"


class Policy(Struct):
    default_timeout_ms: Annotated[float, Meta(ge=0, le=10**10)] | None = None


class Config(Struct):
    name: str = ""
    workspace: str = ""
    system_prompt: str | None = None
    max_context_length: Annotated[int, Meta(ge=0, le=10**9)] = 0
    auto_compact: bool = False
    auto_compact_threshold: Fraction = 0.80
    queue_config: Raw = NULL
    confirmation_policy: Policy | None = None
    permission_policy: A3sPolicy | None = None
    security_config: Raw = NULL
    planning_mode: str = "auto"
    goal_tracking: bool = False


class Llm(Struct):
    """There is no place for a key, so none is ever read."""

    provider: str = ""
    model: str = ""
    base_url: str | None = None


class Document(Struct):
    id: str
    config: Config
    state: str
    context_usage: Context = field(default_factory=Context)
    total_usage: Usage = field(default_factory=Usage)
    total_cost: float = 0.0
    model_name: str | None = None
    tool_names: Names = ()
    thinking_enabled: bool = False
    thinking_budget: Tokens | None = None
    created_at: Time = 0.0
    updated_at: Time = 0.0
    llm_config: Llm | None = None
    tasks: list[Task] = []
    todos: list[Task] = []


class First(Struct):
    a3s: str
    document: Raw


class Message(Struct):
    role: str
    content: list[Raw] = []
    reasoning_content: str | None = None


class Block(Struct):
    type: str = ""
    text: str = ""


class Cost(Usage):
    model: str = ""
    provider: str = ""
    cost_usd: float | None = None
    timestamp: datetime | None = None


class Trace(Struct):
    name: str
    success: bool
    exit_code: int = 0
    duration_ms: int = 0
    output_bytes: int = 0
    metadata_keys: tuple[str, ...] = ()
    artifact_uris: tuple[str, ...] = ()


class Snapshot(Struct):
    prompt: str
    status: str = "completed"
    created_at_ms: float = 0.0
    updated_at_ms: float = 0.0


class Run(Struct):
    snapshot: Snapshot
    events: list[Raw] = []


class Check(Struct):
    id: str
    kind: str
    description: str = ""
    status: CheckStatus = CheckStatus.NEEDS_REVIEW
    required: bool = False
    suggested_tools: tuple[str, ...] = ()
    evidence_uris: tuple[str, ...] = ()
    residual_risk: str | None = None


class Report(Struct):
    subject: str
    checks: list[Check] = []
    residual_risks: tuple[str, ...] = ()


class Artifact(Struct):
    artifact_id: str
    artifact_uri: str
    tool_name: str
    sha256: Digest
    size: int
    shown_bytes: int = 0


class End(Struct):
    lines: int


class Line(Struct):
    message: Message | None = None
    cost: Cost | None = None
    trace: Trace | None = None
    run: Run | None = None
    report: Report | None = None
    artifact: Artifact | None = None
    blob: BlobRecord | None = None
    end: End | None = None
