"""What an agent does on its turn, and the one gate every tool call passes.

The order of a tool call is fixed: show it; hear what the grant, the rules and the posture of the
session say; ask if it has to be asked; write the intent and the charge and wait until both are
durable; look once more whether the session may still start it, and start it in that same tick. A
killed session therefore starts nothing, one that was made read-only meanwhile changes nothing, no
tool runs without a record, and none that ran was not paid for.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Never, TypeVar

import msgspec
import trio
from msgspec.structs import replace

from moorage_daemon.agents.port import CallRefused, Compaction, ModelCall, Past, StageClosed
from moorage_daemon.grants.calls import Call, File, with_links
from moorage_daemon.grants.credentials import references
from moorage_daemon.grants.holds import Wish
from moorage_daemon.grants.policy import Say
from moorage_daemon.grants.refusals import RefusalKind, Refused as NotGranted
from moorage_daemon.ledger.ledger import Origin
from moorage_daemon.log.views import address_of
from moorage_daemon.store.model import (
    ArtifactBody,
    IntentBody,
    Kind,
    ResultBody,
    as_cost,
)
from moorage_daemon.tools.port import Bench, Killable, NotBegun, Report, Tool, ToolFailed
from moorage_daemon.turn.answers import Answers
from moorage_daemon.turn.artifacts import Kept, excerpt, keep
from moorage_daemon.turn.asks import Decision
from moorage_daemon.turn.calls import MAX_IN_VAIN, NO_CALL, QUESTION, Intent, OpenCall
from moorage_daemon.turn.ground import Trouble
from moorage_daemon.turn.posture import (
    ASKS_AGAIN,
    Asked,
    Deed,
    Leave,
    Refused,
    Ruling,
    Unasked,
    lie_inside,
    rule,
)
from moorage_daemon.turn.questions import as_call, put, said
from moorage_daemon.turn.scene import Scene
from moorage_daemon.turn.secrecy import Secrecy
from moorage_daemon.turn.turn import Turn
from moorage_protocol.acp import (
    PermissionKind,
    Plan,
    PlanEntry,
    Text,
    ToolCallContent,
    ToolCallFields,
    ToolCallStatus,
    ToolCallUpdate,
    ToolContent,
    ToolKind,
    UsageUpdate,
)
from moorage_protocol.config import SessionConfig
from moorage_protocol.jsonrpc import encode
from moorage_protocol.moorage import NO_TOKENS, Cause, Overrides
from moorage_protocol.views import Verification


logger = logging.getLogger(__name__)

A = TypeVar("A", bound=msgspec.Struct)

MAX_REPORT = 256 * 2**10  # bytes; a page of reports fits one message
MAX_ARGUMENTS = 128 * 2**10  # bytes; a longer argument no program can be given
MAX_PREVIEW = 512 * 2**10  # bytes: with the arguments it fits into a question
BREATH = 8  # pieces of text after which a busy agent lets others run: some 20 µs

BY_RULE = Unasked("rule")
FORBIDDEN = Refused("denied", "Not done: the rules of this session forbid it.")
WITHHELD = "[withheld: this session may not be told the result]"


@dataclass(eq=False)
class TurnStage:
    """The stage of one turn; closed when the turn's verdict is due."""

    turn: Turn
    scene: Scene
    running: set[Killable] = field(default_factory=set[Killable])
    _calls: dict[str, OpenCall] = field(default_factory=dict[str, OpenCall])
    _called: int = 0
    _in_vain: int = 0  # calls in a row that were not started
    _spoken: int = 0
    _messages: int = 0
    _closed: bool = False
    _spent: Trouble | None = None
    secrecy: Secrecy = field(init=False)
    answers: Answers = field(init=False)

    def __post_init__(self) -> None:
        self.secrecy = Secrecy(self.turn.prompt.secrets)
        self.answers = Answers(self.scene.ground, self._origin())

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

    async def history(self, characters: int) -> Past:
        """The earlier turns."""
        turn, history = self.turn, self.scene.history
        return await history.before(
            turn.generation, turn.ready_at, characters, self.scene.record.compacted
        )

    async def compact(self, compaction: Compaction, call: ModelCall | None) -> None:
        """Put a summary in the place of the first turns; durable when this returns."""
        self._must_be_open()
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
        self._must_be_open()
        self._tell(update, self.secrecy.piece(update, text))
        self._spoken += 1
        self.answers.hear(text)
        if self._spoken % BREATH == 0:
            await trio.lowlevel.checkpoint()
        await self.scene.log.room()

    def _tell(self, update: str, text: str) -> None:
        if text:
            message = f"{self.turn.generation}-{self._messages}-{update[6]}"
            self.scene.log.append_text(update, text, message, self.turn.generation)

    def _end_message(self) -> None:
        """What is said from here on is a new message; of this one nothing is held back any more."""
        for update, rest in self.secrecy.rest():
            self._tell(update, rest)
        self._messages += 1

    async def plan(self, entries: Sequence[PlanEntry]) -> None:
        """Show the plan."""
        self._show(Kind.PLAN, Plan(entries=self.secrecy.entries(entries)))
        await self.scene.log.room()

    async def begin_answer(self, wish: Wish) -> int | None:
        """Hold what an answer may take; the turn ends where nothing is left for one."""
        self._must_be_open()
        try:
            most = await self.answers.begin(wish)
        except NotGranted as refusal:
            self.scene.ground.tell(refusal)
            if refusal.kind is RefusalKind.BUDGET:
                await self._halt(Trouble(Cause.BUDGET, str(refusal.detail.get("axis"))))
            raise refusal.told from None
        self._must_be_open()
        return most

    def drop_answer(self) -> None:
        """Give back what was held."""
        self.answers.drop()

    async def tell_usage(self, call: ModelCall) -> None:
        """Note what an answer took; told where it says how full the context is."""
        self._must_be_open()
        self.turn.usage = (self.turn.usage or NO_TOKENS) + call.tokens
        totals = self.scene.record.note_cost(self.turn.generation, call)
        trouble = self.scene.ground.spend(call, self._origin(), self.answers.take())
        if call.window is not None:
            cost = None if totals.micros is None else as_cost(totals.micros)
            self._show(Kind.UPDATE, UsageUpdate(used=totals.used, size=call.window, cost=cost))
        if trouble is not None:
            await self._halt(trouble)
        await self.scene.log.room()

    async def _halt(self, trouble: Trouble) -> None:
        """The turn cannot go on; where it can be, it is cancelled here and now."""
        self.scene.halt(self.turn, trouble)
        await trio.lowlevel.checkpoint()

    def _origin(self, call: OpenCall | None = None) -> Origin:
        """What a charge of this turn is for."""
        log, turn = self.scene.log, self.turn
        return Origin(log.session_id, turn.generation, call.id if call is not None else None)

    def _show(self, kind: Kind, update: msgspec.Struct) -> int:
        self._must_be_open()
        self._end_message()
        return self.scene.log.append(kind, encode(update), generation=self.turn.generation)

    def _must_be_open(self) -> None:
        if self._closed:
            raise StageClosed

    async def report(self, verification: Verification) -> None:
        """Record what was verified; raises `ValueError` if that is more than a message holds."""
        self._must_be_open()
        body = encode(self.secrecy.verification(verification))
        if len(body) > MAX_REPORT:
            raise ValueError("a verification report is too long")
        self.scene.log.append(Kind.REPORT, body, generation=self.turn.generation)
        await self.scene.log.room()

    # ---- asking

    async def ask(self, title: str, kind: ToolKind = ToolKind.OTHER) -> bool:
        """Put a question to the user, shown as a tool call that does nothing but ask."""
        call = self._open_call("Ask")
        fields = ToolCallFields(
            tool_call_id=call.id,
            title=self.secrecy.text(title),
            kind=kind,
            status=ToolCallStatus.PENDING,
        )
        self._show(Kind.TOOL, as_call(fields))
        decision = await put(self.scene, self.turn.generation, fields)
        self._finish(call, "completed" if decision.allows else "refused", said(decision))
        return decision.allows

    # ---- tools

    async def call(self, tool: Tool[A], arguments: A) -> Report:
        """Call a tool through the gate."""
        given = encode(arguments)
        if len(given) > MAX_ARGUMENTS:
            self._tally(started=False)
            await self._wind_up()
            return Report(f"{tool.name} takes at most {MAX_ARGUMENTS} bytes.", ok=False)
        locations = tool.locations(arguments, self.cwd)
        deed = Deed(tool.kind, tool.asks, lie_inside(self.cwd, locations))
        named = references(given.decode(errors="replace"))
        about = self.scene.ground.filling(tool.about(arguments, self.cwd), named)
        shown = self.secrecy.json(given)
        call = self._open_call(tool.name, deed, about, named, is_secret=shown != given)
        fields = ToolCallFields(
            tool_call_id=call.id,
            title=self.secrecy.text(tool.title(arguments)),
            name=tool.name,
            kind=tool.kind,
            status=ToolCallStatus.PENDING,
            locations=self.secrecy.locations(locations) or None,
            raw_input=msgspec.Raw(shown),
        )
        bench = Bench(
            self.cwd,
            lambda text: self._show_progress(call, text),
            self.running,
            self.scene.record.environment,
            self.turn.client,
            is_secret=call.is_secret,
        )
        self._show(Kind.TOOL, as_call(fields))
        try:
            return await self._pass(await self._with_links(call), tool, arguments, fields, bench)
        except NotGranted as refusal:
            await self._turn_away(call, refusal)
        finally:
            await self._wind_up()

    async def _with_links(self, call: OpenCall) -> OpenCall:
        """The call with where the links of its file end: a rule about that file counts as well."""
        subject = call.about.subject
        if not isinstance(subject, File):
            return call
        found = await trio.to_thread.run_sync(with_links, self.cwd, subject, abandon_on_cancel=True)
        return replace(call, about=replace(call.about, subject=found))

    async def _pass(
        self, call: OpenCall, tool: Tool[A], arguments: A, fields: ToolCallFields, bench: Bench
    ) -> Report:
        """The way through the gate; raises `CallRefused`, and the grant's own refusal."""
        self.scene.ground.check(call.about, call.credentials)
        self._heed(call)
        seen = await self._preview(call, tool, arguments, bench)
        if isinstance(seen, Report):
            return seen
        intent = await self._permit(call, replace(fields, content=seen or None))
        begun = False
        try:
            secrets = await self._secrets(call)
            await self.scene.log.until(self.scene.log.seq)  # the intent
            if intent.receipt is not None:
                await intent.receipt.durable()
            await self._must_lead_there_still(call)
            self._must_still(call, intent.leave)
            bench = dataclasses.replace(bench, secrets=secrets)
            begun = True
            return await self._run(call, tool, arguments, bench)
        except NotBegun as error:
            begun = False
            self._calls[call.id] = call
            self._finish(call, "failed", str(error))
            return Report(str(error), ok=False)
        finally:
            if not begun:
                self.scene.ground.refund(intent.receipt, self._origin(call))

    async def _turn_away(self, call: OpenCall, refusal: NotGranted) -> Never:
        """The grant does not permit it: the agent hears a few words, and where the time is over the
        turn ends with that; where all is used up, once the calls that were permitted are done."""
        told = refusal.told
        self.scene.ground.tell(refusal)
        self._finish(call, "refused", told.message, told.kind)
        match refusal.kind:
            case RefusalKind.BUDGET:
                self._spent = Trouble(Cause.BUDGET, str(refusal.detail.get("axis")))
            case RefusalKind.EXPIRED:
                await self._halt(Trouble(Cause.SESSION_EXPIRED))
            case _:
                pass
        raise CallRefused(told.message)

    async def _wind_up(self) -> None:
        """End a turn that was refused a call for its budget, behind the last of its calls; let
        others run, and a cancel through, where an agent does nothing but call in vain."""
        if self._spent is not None and not self._calls and not self._closed:
            await self._halt(self._spent)
        elif self._in_vain:
            await trio.lowlevel.checkpoint()

    def _tally(self, *, started: bool) -> None:
        """Count calls in vain; an agent that makes nothing else is stopped, its turn failed."""
        self._in_vain = 0 if started else self._in_vain + 1
        if self._in_vain == MAX_IN_VAIN:
            origin = {"session": self.scene.log.session_id, "generation": self.turn.generation}
            logger.warning("an agent makes nothing but calls in vain: stopped", extra=origin)
            self.turn.fail("agent_failed", "it makes nothing but calls in vain")

    def _ruling(self, call: OpenCall) -> Ruling:
        """What the rules of this moment make of a call, and where they say nothing the posture.

        What the posture refuses no rule allows. What a rule asks about is asked each time; a
        default that asks, which is about no call of its own, leaves room for an earlier "always".
        """
        by_posture = rule(self.scene.record.posture, call.deed)
        by_rules = self.scene.ground.rule(call.about)
        match by_rules.say:
            case Say.DENY:
                return FORBIDDEN
            case Say.ASK:
                if isinstance(by_posture, Refused):
                    return by_posture
                return Asked(each_time=by_rules.rule is not None)
            case Say.ALLOW:
                return by_posture if isinstance(by_posture, Refused) else BY_RULE
            case Say.NOTHING:
                return by_posture

    def _heed(self, call: OpenCall) -> Ruling:
        """The same; raises `CallRefused` for what is not to happen."""
        ruling = self._ruling(call)
        if isinstance(ruling, Refused):
            self._refuse(call, ruling.line, ruling.code)
        return ruling

    async def _preview(
        self, call: OpenCall, tool: Tool[A], arguments: A, bench: Bench
    ) -> Sequence[ToolCallContent] | Report:
        """Show what is to be seen before; the end of it where that says it cannot be done."""
        if self.scene.ground.withholds(call.about, ""):
            return ()
        try:
            content = await tool.preview(arguments, bench)
        except ToolFailed as error:
            self._finish(call, "failed", str(error))
            return Report(str(error), ok=False)
        except Exception:
            self._break(call)
            raise
        if content and len(encode(content)) <= MAX_PREVIEW and not await self._tells(content):
            self._show(Kind.TOOL, ToolCallUpdate(tool_call_id=call.id, content=content))
            return content
        return ()

    async def _tells(self, content: Sequence[ToolCallContent]) -> bool:
        """Whether a secret stands in it; a difference without it would be another one."""
        await self._listed()
        return self.secrecy.stands_in(encode(content).decode())

    async def _permit(self, call: OpenCall, fields: ToolCallFields) -> Intent:
        """Come to a decision, and write the intent and the charge with it.

        Raises `CallRefused`, and what the grant refuses meanwhile: it may have ended, or be used
        up, by the time somebody answers.
        """
        wish = f"{call.tool}:{fields.title}"
        intent = Intent()

        def intend(decision: str, *, remember: bool = False) -> None:
            try:
                intent.receipt = self.scene.ground.charge(call.about, self._origin(call))
            except NotGranted as refusal:
                intent.refusal = refusal
                return
            if remember:
                self.scene.standing.add(wish)
            self._intend(call, fields, decision, wish if remember else None)

        def chosen(kind: PermissionKind | None) -> None:
            decision = kind.value if kind is not None else Decision.LET_PASS.value
            is_for_good = kind is PermissionKind.ALLOW_ALWAYS and not call.is_secret
            intend(decision, remember=is_for_good)

        ruling = self._heed(call)
        if isinstance(ruling, Unasked):
            intend(ruling.why)
        elif await self._stands(call, ruling, wish):
            intent.leave = Leave.ALWAYS
            intend("always")
        else:
            intent.leave = Leave.ANSWERED
            decision = await put(self.scene, self.turn.generation, fields, chosen)
            if not decision.allows:
                self._refuse(call, said(decision))
        if intent.refusal is not None:
            raise intent.refusal
        return intent

    async def _stands(self, call: OpenCall, ruling: Ruling, wish: str) -> bool:
        """Whether an earlier "always" is all that it takes; the rules of after the look count."""
        if (
            call.is_secret
            or ruling == Asked(each_time=True)
            or not await self.scene.standing.covers(wish)
        ):
            return False
        return self._heed(call) != Asked(each_time=True)

    def _refuse(self, call: OpenCall, line: str, code: str | None = None) -> Never:
        self._finish(call, "refused", line, code)
        raise CallRefused(line)

    def _intend(
        self, call: OpenCall, fields: ToolCallFields, decision: str, rule: str | None
    ) -> None:
        assert isinstance(fields.raw_input, msgspec.Raw)
        body = IntentBody(
            tool_call_id=call.id,
            tool=call.tool,
            arguments=fields.raw_input,
            decision=decision,
            rule=rule,
        )
        self.scene.log.append(Kind.INTENT, body, generation=self.turn.generation)

    def _must_still(self, call: OpenCall, leave: Leave) -> None:
        """Look once more, in the tick in which it is started, whether all of it still holds.

        What has to be asked about meanwhile and was not is not started: the agent may try again.
        """
        self._must_be_open()
        if not self.scene.may_start:
            raise StageClosed
        self.scene.ground.must_hold()
        if not leave.covers(self._heed(call)):
            self._refuse(call, ASKS_AGAIN.line, ASKS_AGAIN.code)

    async def _must_lead_there_still(self, call: OpenCall) -> None:
        """Raise `NotBegun` where the links of its file end elsewhere than when it was decided."""
        if await self._with_links(call) != call:
            raise NotBegun("Not done: its path leads to another file than it did before.")

    async def _secrets(self, call: OpenCall) -> dict[str, str]:
        """The credentials that a call refers to; all that its grant lists are looked out for.

        Raises `NotBegun` if one of them is not to be had.
        """
        listed = await self._listed()
        if not set(call.credentials) <= set(listed):
            raise NotBegun("A credential that it refers to is not available.")
        return {name: listed[name] for name in call.credentials}

    async def _listed(self) -> Mapping[str, str]:
        """The credentials that the grant lists, which nothing is to tell from here on."""
        listed = await self.scene.ground.secrets()
        if not self._closed:
            self._end_message()
        self.secrecy.learn(listed)
        return listed

    async def _run(self, call: OpenCall, tool: Tool[A], arguments: A, bench: Bench) -> Report:
        """Run the tool, which nothing is in the way of any more."""
        self._progress(call, ToolCallStatus.IN_PROGRESS)
        self._calls[call.id] = replace(call, started=trio.current_time())
        try:
            report = await tool.run(arguments, bench)
        except NotBegun:
            raise
        except ToolFailed as error:
            report = Report(str(error), ok=False)
        except Exception:
            self._break(call)
            raise
        told, heard, code = self._fit_to_tell(call, report)
        kept = await keep(told, self.scene.blobs)
        if kept is not None and call.id in self._calls:
            told = heard = self._record_artifact(call, kept)
        said = "" if told.is_shown else told.text
        self._finish(call, "completed" if told.ok else "failed", said, code, report=told)
        return heard

    def _record_artifact(self, call: OpenCall, kept: Kept) -> Report:
        """Name what was kept in the log; gives the report that says where it is."""
        body = ArtifactBody(
            sha256=kept.blob.sha256,
            size=kept.blob.size,
            tool=call.tool,
            name=f"{call.id}.txt",
            shown=len(excerpt(kept.report.text).encode()),
            tool_call_id=call.id,
        )
        log = self.scene.log
        seq = log.append(Kind.ARTIFACT, body, generation=self.turn.generation)
        address = address_of(log.session_id, seq)
        self._calls[call.id] = replace(
            self._calls[call.id], artifacts=(address,), output_bytes=kept.blob.size
        )
        return kept.named(address)

    def _fit_to_tell(self, call: OpenCall, report: Report) -> tuple[Report, Report, str | None]:
        """The report as it is told, and as the agent hears it: both without what they are not to
        hold, or only that it is withheld, with the word for that."""
        told = self.secrecy.report(report)
        if self.scene.ground.withholds(call.about, told.whole or told.text):
            withheld = replace(report, text=WITHHELD, whole=None, is_shown=False)
            return withheld, withheld, "withheld"
        return told, self.secrecy.report_for_agent(report), None

    def _break(self, call: OpenCall) -> None:
        self._finish(call, "failed", "The tool broke.", code="tool")

    def _open_call(
        self,
        tool: str,
        deed: Deed = QUESTION,
        about: Call = NO_CALL,
        credentials: tuple[str, ...] = (),
        *,
        is_secret: bool = False,
    ) -> OpenCall:
        self._must_be_open()
        self._called += 1
        name = f"call-{self.turn.generation}-{self._called}"
        call = OpenCall(name, tool, deed, about, credentials, is_secret)
        self._calls[call.id] = call
        return call

    def _progress(self, call: OpenCall, status: ToolCallStatus) -> None:
        self._show(Kind.TOOL, ToolCallUpdate(tool_call_id=call.id, status=status))

    def _show_progress(self, call: OpenCall, text: str) -> None:
        if not self._closed and not self.scene.ground.withholds(call.about, text):
            shown = excerpt(self.secrecy.text(text, is_cut=True))
            content = [ToolContent(content=Text(text=shown))]
            self._show(Kind.TOOL, ToolCallUpdate(tool_call_id=call.id, content=content))

    def _finish(
        self,
        call: OpenCall,
        status: str,
        text: str,
        code: str | None = None,
        *,
        report: Report | None = None,
    ) -> None:
        is_open = self._calls.pop(call.id, None)
        text = self.secrecy.text(text)
        if is_open is not None:
            result = ResultBody(
                tool_call_id=call.id,
                status=status,
                code=code,
                tool=call.tool,
                exit_code=report.exit_code if report else None,
                duration_ms=is_open.duration_ms(trio.current_time()),
                output_bytes=is_open.output_bytes
                if is_open.output_bytes is not None
                else len((report.text if report else text).encode()),
                artifacts=is_open.artifacts,
            )
            self._close_call(result, text)
            if status != "cancelled":
                self._tally(started=status == "completed" or is_open.started is not None)

    def _close_call(self, result: ResultBody, text: str) -> None:
        done = result.status == "completed"
        shown = ToolCallUpdate(
            tool_call_id=result.tool_call_id,
            status=ToolCallStatus.COMPLETED if done else ToolCallStatus.FAILED,
            content=[ToolContent(content=Text(text=excerpt(text)))] if text else None,
        )
        generation, log = self.turn.generation, self.scene.log
        self._end_message()
        log.append(Kind.TOOL, encode(shown), generation=generation)
        log.append(Kind.RESULT, result, generation=generation)
        self._count(result.status)

    def _count(self, status: str) -> None:
        counted = {"refused": "failed"}.get(status, status)
        counts = self.turn.tool_calls
        self.turn.tool_calls = replace(counts, **{counted: getattr(counts, counted) + 1})

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
        if self._closed:
            return
        self.scene.asks.end(self.turn.generation)
        self.answers.settle()
        for call in list(self._calls.values()):
            self._finish(call, "cancelled", "Cancelled.")
        self._end_message()
        self._closed = True
        for process in list(self.running):
            process.kill()

    @property
    def processes(self) -> int:
        """How many programs are running for this turn."""
        return len(self.running)
