"""The one gate that every tool call of every agent passes.

The order of a tool call is fixed: show it; hear what the grant, the rules and the posture of the
session say; ask if it has to be asked; write the intent and the charge and wait until both are
durable; look once more whether the session may still start it, and start it in that same tick. A
killed session therefore starts nothing, one that was made read-only meanwhile changes nothing, no
tool runs without a record, and none that ran was not paid for.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Never, TypeVar

import msgspec
import trio
from msgspec.structs import replace

from moorage_daemon.agents.port import CallRefused, StageClosed
from moorage_daemon.grants.calls import File, with_links
from moorage_daemon.grants.credentials import references
from moorage_daemon.grants.policy import Say
from moorage_daemon.grants.refusals import RefusalKind, Refused as NotGranted
from moorage_daemon.ledger.ledger import Origin
from moorage_daemon.store.model import IntentBody, Kind
from moorage_daemon.tools.port import Bench, Killable, NotBegun, Report, Tool, ToolFailed
from moorage_daemon.turn.artifacts import excerpt, keep
from moorage_daemon.turn.asks import Decision
from moorage_daemon.turn.calls import Intent, OpenCall
from moorage_daemon.turn.ground import Trouble
from moorage_daemon.turn.open_calls import OpenCalls
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
from moorage_daemon.turn.turn import Turn
from moorage_daemon.turn.voice import Voice
from moorage_protocol.acp import (
    PermissionKind,
    Text,
    ToolCallContent,
    ToolCallFields,
    ToolCallStatus,
    ToolContent,
)
from moorage_protocol.jsonrpc import encode
from moorage_protocol.moorage import Cause


A = TypeVar("A", bound=msgspec.Struct)

MAX_ARGUMENTS = 128 * 2**10  # bytes; a longer argument no program can be given
MAX_PREVIEW = 512 * 2**10  # bytes: with the arguments it fits into a question

BY_RULE = Unasked("rule")
FORBIDDEN = Refused("denied", "Not done: the rules of this session forbid it.")
WITHHELD = "[withheld: this session may not be told the result]"


@dataclass(eq=False)
class Enforcement:
    """The gate on one turn. What `running` holds runs for it outside the daemon."""

    turn: Turn
    scene: Scene
    voice: Voice
    calls: OpenCalls
    running: set[Killable] = field(default_factory=set[Killable])
    _spent: Trouble | None = None

    async def call(self, tool: Tool[A], arguments: A) -> Report:
        """Call a tool; raises `CallRefused` and `StageClosed`."""
        given = encode(arguments)
        if len(given) > MAX_ARGUMENTS:
            self.calls.tally(started=False)
            await self._wind_up()
            return Report(f"{tool.name} takes at most {MAX_ARGUMENTS} bytes.", ok=False)
        cwd, secrecy = self.scene.record.cwd, self.voice.secrecy
        locations = tool.locations(arguments, cwd)
        deed = Deed(tool.kind, tool.asks, lie_inside(cwd, locations))
        named = references(given.decode(errors="replace"))
        about = self.scene.ground.filling(tool.about(arguments, cwd), named)
        shown = secrecy.json(given)
        call = self.calls.open(tool.name, deed, about, named, is_secret=shown != given)
        fields = ToolCallFields(
            tool_call_id=call.id,
            title=secrecy.text(tool.title(arguments)),
            name=tool.name,
            kind=tool.kind,
            status=ToolCallStatus.PENDING,
            locations=secrecy.locations(locations) or None,
            raw_input=msgspec.Raw(shown),
        )
        bench = Bench(
            cwd,
            lambda text: self._show_progress(call, text),
            self.running,
            self.scene.record.environment,
            self.turn.client,
            is_secret=call.is_secret,
        )
        self.voice.show(Kind.TOOL, as_call(fields))
        try:
            return await self._pass(await self._with_links(call), tool, arguments, fields, bench)
        except NotGranted as refusal:
            await self._turn_away(call, refusal)
        finally:
            await self._wind_up()

    async def halt(self, trouble: Trouble) -> None:
        """The turn cannot go on; where it can be, it is cancelled here and now."""
        self.scene.halt(self.turn, trouble)
        await trio.lowlevel.checkpoint()

    def _paying_for(self, call: OpenCall) -> Origin:
        return Origin(self.scene.log.session_id, self.turn.generation, call.id)

    async def _with_links(self, call: OpenCall) -> OpenCall:
        """The call with where the links of its file end: a rule about that file counts as well."""
        subject = call.about.subject
        if not isinstance(subject, File):
            return call
        found = await trio.to_thread.run_sync(
            with_links, self.scene.record.cwd, subject, abandon_on_cancel=True
        )
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
            self.calls.take_back(call)
            self.calls.finish(call, "failed", str(error))
            return Report(str(error), ok=False)
        finally:
            if not begun:
                self.scene.ground.refund(intent.receipt, self._paying_for(call))

    async def _turn_away(self, call: OpenCall, refusal: NotGranted) -> Never:
        """The grant does not permit it: the agent hears a few words, and where the time is over the
        turn ends with that; where all is used up, once the calls that were permitted are done."""
        told = refusal.told
        self.scene.ground.tell(refusal)
        self.calls.finish(call, "refused", told.message, told.kind)
        match refusal.kind:
            case RefusalKind.BUDGET:
                self._spent = Trouble(Cause.BUDGET, str(refusal.detail.get("axis")))
            case RefusalKind.EXPIRED:
                await self.halt(Trouble(Cause.SESSION_EXPIRED))
            case _:
                pass
        raise CallRefused(told.message)

    async def _wind_up(self) -> None:
        """End a turn that was refused a call for its budget, behind the last of its calls; let
        others run, and a cancel through, where an agent does nothing but call in vain."""
        if self._spent is not None and not self.calls and not self.voice.is_closed:
            await self.halt(self._spent)
        elif self.calls.in_vain:
            await trio.lowlevel.checkpoint()

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
            self.calls.finish(call, "failed", str(error))
            return Report(str(error), ok=False)
        except Exception:
            self.calls.fail(call)
            raise
        if content and len(encode(content)) <= MAX_PREVIEW and not await self._tells(content):
            self.calls.show(call, [*content])
            return content
        return ()

    async def _tells(self, content: Sequence[ToolCallContent]) -> bool:
        """Whether a secret stands in it; a difference without it would be another one."""
        await self._listed()
        return self.voice.secrecy.stands_in(encode(content).decode())

    async def _permit(self, call: OpenCall, fields: ToolCallFields) -> Intent:
        """Come to a decision, and write the intent and the charge with it.

        Raises `CallRefused`, and what the grant refuses meanwhile: it may have ended, or be used
        up, by the time somebody answers.
        """
        wish = f"{call.tool}:{fields.title}"
        intent = Intent()

        def intend(decision: str, *, remember: bool = False) -> None:
            try:
                intent.receipt = self.scene.ground.charge(call.about, self._paying_for(call))
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
        self.calls.finish(call, "refused", line, code)
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
        self.voice.record(Kind.INTENT, body)

    def _must_still(self, call: OpenCall, leave: Leave) -> None:
        """Look once more, in the tick in which it is started, whether all of it still holds.

        What has to be asked about meanwhile and was not is not started: the agent may try again.
        """
        self.voice.must_be_open()
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
        if not self.voice.is_closed:
            self.voice.end_message()
        self.voice.secrecy.learn(listed)
        return listed

    async def _run(self, call: OpenCall, tool: Tool[A], arguments: A, bench: Bench) -> Report:
        """Run the tool, which nothing is in the way of any more."""
        self.calls.start(call)
        try:
            report = await tool.run(arguments, bench)
        except NotBegun:
            raise
        except ToolFailed as error:
            report = Report(str(error), ok=False)
        except Exception:
            self.calls.fail(call)
            raise
        told, heard, code = self._fit_to_tell(call, report)
        kept = await keep(told, self.scene.blobs)
        named = self.calls.note_artifact(call, kept) if kept is not None else None
        if named is not None:
            told = heard = named
        said = "" if told.is_shown else told.text
        self.calls.finish(call, "completed" if told.ok else "failed", said, code, report=told)
        return heard

    def _fit_to_tell(self, call: OpenCall, report: Report) -> tuple[Report, Report, str | None]:
        """The report as it is told, and as the agent hears it: both without what they are not to
        hold, or only that it is withheld, with the word for that."""
        told = self.voice.secrecy.report(report)
        if self.scene.ground.withholds(call.about, told.whole or told.text):
            withheld = replace(report, text=WITHHELD, whole=None, is_shown=False)
            return withheld, withheld, "withheld"
        return told, self.voice.secrecy.report_for_agent(report), None

    def _show_progress(self, call: OpenCall, text: str) -> None:
        if not self.voice.is_closed and not self.scene.ground.withholds(call.about, text):
            shown = excerpt(self.voice.secrecy.text(text, is_cut=True))
            self.calls.show(call, [ToolContent(content=Text(text=shown))])
