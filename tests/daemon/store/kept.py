"""What an older store of sessions kept of one, and the verbs it had, on a store of ours.

There, a session was one document with five lists beside it, saved whole each time. Here it is a
head and a log: to save is to write down what is not there yet, and the lists are views.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace as replaced

import msgspec
from msgspec.structs import replace

from moorage_daemon.log.records import turn_records
from moorage_daemon.log.views import artifact_rows, report_rows, trace_rows
from moorage_daemon.store.model import (
    ArtifactBody,
    BeginBody,
    Entry,
    Head,
    IntentBody,
    Kind,
    PromptBody,
    ResultBody,
    Totals,
    VerdictBody,
    encode_body,
)
from moorage_daemon.store.port import Change, Store, StoreConflict
from moorage_protocol.acp import AgentMessageChunk, StopReason, Text, UserMessageChunk
from moorage_protocol.config import SessionConfig
from moorage_protocol.jsonrpc import encode
from moorage_protocol.moorage import Mode, Outcome, TokenUsage
from moorage_protocol.views import Verification
from tests.daemon.store.samples import all_entries


MAX_BLOB = 2**20
LIMIT = 1000  # rows of a view that a test asks for


@dataclass(frozen=True)
class Message:
    role: str
    text: str


@dataclass(frozen=True)
class Session:
    """A session as it was saved and loaded."""

    head: Head
    messages: tuple[Message, ...]

    @property
    def id(self) -> str:
        return self.head.id


def a_session(session: str = "test-session-1") -> Session:
    """What the older tests save."""
    head = Head(
        id=session,
        principal="local",
        owner="tui",
        agent="scripted",
        mode=Mode.CODE,
        cwd="/tmp/workspace",
        created_at=1700000000.0,
        updated_at=1700000100.0,
        title="Test Session",
        generation=2,
        config=SessionConfig(
            system_prompt="You are helpful.",
            max_context_length=200_000,
            tools=("bash", "read"),
        ),
        totals=Totals(
            tokens=TokenUsage(input_tokens=50, output_tokens=50), used=100, window=200_000
        ),
    )
    return Session(head, (Message("user", "Hello"), Message("assistant", "Hi there!")))


@dataclass(frozen=True)
class Trace:
    """One tool call as it was traced."""

    name: str
    ok: bool
    exit_code: int
    duration_ms: int
    output_bytes: int
    metadata_keys: tuple[str, ...] = ()
    artifacts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """One run: what was asked, and what happened until it ended."""

    prompt: str
    events: tuple[str, ...]


@dataclass(frozen=True)
class Artifact:
    """What a tool made, under the names it was given."""

    artifact_id: str
    artifact_uri: str
    tool_name: str
    content: str
    original_bytes: int
    shown_bytes: int


@dataclass
class Keeper:
    """The older store's verbs."""

    store: Store

    async def save(self, session: Session) -> None:
        """Write the head and the messages that are not there yet, whoever else does the same."""
        while True:
            stored = await self.store.load(session.id)
            seq = 0 if stored is None else stored.seq
            known = len(await self._messages(session.id))
            entries = [
                Entry(seq + number, session.head.updated_at, Kind.MESSAGE, _chunk(message))
                for number, message in enumerate(session.messages[known:], start=1)
            ]
            change = Change(session.id, tuple(entries), session.head, create=stored is None)
            try:
                return await self.store.commit([change])
            except StoreConflict:
                continue

    async def load(self, session: str) -> Session | None:
        stored = await self.store.load(session)
        if stored is None:
            return None
        return Session(stored.head, tuple(await self._messages(session)))

    async def _messages(self, session: str) -> list[Message]:
        found = await all_entries(self.store, session)
        return [_message(entry) for entry in found if entry.kind == Kind.MESSAGE]

    async def delete(self, session: str) -> None:
        await self.store.delete(session)

    async def ids(self) -> list[str]:
        return [stored.head.id for stored in await self.store.list()]

    async def exists(self, session: str) -> bool:
        return await self.store.load(session) is not None

    # ---- the lists beside it

    async def _append(self, session: str, entries: Sequence[Entry]) -> None:
        """Number entries behind the last one; a session that is not there is made."""
        stored = await self.store.load(session)
        seq = 0 if stored is None else stored.seq
        numbered = [replace(entry, seq=seq + n) for n, entry in enumerate(entries, start=1)]
        head = a_session(session).head if stored is None else None
        change = Change(session, tuple(numbered), head, create=stored is None)
        await self.store.commit([change])

    async def save_artifacts(self, session: str, artifacts: Sequence[Artifact]) -> None:
        entries: list[Entry] = []
        for artifact in artifacts:
            content = _chunks(artifact.content.encode())
            blob = await self.store.put_blob(content, max_bytes=MAX_BLOB)
            body = ArtifactBody(
                sha256=blob.sha256,
                size=blob.size,
                tool=artifact.tool_name,
                name=artifact.artifact_id,
                shown=artifact.shown_bytes,
                artifact_id=artifact.artifact_id,
                artifact_uri=artifact.artifact_uri,
            )
            entries.append(Entry(0, 1.0, Kind.ARTIFACT, encode_body(body), 1))
        await self._append(session, entries)

    async def load_artifacts(self, session: str) -> dict[str, Artifact] | None:
        """By the address that each was given."""
        page = await artifact_rows(self.store, session, after=0, limit=LIMIT)
        found: dict[str, Artifact] = {}
        for row in page.rows:
            part = await self.store.get_blob(row.sha256, 0, MAX_BLOB)
            assert part is not None
            artifact = Artifact(
                artifact_id=row.artifact_id or "",
                artifact_uri=row.artifact_uri or "",
                tool_name=row.tool,
                content=part.data.decode(),
                original_bytes=row.size,
                shown_bytes=row.shown,
            )
            found[artifact.artifact_uri] = artifact
        return found or None

    async def save_traces(self, session: str, traces: Sequence[Trace]) -> None:
        entries: list[Entry] = []
        for number, trace in enumerate(traces):
            call = f"call-{number}"
            intent = IntentBody(
                tool_call_id=call,
                tool=trace.name,
                arguments=msgspec.Raw(b"{}"),
                decision="not_asked",
            )
            result = ResultBody(
                tool_call_id=call,
                status="completed" if trace.ok else "failed",
                tool=trace.name,
                exit_code=trace.exit_code,
                duration_ms=trace.duration_ms,
                output_bytes=trace.output_bytes,
                metadata_keys=trace.metadata_keys,
                artifacts=trace.artifacts,
            )
            entries.append(Entry(0, 1.0, Kind.INTENT, encode_body(intent), 1))
            entries.append(Entry(0, 1.0, Kind.RESULT, encode_body(result), 1))
        await self._append(session, entries)

    async def load_traces(self, session: str) -> list[Trace] | None:
        page = await trace_rows(self.store, session, after=0, limit=LIMIT)
        found = [
            Trace(
                name=row.tool or "",
                ok=row.status == "completed",
                exit_code=row.exit_code or 0,
                duration_ms=row.duration_ms or 0,
                output_bytes=row.output_bytes or 0,
                metadata_keys=row.metadata_keys,
                artifacts=row.artifacts,
            )
            for row in page.rows
        ]
        return found or None

    async def save_runs(self, session: str, runs: Sequence[Run]) -> None:
        entries: list[Entry] = []
        for generation, run in enumerate(runs, start=1):
            prompt = PromptBody(by="tui", position=0, text=run.prompt)
            verdict = VerdictBody(outcome=Outcome.COMPLETED, stop_reason=StopReason.END_TURN)
            entries.append(Entry(0, 1.0, Kind.PROMPT, encode_body(prompt), generation))
            entries += [
                Entry(0, 1.0, Kind.BEGIN, encode_body(BeginBody()), generation) for _ in run.events
            ]
            entries.append(Entry(0, 1.0, Kind.VERDICT, encode_body(verdict), generation))
        await self._append(session, entries)

    async def load_runs(self, session: str) -> list[Run] | None:
        records = await turn_records(self.store, session, after=0, limit=LIMIT)
        entries = await all_entries(self.store, session)
        found = [
            Run(
                record.prompt,
                tuple(
                    entry.kind
                    for entry in entries
                    if record.last_seq and record.first_seq < entry.seq < record.last_seq
                ),
            )
            for record in records
        ]
        return found or None

    async def save_reports(self, session: str, reports: Sequence[Verification]) -> None:
        entries = [Entry(0, 1.0, Kind.REPORT, encode(report), 1) for report in reports]
        await self._append(session, entries)

    async def load_reports(self, session: str) -> list[Verification] | None:
        page = await report_rows(self.store, session, after=0, limit=LIMIT)
        return [row.report for row in page.rows] or None


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _chunk(message: Message) -> bytes:
    content = Text(text=message.text)
    if message.role == "user":
        return encode(UserMessageChunk(content=content))
    return encode(AgentMessageChunk(content=content))


def _message(entry: Entry) -> Message:
    chunk = msgspec.json.decode(entry.body, type=UserMessageChunk | AgentMessageChunk)
    assert isinstance(chunk.content, Text)
    role = "user" if isinstance(chunk, UserMessageChunk) else "assistant"
    return Message(role, chunk.content.text)


def with_message(session: Session, text: str, updated_at: float) -> Session:
    """The session after one more message of its user."""
    head = replace(session.head, updated_at=updated_at)
    return replaced(session, head=head, messages=(*session.messages, Message("user", text)))
