"""What an agent does on its turn: it speaks, plans, asks, and calls tools through the one gate."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from moorage_daemon.agents.port import Compaction, ModelCall, Past, Vain
from moorage_daemon.grants.holds import Wish
from moorage_daemon.grants.refusals import RefusalKind, Refused as NotGranted
from moorage_daemon.ledger.ledger import Origin
from moorage_daemon.store.model import Kind, as_cost
from moorage_daemon.tools.port import Killable, Report, Tool
from moorage_daemon.turn.answers import Answers
from moorage_daemon.turn.enforcement import Enforcement
from moorage_daemon.turn.ground import Trouble
from moorage_daemon.turn.open_calls import OpenCalls
from moorage_daemon.turn.questions import as_call, put, said
from moorage_daemon.turn.scene import Scene
from moorage_daemon.turn.secrecy import Secrecy
from moorage_daemon.turn.turn import Turn
from moorage_daemon.turn.voice import Voice
from moorage_protocol.acp import (
    Plan,
    PlanEntry,
    ToolCallFields,
    ToolCallStatus,
    ToolKind,
    UsageUpdate,
)
from moorage_protocol.config import SessionConfig
from moorage_protocol.jsonrpc import encode
from moorage_protocol.moorage import NO_TOKENS, Cause, Overrides
from moorage_protocol.views import Verification


A = TypeVar("A", bound=msgspec.Struct)

MAX_REPORT = 256 * 2**10  # bytes; a page of reports fits one message


@dataclass(eq=False)
class TurnStage:
    """The stage of one turn; closed when the turn's verdict is due."""

    turn: Turn
    scene: Scene
    secrecy: Secrecy = field(init=False)
    voice: Voice = field(init=False)
    calls: OpenCalls = field(init=False)
    enforcement: Enforcement = field(init=False)
    answers: Answers = field(init=False)

    def __post_init__(self) -> None:
        turn, scene = self.turn, self.scene
        self.secrecy = Secrecy(turn.prompt.secrets)
        self.voice = Voice(scene.log, turn.generation, self.secrecy)
        self.calls = OpenCalls(turn, self.voice)
        self.enforcement = Enforcement(turn, scene, self.voice, self.calls)
        self.answers = Answers(scene.ground, self._origin)

    # ---- speaking

    @property
    def cwd(self) -> str:
        """The session's working directory."""
        return self.scene.record.cwd

    @property
    def overrides(self) -> Overrides:
        """The turn's model settings."""
        return self.turn.overrides

    @property
    def config(self) -> SessionConfig:
        """The turn's configuration."""
        return self.turn.config

    @property
    def used(self) -> int:
        """Tokens in the context of the model that answered last."""
        return self.scene.record.totals.used

    @property
    def generation(self) -> int:
        """The number of the turn."""
        return self.turn.generation

    @property
    def vain(self) -> Vain | None:
        """The last try to sum up, if it came to nothing."""
        return self.scene.record.vain

    async def history(self, characters: int) -> Past:
        """The earlier turns."""
        turn, history = self.turn, self.scene.history
        return await history.before(
            turn.generation, turn.ready_at, characters, self.scene.record.compacted
        )

    async def compact(self, compaction: Compaction, call: ModelCall | None) -> None:
        """Put a summary in the place of the first turns; durable when this returns."""
        self.voice.must_be_open()
        if compaction.summary is not None:
            compaction = replace(compaction, summary=self.secrecy.text(compaction.summary))
        seq = self.scene.record.note_compaction(self.turn.generation, compaction)
        if call is not None:
            await self.tell_usage(call)
        await self.scene.log.until(seq)

    async def say(self, text: str) -> None:
        """Stream a piece of the answer."""
        await self._stream("agent_message_chunk", text)

    async def think(self, text: str) -> None:
        """Stream a piece of reasoning."""
        await self._stream("agent_thought_chunk", text)

    async def _stream(self, update: str, text: str) -> None:
        self.voice.must_be_open()
        self.answers.hear(text)
        await self.voice.stream(update, text)

    async def plan(self, entries: Sequence[PlanEntry]) -> None:
        """Show the plan."""
        self.voice.show(Kind.PLAN, Plan(entries=self.secrecy.entries(entries)))
        await self.scene.log.room()

    async def begin_answer(self, wish: Wish) -> int | None:
        """Hold what an answer may take; the turn ends where nothing is left for one."""
        self.voice.must_be_open()
        try:
            most = await self.answers.begin(wish)
        except NotGranted as refusal:
            self.scene.ground.tell(refusal)
            if refusal.kind is RefusalKind.BUDGET:
                await self.enforcement.halt(Trouble(Cause.BUDGET, str(refusal.detail.get("axis"))))
            raise refusal.told from None
        self.voice.must_be_open()
        return most

    def hear_answer(self, text: str) -> None:
        """A piece of an answer that nobody is shown."""
        self.answers.hear(text)

    def drop_answer(self) -> None:
        """Give back what was held."""
        self.answers.drop()

    async def tell_usage(self, call: ModelCall) -> None:
        """Note what an answer took; told where it says how full the context is."""
        self.voice.must_be_open()
        self.turn.usage = (self.turn.usage or NO_TOKENS) + call.tokens
        totals = self.scene.record.note_cost(self.turn.generation, call)
        trouble = self.scene.ground.spend(call, self._origin, self.answers.take())
        if call.window is not None:
            cost = None if totals.micros is None else as_cost(totals.micros)
            self.voice.show(Kind.UPDATE, UsageUpdate(used=totals.used, size=call.window, cost=cost))
        if trouble is not None:
            await self.enforcement.halt(trouble)
        await self.scene.log.room()

    async def report(self, verification: Verification) -> None:
        """Record what was verified; raises `ValueError` if that is more than a message holds."""
        self.voice.must_be_open()
        body = encode(self.secrecy.verification(verification))
        if len(body) > MAX_REPORT:
            raise ValueError("a verification report is too long")
        self.voice.record(Kind.REPORT, body)
        await self.scene.log.room()

    @property
    def _origin(self) -> Origin:
        """What a charge of this turn is for."""
        return Origin(self.scene.log.session_id, self.turn.generation)

    # ---- asking

    async def ask(self, title: str, kind: ToolKind = ToolKind.OTHER) -> bool:
        """Put a question to the user, shown as a tool call that does nothing but ask."""
        call = self.calls.open("Ask")
        fields = ToolCallFields(
            tool_call_id=call.id,
            title=self.secrecy.text(title),
            kind=kind,
            status=ToolCallStatus.PENDING,
        )
        self.voice.show(Kind.TOOL, as_call(fields))
        decision = await put(self.scene, self.turn.generation, fields)
        self.calls.finish(call, "completed" if decision.allows else "refused", said(decision))
        return decision.allows

    # ---- tools

    async def call(self, tool: Tool[A], arguments: A) -> Report:
        """Call a tool through the gate."""
        return await self.enforcement.call(tool, arguments)

    # ---- the end

    def seconds_left(self) -> float:
        """Until the grant's time is over; infinite without one."""
        return self.scene.ground.seconds_left()

    def look(self, cause: Cause | None = None) -> None:
        """Have the turn stop for that cause, or if its ground is gone."""
        trouble = self.scene.ground.trouble() if cause is None else Trouble(cause)
        if trouble is not None:
            self.scene.halt(self.turn, trouble)

    def shut(self) -> None:
        """From now on nothing is emitted, asked or started, and what runs is killed; idempotent."""
        if self.voice.is_closed:
            return
        self.scene.asks.end(self.turn.generation)
        self.answers.settle()
        self.calls.cancel_all()
        self.voice.close()
        for process in list(self.running):
            process.kill()

    @property
    def running(self) -> set[Killable]:
        """What runs for this turn outside the daemon."""
        return self.enforcement.running

    @property
    def processes(self) -> int:
        """How many programs are running for this turn."""
        return len(self.running)
