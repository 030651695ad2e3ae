"""The tool calls of a turn that are under way: what is told of them, and what came of each.

A call that was opened is finished exactly once, by whoever comes first: its tool, who refuses it,
or the end of the turn.
"""

import logging
from dataclasses import dataclass, field

import trio
from msgspec.structs import replace

from moorage_daemon.grants.calls import Call
from moorage_daemon.log.views import address_of
from moorage_daemon.store.model import ArtifactBody, Kind, ResultBody
from moorage_daemon.tools.port import Report
from moorage_daemon.turn.artifacts import Kept, excerpt
from moorage_daemon.turn.calls import MAX_IN_VAIN, NO_CALL, QUESTION, OpenCall
from moorage_daemon.turn.posture import Deed
from moorage_daemon.turn.turn import Turn
from moorage_daemon.turn.voice import Voice
from moorage_protocol.acp import (
    Text,
    ToolCallContent,
    ToolCallStatus,
    ToolCallUpdate,
    ToolContent,
)
from moorage_protocol.jsonrpc import encode


logger = logging.getLogger(__name__)


@dataclass(eq=False)
class OpenCalls:
    """Of one turn; `in_vain` of its calls in a row were not started."""

    turn: Turn
    voice: Voice
    in_vain: int = 0
    _open: dict[str, OpenCall] = field(default_factory=dict[str, OpenCall])
    _called: int = 0

    def __bool__(self) -> bool:
        return bool(self._open)

    def open(
        self,
        tool: str,
        deed: Deed = QUESTION,
        about: Call = NO_CALL,
        credentials: tuple[str, ...] = (),
        *,
        is_secret: bool = False,
    ) -> OpenCall:
        """A new one; raises `StageClosed`."""
        self.voice.must_be_open()
        self._called += 1
        name = f"call-{self.turn.generation}-{self._called}"
        call = OpenCall(name, tool, deed, about, credentials, is_secret)
        self._open[call.id] = call
        return call

    def show(self, call: OpenCall, content: list[ToolCallContent]) -> None:
        """Show what it is at, instead of what was shown before."""
        self.voice.show(Kind.TOOL, ToolCallUpdate(tool_call_id=call.id, content=content))

    def start(self, call: OpenCall) -> None:
        """Its tool starts in this tick."""
        in_progress = ToolCallUpdate(tool_call_id=call.id, status=ToolCallStatus.IN_PROGRESS)
        self.voice.show(Kind.TOOL, in_progress)
        self._open[call.id] = replace(call, started=trio.current_time())

    def take_back(self, call: OpenCall) -> None:
        """Its tool did not start after all."""
        if call.id in self._open:
            self._open[call.id] = replace(call, started=None)

    def note_artifact(self, call: OpenCall, kept: Kept) -> Report | None:
        """Name what was kept in the log; gives the report that says where it is.

        None where the call is finished.
        """
        if call.id not in self._open:
            return None
        body = ArtifactBody(
            sha256=kept.blob.sha256,
            size=kept.blob.size,
            tool=call.tool,
            name=f"{call.id}.txt",
            shown=len(excerpt(kept.report.text).encode()),
            tool_call_id=call.id,
        )
        address = address_of(self.voice.log.session_id, self.voice.record(Kind.ARTIFACT, body))
        self._open[call.id] = replace(
            self._open[call.id], artifacts=(address,), output_bytes=kept.blob.size
        )
        return kept.named(address)

    def finish(
        self,
        call: OpenCall,
        status: str,
        text: str,
        code: str | None = None,
        *,
        report: Report | None = None,
    ) -> None:
        """Record what came of it and show `text`; nothing happens where it is finished already."""
        opened = self._open.pop(call.id, None)
        if opened is None:
            return
        text = self.voice.secrecy.text(text)
        length = opened.output_bytes
        if length is None:
            length = len((report.text if report else text).encode())
        result = ResultBody(
            tool_call_id=call.id,
            status=status,
            code=code,
            tool=call.tool,
            exit_code=report.exit_code if report else None,
            duration_ms=opened.duration_ms(trio.current_time()),
            output_bytes=length,
            artifacts=opened.artifacts,
        )
        self._tell_end(result, text)
        self._count(status)
        if status != "cancelled":
            self.tally(started=status == "completed" or opened.started is not None)

    def fail(self, call: OpenCall) -> None:
        """Its tool broke; why is nobody's business outside."""
        self.finish(call, "failed", "The tool broke.", code="tool")

    def cancel_all(self) -> None:
        """Finish all that are open, as the turn ends."""
        for call in list(self._open.values()):
            self.finish(call, "cancelled", "Cancelled.")

    def tally(self, *, started: bool) -> None:
        """Count calls in vain; an agent that makes nothing else is stopped, its turn failed."""
        self.in_vain = 0 if started else self.in_vain + 1
        if self.in_vain == MAX_IN_VAIN:
            origin = {"session": self.voice.log.session_id, "generation": self.turn.generation}
            logger.warning("an agent makes nothing but calls in vain: stopped", extra=origin)
            self.turn.fail("agent_failed", "it makes nothing but calls in vain")

    def _tell_end(self, result: ResultBody, text: str) -> None:
        done = result.status == "completed"
        shown = ToolCallUpdate(
            tool_call_id=result.tool_call_id,
            status=ToolCallStatus.COMPLETED if done else ToolCallStatus.FAILED,
            content=[ToolContent(content=Text(text=excerpt(text)))] if text else None,
        )
        self.voice.end_message()
        self.voice.record(Kind.TOOL, encode(shown))
        self.voice.record(Kind.RESULT, result)

    def _count(self, status: str) -> None:
        counted = {"refused": "failed"}.get(status, status)
        counts = self.turn.tool_calls
        self.turn.tool_calls = replace(counts, **{counted: getattr(counts, counted) + 1})
