"""A session of the a3s layout: one document, and lists that stood in files beside it.

The client sends what it finds, a part a line; what is known becomes head and entries, and all that
has no place here is kept as it came, in entries of the kind `a3s`. Keys are not taken over.

    {"a3s":"session","document":{…}}          the session file, without its lists
    {"message":{…}}  {"cost":{…}}  {"trace":{…}}  {"run":{…}}  {"report":{…}}
    {"artifact":{…,"sha256":"…","size":16}}   behind it {"blob":{…}}, its content
    {"end":{"lines":9}}                       how many came before
"""

import hashlib
from collections import deque
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from moorage_daemon.identity import new_id
from moorage_daemon.log.log import MAX_PIECE
from moorage_daemon.sessions import Sessions
from moorage_daemon.store.model import (
    ArtifactBody,
    BeginBody,
    CostBody,
    Head,
    ImportedBody,
    Kind,
    Life,
    PromptBody,
    ResultBody,
    StateBody,
    Totals,
    VerdictBody,
    encode_body,
)
from moorage_daemon.transfer import a3s_shapes as shapes
from moorage_daemon.transfer.a3s_permissions import mapped
from moorage_daemon.transfer.arriving import Arriving
from moorage_daemon.transfer.checking import check_body, is_directory
from moorage_daemon.transfer.landing import Landing
from moorage_daemon.transfer.lines import (
    FOREIGN,
    MIN_WINDOW,
    BadLine,
    read,
)
from moorage_protocol.acp import (
    AgentMessageChunk,
    AgentThoughtChunk,
    Plan,
    PlanEntry,
    StopReason,
    Text,
    UserMessageChunk,
)
from moorage_protocol.config import (
    Confirmation,
    Lanes,
    PlanningMode,
    SessionConfig,
    Thinking,
)
from moorage_protocol.jsonrpc import encode
from moorage_protocol.moorage import Cause, Mode, Outcome, Overrides
from moorage_protocol.views import Check, Verification


MAX_PROMPTS = 4096  # that a run may still be the turn of
MAX_SECURITY = 16 * 2**10  # bytes of what is kept in memory and not interpreted
MAX_KEPT = 512 * 2**10  # bytes of one part that is kept as it came
MAX_DOLLARS = 10**9
EPOCH = 1971  # the first year that is one everywhere
EXCERPT = 1000  # characters of a prompt in its admission
MAX_PROMPT = 16 * 2**10  # characters of a system prompt, as everywhere

LIVES = {
    "Active": Life.ACTIVE,
    "Paused": Life.PAUSED,
    "Completed": Life.ACTIVE,
    "Error": Life.ACTIVE,
}
STATUSES = {"completed": "completed", "in_progress": "in_progress"}


class A3sReading:
    """The lines of one session of that layout."""

    def __init__(
        self,
        sessions: Sessions,
        line: bytes,
        *,
        principal: str,
        owner: str,
        agent: str,
        keep_allowed: bool = False,
    ):
        first = read(line, shapes.First)
        self._document = document = read(bytes(first.document), shapes.Document)
        if document.state not in LIVES:
            raise BadLine(f"document.state is {document.state[:32]!r}: that says nothing")
        self._owner, self._keep_allowed = owner, keep_allowed
        self._lines = 1
        self._generation = 0
        self._is_open = False
        self._is_over = False
        self._prompts: deque[tuple[int, bytes]] = deque(maxlen=MAX_PROMPTS)
        self._left: int = 0
        self._notes: list[str] = []
        self._arriving = Arriving(sessions.committer.store)
        self.landing = Landing(sessions, _readable(self._head(principal, owner, agent)))
        self.landing.account.is_whole = False  # its sums came with the document
        self._add(Kind.STATE, StateBody(state=LIVES[document.state], by=owner))
        self._keep({"document": _without_keys(first.document)})
        tasks = [*document.tasks, *document.todos]
        if tasks:
            self._update(Kind.PLAN, Plan(entries=[_plan_entry(task) for task in tasks]))

    @property
    def blobs(self) -> int:
        """How many came."""
        return self._arriving.count

    # ---- the head

    def _head(self, principal: str, owner: str, agent: str) -> Head:
        found, config = self._document, self._document.config
        window = found.context_usage.max_tokens
        model = found.llm_config.model if found.llm_config is not None else found.model_name
        if config.system_prompt is not None and len(config.system_prompt) > MAX_PROMPT:
            self._notes.append(f"the system prompt was cut at {MAX_PROMPT} characters")
        return Head(
            id=new_id(),
            principal=principal,
            owner=owner,
            agent=agent,
            mode=Mode.CODE,
            cwd=config.workspace if is_directory(config.workspace) else "/",
            created_at=found.created_at,
            updated_at=found.updated_at,
            life=LIVES[found.state],
            title=config.name[:200] or None,
            overrides=Overrides(model=model[:200] if model else None),
            config=self._config(),
            totals=Totals(
                tokens=found.total_usage.tokens(),
                micros=_micros(found.total_cost) if found.total_cost else None,
                used=found.context_usage.used_tokens,
                window=window if window >= MIN_WINDOW else None,
            ),
        )

    def _config(self) -> SessionConfig:
        found, config = self._document, self._document.config
        policy, planning = config.confirmation_policy, config.planning_mode.lower()
        seconds = policy.default_timeout_ms if policy is not None else None
        thinking = Thinking(budget_tokens=found.thinking_budget) if found.thinking_enabled else None
        security = bytes(config.security_config)
        if len(security) > MAX_SECURITY:
            self._notes.append(f"left behind: a security configuration of {len(security)} bytes")
            security = b"null"
        return SessionConfig(
            system_prompt=config.system_prompt[:MAX_PROMPT] if config.system_prompt else None,
            max_context_length=config.max_context_length or None,
            auto_compact=config.auto_compact,
            auto_compact_threshold=config.auto_compact_threshold,
            lanes=Lanes() if bytes(config.queue_config) != b"null" else None,
            confirmation=Confirmation(timeout_seconds=seconds / 1000 if seconds else None)
            if policy is not None
            else None,
            permissions=None
            if config.permission_policy is None
            else mapped(config.permission_policy, allowing=self._keep_allowed, notes=self._notes),
            planning_mode=PlanningMode(planning)
            if planning in [*PlanningMode]
            else PlanningMode.AUTO,
            goal_tracking=config.goal_tracking,
            thinking=thinking,
            tools=found.tool_names or None,
            security=Raw(security) if security != b"null" else msgspec.UNSET,
        )

    # ---- lines

    async def read(self, line: bytes) -> None:
        """Take the next line."""
        if self._is_over:
            raise BadLine("nothing may follow the last line")
        found = read(line, shapes.Line)
        if found.blob is not None:
            await self._arriving.take(found.blob)
        else:
            self._arriving.must_be_done()
            self._take(found)
        self._lines += 1

    def _take(self, found: shapes.Line) -> None:
        match found:
            case shapes.Line(message=shapes.Message() as message):
                self._message(message)
            case shapes.Line(cost=shapes.Cost() as cost):
                self._cost(cost)
            case shapes.Line(trace=shapes.Trace() as trace):
                self._trace(trace)
            case shapes.Line(run=shapes.Run() as run):
                self._run(run)
            case shapes.Line(report=shapes.Report() as report):
                self._report(report)
            case shapes.Line(artifact=shapes.Artifact() as artifact):
                self._artifact(artifact)
            case shapes.Line(end=shapes.End(lines=lines)):
                if lines != self._lines:
                    raise BadLine(f"{self._lines} lines came, and not {lines}")
                self._is_over = True
            case _:
                raise BadLine("it is no part of a session of that layout")

    def _message(self, message: shapes.Message) -> None:
        blocks = [(read(bytes(raw), shapes.Block), raw) for raw in message.content]
        texts = [block.text for block, _ in blocks if block.type == "text"]
        if message.role == "user" and texts:
            self._end_turn(VerdictBody(outcome=Outcome.COMPLETED, stop_reason=StopReason.END_TURN))
            self._begin_turn("\n".join(texts))
        kind = UserMessageChunk if message.role == "user" else AgentMessageChunk
        if message.reasoning_content:
            self._text(AgentThoughtChunk, message.reasoning_content)
        for text in texts:
            self._text(kind, text)
        for block, raw in blocks:
            if block.type != "text":
                self._keep({"block": raw})

    def _begin_turn(self, prompt: str) -> None:
        self._generation += 1
        self._is_open = True
        self._prompts.append((self._generation, _digest(prompt)))
        body = PromptBody(by=self._owner, position=0, text=prompt[:EXCERPT])
        self._add(Kind.PROMPT, body, self._generation)
        self._add(Kind.BEGIN, BeginBody(), self._generation)

    def _end_turn(self, verdict: VerdictBody) -> None:
        if self._is_open:
            self._add(Kind.VERDICT, verdict, self._generation)
        self._is_open = False

    def _text(self, kind: type[Any], text: str) -> None:
        message = f"{self._generation}-{self.landing.next}"
        for start in range(0, len(text), MAX_PIECE):
            piece = Text(text=text[start : start + MAX_PIECE])
            self._update(Kind.MESSAGE, kind(content=piece, message_id=message))

    def _cost(self, cost: shapes.Cost) -> None:
        body = CostBody(
            provider=cost.provider,
            model=cost.model,
            tokens=cost.tokens(),
            micros=None if cost.cost_usd is None else _micros(cost.cost_usd),
        )
        self._add(Kind.COST, body, at=_seconds(cost.timestamp))

    def _trace(self, trace: shapes.Trace) -> None:
        body = ResultBody(
            tool_call_id=f"trace-{self.landing.next}",
            status="completed" if trace.success else "failed",
            tool=trace.name,
            exit_code=trace.exit_code,
            duration_ms=trace.duration_ms,
            output_bytes=trace.output_bytes,
            metadata_keys=trace.metadata_keys,
            artifacts=trace.artifact_uris,
        )
        self._add(Kind.RESULT, body)

    def _run(self, run: shapes.Run) -> None:
        """A run is the turn of its prompt; without its messages it is a turn all the same."""
        self._end_turn(VerdictBody(outcome=Outcome.COMPLETED, stop_reason=StopReason.END_TURN))
        known = next((p for p in self._prompts if p[1] == _digest(run.snapshot.prompt)), None)
        if known is not None:
            self._prompts.remove(known)
            generation = known[0]
        else:
            self._begin_turn(run.snapshot.prompt)
            self._prompts.pop()
            self._end_turn(_verdict(run.snapshot.status, self._owner))
            generation = self._generation
        for event in run.events:
            self._keep({"event": event}, generation)

    def _report(self, report: shapes.Report) -> None:
        checks = tuple(
            Check(
                id=check.id,
                kind=check.kind,
                description=check.description,
                status=check.status,
                required=check.required,
                suggested_tools=check.suggested_tools,
                evidence=check.evidence_uris,
                risk=check.residual_risk,
            )
            for check in report.checks
        )
        self._update(
            Kind.REPORT,
            Verification(subject=report.subject, checks=checks, risks=report.residual_risks),
        )

    def _artifact(self, artifact: shapes.Artifact) -> None:
        body = ArtifactBody(
            sha256=artifact.sha256,
            size=artifact.size,
            tool=artifact.tool_name,
            name=artifact.artifact_id,
            shown=artifact.shown_bytes,
            artifact_id=artifact.artifact_id,
            artifact_uri=artifact.artifact_uri,
        )
        self._add(Kind.ARTIFACT, body)
        self._arriving.expect([artifact.sha256], artifact.size)

    # ---- entries

    def _add(
        self, kind: Kind, body: Struct, generation: int | None = None, *, at: float | None = None
    ) -> None:
        self._put(kind, encode_body(body), generation, at)

    def _update(self, kind: Kind, update: Struct) -> None:
        self._put(kind, encode(update), self._generation or None)

    def _keep(self, part: dict[str, object], generation: int | None = None) -> None:
        """Keep what has no place here as it came."""
        body = msgspec.json.format(msgspec.json.encode(part), indent=-1)
        if len(body) > MAX_KEPT:
            self._left += 1
            return
        self._put(FOREIGN, body, generation or self._generation or None)

    def _put(self, kind: str, body: bytes, generation: int | None, at: float | None = None) -> None:
        check_body(kind, body)
        when = self._document.created_at if at is None else at
        self.landing.add(kind, body, at=when, generation=generation)

    def finish(self) -> ImportedBody:
        """All lines were read."""
        if not self._is_over:
            raise BadLine("the file is cut: its last line is missing")
        self._end_turn(VerdictBody(outcome=Outcome.COMPLETED, stop_reason=StopReason.END_TURN))
        self.landing.head = replace(self.landing.head, generation=self._generation)
        if self._left:
            self._notes.append(f"left behind: {self._left} parts of more than {MAX_KEPT} bytes")
        return ImportedBody(
            source=FOREIGN,
            former_id=self._document.id,
            by=self._owner,
            notes=(*self._notes, *self._arriving.notes()),
            lost=self._arriving.lost,
        )


def _readable(head: Head) -> Head:
    """The head, if what is written of it can be read again."""
    return read(msgspec.json.encode(head), Head)


def _digest(prompt: str) -> bytes:
    return hashlib.sha256(prompt.encode()).digest()


def _seconds(moment: datetime | None) -> float | None:
    if moment is None:
        return None
    if moment.year < EPOCH:
        raise BadLine("nothing was then")
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _micros(dollars: float) -> int:
    if not 0 <= dollars <= MAX_DOLLARS:
        raise BadLine("nothing costs that")
    return round(dollars * 1_000_000)


def _verdict(status: str, by: str) -> VerdictBody:
    match status:
        case "completed":
            return VerdictBody(outcome=Outcome.COMPLETED, stop_reason=StopReason.END_TURN)
        case "failed":
            return VerdictBody(outcome=Outcome.FAILED, code="agent_failed")
        case "cancelled":
            cause = Cause.CLIENT_RPC
        case _:
            cause = Cause.DAEMON_RESTART
    return VerdictBody(
        outcome=Outcome.CANCELLED, cause=cause, by=by, stop_reason=StopReason.CANCELLED
    )


def _plan_entry(task: shapes.Task) -> PlanEntry:
    status: Any = STATUSES.get(task.status, "pending")
    priority: Any = task.priority if task.priority in ("high", "medium", "low") else "medium"
    return PlanEntry(content=task.content or task.description, priority=priority, status=status)


def _without_keys(document: Raw) -> Raw:
    """The document as it came, but of how a model is reached only what is no secret."""
    fields = msgspec.json.decode(document, type=dict[str, Raw])
    if "llm_config" in fields:
        llm = msgspec.json.decode(fields["llm_config"], type=shapes.Llm | None)
        if llm is not None:
            llm.base_url = _without_user(llm.base_url)
        fields["llm_config"] = Raw(msgspec.json.encode(llm))
    return Raw(msgspec.json.encode(fields))


def _without_user(url: str | None) -> str | None:
    """An address without a user, a password and a query."""
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return None
    return parts._replace(netloc=host, query="", fragment="").geturl()
