"""A session's messages as a person reads them.

What the agent says is written as it comes; tools, plans and verdicts are lines beside it. All of
it is somebody else's text, so all of it goes through `plain_text`, each speaker's stream through a
filter of its own: a sequence that is cut by two chunks is still one.
"""

from typing import Protocol

from moorage_clients.cli.colour import Style
from moorage_clients.cli.screen import Screen
from moorage_clients.messages import Admission, Answered, Asked, LogEntry, Message, Unknown, Update
from moorage_clients.plain_text import PlainText, one_line, plain
from moorage_protocol.acp import (
    AgentMessageChunk,
    AgentThoughtChunk,
    Chunk,
    ContentBlock,
    Diff,
    Plan,
    PlanEntry,
    ResourceLink,
    Shape,
    Text,
    ToolCall,
    ToolCallContent,
    ToolCallFields,
    ToolCallStatus,
    ToolCallUpdate,
    ToolContent,
    UserMessageChunk,
)
from moorage_protocol.errors import InvalidParams
from moorage_protocol.moorage import Cause, Outcome, Verdict


TITLE_WIDTH = 100  # characters of a tool's title or a plan's entry
OUTPUT_LINES = 8  # of what a tool put out; the log has the rest

CAUSES = {
    Cause.CLIENT_RPC: "a client cancelled it",
    Cause.ADMIN_KILL: "the session was killed",
    Cause.SESSION_REMOVED: "the session was closed",
    Cause.SUPERSEDED: "another prompt took its place",
    Cause.TURN_TIMEOUT: "it took too long",
    Cause.SESSION_EXPIRED: "its time was up",
    Cause.BUDGET: "its budget was spent",
    Cause.AGENT_DEACTIVATED: "its agent was deactivated",
    Cause.PARENT_CANCELLED: "the session that it belongs to ended",
    Cause.SHUTDOWN: "the daemon was stopped",
    Cause.DAEMON_RESTART: "the daemon ended in the middle of it",
}

FAILURES = {
    "provider_auth": "the provider refuses the key, or there is none",
    "provider_rate": "the provider wants fewer requests, or to be paid",
    "provider_unavailable": "the provider cannot be reached",
    "provider_protocol": "what the provider answered makes no sense",
    "provider_timeout": "the provider took too long",
    "tool": "a tool broke",
    "storage": "nothing could be written",
    "agent_failed": "the agent gave up",
    "agent_lost": "the agent's program ended",
    "no_summary": "the model did not give one",
    "summary_too_long": "the model gave a longer one than fits",
    "internal": "moorage itself broke; see moorage daemon logs",
}

_STATUS = {
    ToolCallStatus.IN_PROGRESS: "running",
    ToolCallStatus.COMPLETED: "done",
    ToolCallStatus.FAILED: "failed",
}
_MARKS = {"pending": "[ ]", "in_progress": "[>]", "completed": "[x]"}


class View(Protocol):
    """Somebody who is shown a session's messages."""

    def show(self, message: Message) -> None:
        """Take the next message."""
        ...

    def note(self, line: str, style: Style = Style.FAINT) -> None:
        """Take a line of ours for a person."""
        ...


class JsonView:
    """Every message a line of JSON, as it came; notes for a person go to stderr."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def show(self, message: Message) -> None:
        """Write the message."""
        match message:
            case Update(update=update, seq=seq, generation=generation):
                shown = update.raw if isinstance(update, Unknown) else update
                head = {"type": "update", "seq": seq, "generation": generation}
                self._screen.document({**head, "update": shown})
            case LogEntry(seq=seq, generation=generation, kind=kind, raw=raw):
                head = {"type": "entry", "seq": seq, "generation": generation, "kind": kind}
                self._screen.document({**head, "entry": raw})

    def note(self, line: str, style: Style = Style.FAINT) -> None:
        """Write a line for a person."""
        self._screen.note(line, style)


class _State(Shape, frozen=True):
    state: str
    reason: str | None = None


class _Compaction(Shape, frozen=True):
    upto: int
    code: str | None = None


class Transcript:
    """Writes messages for a person.

    `asks` are shown where nobody here is asked them, `prompts` where they are not known here.
    """

    def __init__(self, screen: Screen, *, asks: bool = False, prompts: bool = True) -> None:
        self._screen = screen
        self._shows_asks = asks
        self._shows_prompts = prompts
        self._speaker: tuple[type[Chunk], str | None] | None = None
        self._filter = PlainText()
        self._tools: dict[str, str] = {}  # open tool calls by id: title
        self._plan: list[PlanEntry] = []

    def note(self, line: str, style: Style = Style.FAINT) -> None:
        """Write a line of ours."""
        self._screen.note(line, style)

    def show(self, message: Message) -> None:
        """Write the message, or nothing where a person has no use for it."""
        if isinstance(message, LogEntry):
            try:
                self._entry(message)
            except InvalidParams:
                self.note(f"[{plain(message.kind)}]")  # of a newer daemon
            return
        match message.update:
            case AgentMessageChunk() | AgentThoughtChunk() as chunk:
                self._speak(chunk)
            case UserMessageChunk() as chunk if self._shows_prompts:
                self._speak(chunk)
            case ToolCall() | ToolCallUpdate() as call:
                self._tool(call)
            case Plan(entries):
                self._show_plan(entries)
            case _:
                pass  # commands, config options: nothing happened

    # ---- who says what

    def _speak(self, chunk: Chunk) -> None:
        speaker = (type(chunk), chunk.message_id)
        if speaker != self._speaker:
            self._screen.end()
            self._speaker, self._filter = speaker, PlainText()
        text = self._filter.feed(_text(chunk.content))
        if isinstance(chunk, AgentMessageChunk):
            self._screen.say(text)
            return
        is_prompt = isinstance(chunk, UserMessageChunk)
        mark, style = ("> ", Style.STRONG) if is_prompt else ("~ ", Style.FAINT)
        start = "" if self._screen.notes.is_open else mark
        self._screen.remark(start + text.replace("\n", "\n" + mark), style)

    # ---- tools and plans

    def _tool(self, call: ToolCallFields) -> None:
        title = one_line(call.title, TITLE_WIDTH) if call.title else None
        title = title or self._tools.get(call.tool_call_id, "tool")
        self._tools[call.tool_call_id] = title
        if call.status is not None and call.status in _STATUS:
            failed = call.status is ToolCallStatus.FAILED
            self.note(f"[{title}] {_STATUS[call.status]}", Style.BAD if failed else Style.FAINT)
        if call.status in (ToolCallStatus.COMPLETED, ToolCallStatus.FAILED):
            for content in call.content or []:
                self._output(content)
            del self._tools[call.tool_call_id]

    def _output(self, content: ToolCallContent) -> None:
        match content:
            case ToolContent(content=block):
                lines = plain(_text(block)).splitlines()
            case Diff(path=path):
                lines = [f"changed {one_line(path, TITLE_WIDTH)}"]
            case _:
                return
        for line in lines[:OUTPUT_LINES]:
            self.note(f"  {line}")
        if len(lines) > OUTPUT_LINES:
            self.note(f"  … {len(lines) - OUTPUT_LINES} more lines")

    def _show_plan(self, entries: list[PlanEntry]) -> None:
        known = {entry.content for entry in self._plan}
        if {entry.content for entry in entries} != known:
            self.note("Plan:")
            changed = entries
        else:
            changed = [entry for entry in entries if entry not in self._plan]
        for entry in changed:
            self.note(f"  {_MARKS[entry.status]} {one_line(entry.content, TITLE_WIDTH)}")
        self._plan = list(entries)

    # ---- entries of the log

    def _entry(self, entry: LogEntry) -> None:
        match entry.kind:
            case "prompt":
                admission = entry.read(Admission)
                if admission.paused:
                    self.note(f"[turn {entry.generation}] waits: the session is paused")
                elif admission.position:
                    self.note(f"[turn {entry.generation}] waits, {admission.position} before it")
            case "verdict":
                self._screen.end()
                self._speaker = None
                verdict = entry.read(Verdict)
                style = Style.BAD if verdict.outcome is Outcome.FAILED else Style.CAREFUL
                for line in verdict_lines(verdict):
                    self.note(f"[turn {entry.generation}] {line}", style)
            case "ask" if self._shows_asks:
                title = one_line(entry.read(Asked).title, TITLE_WIDTH)
                self.note(f"[{title}] asks for permission", Style.CAREFUL)
            case "answer":
                self._answer(entry.read(Answered))
            case "compaction":
                self._compaction(entry.read(_Compaction))
            case "state":
                found = entry.read(_State)
                reason = f": {one_line(found.reason, TITLE_WIDTH)}" if found.reason else ""
                if found.state != "active":
                    self.note(f"[session] {plain(found.state)}{reason}", Style.CAREFUL)
                elif entry.seq > 1:
                    self.note("[session] goes on", Style.CAREFUL)
            case _:
                pass  # beginnings, intents and results show as tool calls

    def _compaction(self, found: _Compaction) -> None:
        if found.code is None:
            self.note(f"[compaction] the model is told a summary of turns 1 to {found.upto}")
        else:
            why = FAILURES.get(found.code, plain(found.code))
            self.note(f"[compaction] no summary could be made: {why}", Style.CAREFUL)

    def _answer(self, answer: Answered) -> None:
        title = self._tools.get(answer.tool_call_id, "question")
        said = {"selected": answer.option_id or "answered", "timed_out": "no answer in time"}
        self.note(f"[{title}] {plain(said.get(answer.outcome, answer.outcome))}")


def _why(verdict: Verdict, cause: Cause) -> str:
    spent = {"calls": "tool calls", "tokens": "tokens", "micros": "dollars"}.get(verdict.stop or "")
    if cause is Cause.BUDGET and spent is not None:
        return f"its budget of {spent} was spent; moorage grant raise gives it more"
    return CAUSES[cause]


def verdict_lines(verdict: Verdict) -> list[str]:
    """What a person has to be told of a verdict; nothing where a turn simply came to its end."""
    lines: list[str] = []
    match verdict.outcome:
        case Outcome.CANCELLED if verdict.cause is not None:
            lines.append(f"cancelled ({verdict.cause}): {_why(verdict, verdict.cause)}")
        case Outcome.CANCELLED:
            lines.append("cancelled")
        case Outcome.FAILED:
            code = plain(verdict.code or "unknown")
            why = FAILURES.get(code)
            lines.append(f"failed ({code})" + (f": {why}" if why else ""))
        case Outcome.REFUSED:
            lines.append("refused by the agent")
        case Outcome.COMPLETED:
            if verdict.stop_reason not in (None, "end_turn"):
                lines.append(f"stopped early ({verdict.stop_reason})")
            if verdict.cancel_lost:
                lines.append("was done before the cancel arrived")
    if verdict.forced:
        lines.append("did not stop by itself and was cut off")
    return lines


def _text(content: ContentBlock) -> str:
    match content:
        case Text(text=text):
            return text
        case ResourceLink(name=name, uri=uri):
            return f"[{name}: {uri}]"
        case _:
            return "[not text]"
