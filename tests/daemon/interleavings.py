"""Clients, operators and agents that do anything at any time, and what must hold all the while.

The machine keeps no model of the daemon. It remembers what it asked and what it was told, and
compares that with the log: who was told that a cancel fired must find that cause in the verdict.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec
import trio
from hypothesis import note, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from trio.testing import wait_all_tasks_blocked

from moorage_daemon.agents.port import AgentFailed
from moorage_daemon.sessions import Sessions
from moorage_daemon.store.model import Entry, Kind, VerdictBody
from moorage_protocol.acp import Empty
from moorage_protocol.errors import RpcError, StorageError
from moorage_protocol.moorage import (
    CancelOutcome,
    CancelResult,
    Cause,
    KillResult,
    Outcome,
    PauseResult,
    Snapshot,
)
from tests.daemon.harness import GRACE, Daemon, open_daemon
from tests.daemon.puppet import Cut, Lever, Performance, saying
from tests.daemon.stepper import Stepper
from tests.daemon.twin import Client, Json, PromptReply, Reply


MOST_CLIENTS = 4
MOST_SESSIONS = 4
ANY = st.integers(0, 11)  # which of those there are: 12 divides evenly
GHOST = 11
ACTS = ["say", "finish", "fail", "ask", "tool", "run", "hold", "dig in", "shrug"] + 2 * ["let go"]
MOOD = st.sampled_from(["listen", "dig in", "shrug"])
SELDOM = ANY | st.just(GHOST) | st.just(GHOST)  # for what leaves little to be tried
TICKS = st.integers(0, 4) | st.none()  # how far things go before the next step; None: to rest


@dataclass
class View:
    """What one client was told of one session: where it is in the log, as its messages say."""

    at: int | None = None

    def told(self, seq: int) -> None:
        assert self.at is None or seq == self.at + 1, f"entry {seq} after {self.at}"
        self.at = seq


@dataclass(eq=False)
class Seat:
    """One client, what it asked, and what it was told."""

    client: Client
    left: bool = False
    attaches: dict[int, Json] = field(default_factory=dict[int, Json])
    detaches: dict[int, str] = field(default_factory=dict[int, str])
    news: set[int] = field(default_factory=set[int])
    views: dict[str, View] = field(default_factory=dict[str, View])
    read: int = 0

    def follow(self) -> None:
        """Read on in what came, and check that each view is a contiguous range of the log."""
        for message in self.client.messages[self.read :]:
            if "method" in message:
                self._told(message["method"], message["params"])
            elif "result" in message:
                self._answered(message["id"], message["result"])
        self.read = len(self.client.messages)

    def _told(self, method: str, params: Json) -> None:
        session = params.get("sessionId", "")
        seq = params.get("seq", params.get("_meta", {}).get("moorage", {}).get("seq"))
        if method == "_moorage/session/detached":
            self.views.pop(session, None)
        elif seq is not None:
            self.views.setdefault(session, View()).told(seq)

    def _answered(self, request: int, result: Json) -> None:
        if request in self.news:
            self.views[result["sessionId"]] = View(1)
        elif request in self.detaches:
            self.views.pop(self.detaches[request], None)
        elif request in self.attaches:
            self._attached(self.attaches[request], result["seq"])

    def _attached(self, params: Json, head: int) -> None:
        view = self.views.setdefault(params["sessionId"], View())
        start = min(params.get("afterSeq", head), head)
        if view.at is None or start < view.at:
            view.at = start


@dataclass(eq=False)
class Asked:
    """A request and who sent it."""

    seat: Seat
    session: str
    reply: Reply[Any]


class Interleavings(RuleBasedStateMachine):
    """The rules. `sessions` is the class of the daemon's session list."""

    sessions: ClassVar[type[Sessions]] = Sessions

    @initialize(moods=st.tuples(MOOD, MOOD))
    def start(self, moods: tuple[str, str]) -> None:
        self.ids: list[str] = []
        self.seats: list[Seat] = []
        self.asked: list[Asked] = []
        self.held = False
        self.stepper: Stepper[Daemon] = Stepper(self._open)
        self.daemon = self.stepper.opened
        self._do(self._begin_the_day, None)
        for performance, mood in zip(self.daemon.puppet.performances, moods, strict=True):
            _perform(performance, mood)

    async def _begin_the_day(self) -> None:
        """Two clients, and in two sessions one turn that runs and one that waits."""
        for _ in range(2):
            await self._sit_down()
            await self._found(self.seats[-1])
        for seat in self.seats:
            for session in self.ids:
                self.asked.append(Asked(seat, session, seat.client.prompt(session)))

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[Daemon]:
        async with open_daemon(
            sessions=self.sessions, prompt_queue=2, permission_timeout_seconds=20.0
        ) as daemon:
            yield daemon

    def _do(self, act: Callable[[], Awaitable[object]], ticks: int | None) -> None:
        """One step, and so much of what follows from it."""

        async def step() -> None:
            await act()
            if ticks is None:
                await wait_all_tasks_blocked()
            for _ in range(ticks or 0):
                await trio.lowlevel.checkpoint()

        self.stepper.do(step)

    # ---- who is there

    @property
    def present(self) -> list[Seat]:
        return [seat for seat in self.seats if not seat.left]

    def _seat(self, which: int) -> Seat:
        return self.present[which % len(self.present)]

    def _session(self, which: int) -> str:
        """One of the sessions, or now and then one that never was."""
        return "ghost" if which == GHOST or not self.ids else self.ids[which % len(self.ids)]

    async def _sit_down(self) -> None:
        self.seats.append(Seat(await self.daemon.connect()))

    def _ask(self, who: int, method: str, params: Json, shape: type[Any]) -> Callable[[], Any]:
        seat = self._seat(who)

        async def act() -> Asked:
            asked = Asked(
                seat, params.get("sessionId", ""), seat.client.start(method, params, shape)
            )
            self.asked.append(asked)
            return asked

        return act

    # ---- rules: clients

    @precondition(lambda self: len(self.present) < MOST_CLIENTS and len(self.seats) < 12)
    @rule()
    def connect(self) -> None:
        self._do(self._sit_down, None)

    @precondition(lambda self: len(self.present) > 1)
    @rule(who=ANY, ticks=TICKS)
    def disconnect(self, who: int, ticks: int | None) -> None:
        seat = self._seat(who)

        async def act() -> None:
            seat.follow()
            seat.left = True
            seat.client.leave()

        self._do(act, ticks)

    @precondition(lambda self: len(self.ids) < MOST_SESSIONS and not self.held)
    @rule(who=ANY)
    def new(self, who: int) -> None:
        seat = self._seat(who)

        self._do(lambda: self._found(seat), None)

    async def _found(self, seat: Seat) -> None:
        reply = seat.client.start_new()
        seat.news.add(reply.id)
        self.ids.append((await reply.result()).session_id)

    @rule(
        who=ANY,
        which=ANY,
        on_busy=st.sampled_from(["queue", "queue", "refuse", "supersede"]),
        limit=st.sampled_from([None, None, 1.0, 10.0]),
        named=st.sampled_from([None, None, "p", "q"]),
        ticks=TICKS,
    )
    def prompt(
        self,
        who: int,
        which: int,
        on_busy: str,
        limit: float | None,
        named: str | None,
        ticks: int | None,
    ) -> None:
        seat, session = self._seat(who), self._session(which)
        wish: Json = {"onBusy": on_busy}
        wish |= {"timeoutSeconds": limit} if limit else {}
        wish |= {"promptId": named} if named else {}

        async def act() -> None:
            self.asked.append(Asked(seat, session, seat.client.prompt(session, "do", **wish)))

        self._do(act, ticks)

    @rule(
        who=ANY,
        which=ANY,
        wish=st.none()
        | st.sampled_from(["current", "queued", "all"]).map(lambda scope: {"scope": scope})
        | st.integers(0, 6).map(lambda generation: {"generation": generation}),
        ticks=TICKS,
    )
    def cancel(self, who: int, which: int, wish: Json | None, ticks: int | None) -> None:
        params: Json = {"sessionId": self._session(which)}
        params |= {"_meta": {"moorage": wish}} if wish is not None else {}
        self._do(self._ask(who, "session/cancel", params, CancelResult), ticks)

    @rule(who=ANY, which=SELDOM, ticks=TICKS)
    def kill(self, who: int, which: int, ticks: int | None) -> None:
        params = {"sessionId": self._session(which)}
        self._do(self._ask(who, "session/kill", params, KillResult), ticks)

    @rule(who=ANY, which=SELDOM, ticks=TICKS)
    def close(self, who: int, which: int, ticks: int | None) -> None:
        params = {"sessionId": self._session(which)}
        self._do(self._ask(who, "session/close", params, Empty), ticks)

    @rule(who=ANY, which=ANY, goes_on=st.sampled_from([False, True, True]), ticks=TICKS)
    def pause_or_resume(self, who: int, which: int, goes_on: bool, ticks: int | None) -> None:
        method = f"_moorage/session/{'resume' if goes_on else 'pause'}"
        params = {"sessionId": self._session(which)}
        self._do(self._ask(who, method, params, PauseResult), ticks)

    @rule(who=ANY, which=ANY, after=st.none() | st.integers(0, 30), ticks=TICKS)
    def attach(self, who: int, which: int, after: int | None, ticks: int | None) -> None:
        params: Json = {"sessionId": self._session(which)}
        params |= {"afterSeq": after} if after is not None else {}
        ask = self._ask(who, "_moorage/session/attach", params, Snapshot)

        async def act() -> None:
            asked: Asked = await ask()
            asked.seat.attaches[asked.reply.id] = params

        self._do(act, ticks)

    @rule(who=ANY, which=ANY, ticks=TICKS)
    def detach(self, who: int, which: int, ticks: int | None) -> None:
        params = {"sessionId": self._session(which)}
        ask = self._ask(who, "_moorage/session/detach", params, Empty)

        async def act() -> None:
            asked: Asked = await ask()
            asked.seat.detaches[asked.reply.id] = params["sessionId"]

        self._do(act, ticks)

    @rule(who=ANY, option=st.sampled_from(["allow", "always", "reject", "nonsense", None]))
    def answer(self, who: int, option: str | None) -> None:
        asked = [seat for seat in self.present if seat.client.questions] or self.present
        client = asked[who % len(asked)].client

        async def act() -> None:
            for question in client.questions[-2:]:
                if option is None:
                    client.dismiss(question)
                else:
                    client.choose(question, option)

        self._do(act, None)

    # ---- rules: agents, time, disk

    @rule(
        which=ANY,
        does=st.sampled_from(ACTS),
        ticks=TICKS,
    )
    def agent(self, which: int, does: str, ticks: int | None) -> None:
        async def act() -> None:
            going = [p for p in self.daemon.puppet.performances if not p.is_over]
            if going:
                _perform(going[which % len(going)], does)

        self._do(act, ticks)

    @rule(seconds=st.sampled_from([0.3, 1.0, GRACE + 0.1, 25.0]))
    def let_time_pass(self, seconds: float) -> None:
        async def act() -> None:
            self.stepper.clock.jump(seconds)

        self._do(act, None)

    @rule(ticks=TICKS)
    def hold_or_release_the_disk(self, ticks: int | None) -> None:
        async def act() -> None:
            if self.held:
                self.daemon.store.release()
            else:
                self.daemon.store.hold()
            self.held = not self.held

        self._do(act, ticks)

    # ---- what holds all the while

    @invariant()
    def every_view_is_a_range_of_what_is_stored(self) -> None:
        if not hasattr(self, "seats"):
            return
        for seat in self.seats:
            seat.follow()
        logs = self.stepper.do(self._logs)
        for seat in self.seats:
            for session, view in seat.views.items():
                assert (view.at or 0) <= len(logs[session]), "told before it was durable"
        for session, log in logs.items():
            check_log(session, log)

    @invariant()
    def nothing_is_kept_for_unknown_ids(self) -> None:
        if not hasattr(self, "ids"):
            return
        live, parked = self.daemon.sessions.live, self.daemon.sessions.parked
        assert {*live, *parked} <= {*self.ids}
        assert not {*live} & {*parked}
        for session in live.values():
            assert len(session.log.cursors) <= len(self.daemon.app.connections)

    async def _logs(self) -> dict[str, list[Entry]]:
        return {session: await self.daemon.log(session) for session in self.ids}

    # ---- and at the end

    def teardown(self) -> None:
        if not hasattr(self, "stepper"):
            return
        try:
            self.stepper.do(self._come_to_rest)
            self.stepper.do(self._check_everything)
        finally:
            self.daemon.puppet.let_go()
            self.stepper.close()

    async def _come_to_rest(self) -> None:
        """Agents that listen finish, all others are cancelled and have had their grace."""
        self.daemon.store.release()
        await wait_all_tasks_blocked()
        for performance in self.daemon.puppet.performances:
            _perform(performance, "finish")
        await wait_all_tasks_blocked()
        for session in self.ids:
            params: Json = {"sessionId": session, "_meta": {"moorage": {"scope": "all"}}}
            self.present[0].client.notify("session/cancel", params)
        await wait_all_tasks_blocked()
        self.stepper.clock.jump(GRACE + 1)
        await wait_all_tasks_blocked()

    async def _check_everything(self) -> None:
        logs = await self._logs()
        stored = {found.head.id for found in await self.daemon.store.list()}
        assert stored == {*self.ids}
        for session, log in logs.items():
            check_log(session, log)
            check_all_ended(session, log)
        for seat in self.present:
            seat.follow()
        for asked in self.asked:
            if not asked.seat.left:
                assert asked.reply.arrived.is_set(), f"no answer to {asked.reply}"
                self._check_answer(asked, logs.get(asked.session, []))
        self._check_nothing_is_left()

    def _check_answer(self, asked: Asked, log: list[Entry]) -> None:
        verdicts = verdicts_of(log)
        try:
            value = asked.reply.value
        except StorageError:
            raise AssertionError("the disk never failed") from None
        except RpcError:
            return
        if isinstance(asked.reply, PromptReply):
            told = value.meta.moorage
            verdict = verdicts[told.generation]
            assert (told.outcome, told.cause, told.cancel_lost) == (
                verdict.outcome,
                verdict.cause,
                verdict.cancel_lost,
            )
        elif isinstance(value, CancelResult):
            self._check_cancel(asked, value, verdicts)
        elif isinstance(value, KillResult):
            for generation in value.turns:
                verdict = verdicts[generation]
                causes = [verdict.cause, *(also.cause for also in verdict.also_requested)]
                assert Cause.ADMIN_KILL in causes or verdict.cancel_lost

    def _check_cancel(
        self, asked: Asked, value: CancelResult, verdicts: dict[int, VerdictBody]
    ) -> None:
        """Who was told that a turn was stopped finds its request in the verdict."""
        if value.generation is None:
            return
        verdict = verdicts[value.generation]
        by = asked.seat.client.tui
        if value.outcome is CancelOutcome.FIRED and verdict.outcome is Outcome.CANCELLED:
            assert (verdict.cause, verdict.by) == (Cause.CLIENT_RPC, by), "the first cause wins"
        if value.outcome is CancelOutcome.ALREADY:
            assert by in {also.by for also in verdict.also_requested}
        if value.outcome is CancelOutcome.FIRED and verdict.outcome is not Outcome.CANCELLED:
            assert verdict.cancel_lost or verdict.outcome is Outcome.FAILED

    def _check_nothing_is_left(self) -> None:
        around = self.daemon.sessions.around
        assert not around.sessions.child_tasks, "no conductor outlives its turns"
        digging = [p for p in self.daemon.puppet.performances if not p.is_over]
        assert len(around.agents.child_tasks) == len(digging), "only those that ignore their end"
        assert len(self.daemon.app.connections) == len(self.present)
        for session in self.daemon.sessions.live.values():
            assert not session.is_busy
            assert not session.asks.open
            assert not session.log.told.asks


def _perform(performance: Performance, does: str) -> None:
    try:
        match does:
            case "say":
                performance.begin(saying("word "))
            case "finish":
                performance.finish()
            case "fail":
                performance.fail(AgentFailed("agent_failed", "as told"))
            case "ask":
                performance.begin(lambda stage: stage.ask("may I?"))
            case "tool":
                performance.begin(Lever(asks=True).call())
            case "run":
                performance.begin(Lever().call())
            case "hold":
                performance.begin(Lever(holds=True).call())
            case "dig in":
                performance.dig_in()
            case "shrug":
                performance.shrug()
            case "let go":
                performance.released.set()
            case _:
                pass
    except (Cut, trio.WouldBlock):
        note("that agent is not listening any more")


# ---- what holds of every log


def check_log(session: str, log: list[Entry]) -> None:
    """Numbers without gaps, one turn at a time, one verdict a turn, a cause iff cancelled."""
    assert [entry.seq for entry in log] == list(range(1, len(log) + 1))
    admitted: list[int] = []
    running: int | None = None
    ended: set[int] = set()
    killed = paused = False
    for entry in log:
        generation = entry.generation
        if entry.kind == Kind.PROMPT:
            assert generation is not None
            assert not killed, "no turn is admitted after a kill"
            admitted.append(generation)
        elif entry.kind == Kind.BEGIN:
            assert running is None, f"two turns run in {session}"
            assert not killed, "no turn begins after a kill"
            assert not paused, "no turn begins in a paused session"
            assert generation in admitted
            running = generation
        elif entry.kind == Kind.VERDICT:
            assert generation is not None
            assert generation not in ended, f"two verdicts on turn {generation}"
            ended.add(generation)
            running = None if running == generation else running
        elif entry.kind == Kind.STATE:
            killed = killed or b'"killed"' in entry.body
            paused = b'"paused"' in entry.body
        elif entry.kind in (Kind.ASK, Kind.INTENT):
            assert generation == running, "what belongs to a turn stands within it"
            assert not killed, "nothing starts after a kill"
    assert admitted == list(range(1, len(admitted) + 1))
    for verdict in verdicts_of(log).values():
        assert (verdict.cause is not None) == (verdict.outcome is Outcome.CANCELLED)


def check_all_ended(session: str, log: list[Entry]) -> None:
    """Every admitted turn has its verdict, every question and every intent its end."""
    admitted = [entry.generation for entry in log if entry.kind == Kind.PROMPT]
    assert sorted(verdicts_of(log)) == admitted, f"turns of {session} without a verdict"
    for opening, ending in ((Kind.ASK, Kind.ANSWER), (Kind.INTENT, Kind.RESULT)):
        assert _calls(log, opening) <= _calls(log, ending)


def verdicts_of(log: list[Entry]) -> dict[int, VerdictBody]:
    return {
        entry.generation or 0: msgspec.json.decode(entry.body, type=VerdictBody)
        for entry in log
        if entry.kind == Kind.VERDICT
    }


def _calls(log: list[Entry], kind: Kind) -> set[str]:
    bodies: list[Json] = [msgspec.json.decode(entry.body) for entry in log if entry.kind == kind]
    return {body["toolCallId"] for body in bodies}
