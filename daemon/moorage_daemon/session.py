"""A live session: its turns, its questions, its log, its head.

All decisions are made here and at once: admission, cancel, kill and configure are plain functions
on live objects, so two of them never interleave. What they decided is written to the log, and
told when it is durable.
"""

import logging
from collections import deque
from dataclasses import dataclass, field
from typing import assert_never

import msgspec
import trio
from msgspec import UNSET

from moorage_daemon.admission import Admission, Known, OtherPrompt, remembered, remembering
from moorage_daemon.agents.port import Agent
from moorage_daemon.ending import Ending
from moorage_daemon.grants.refusals import Refused
from moorage_daemon.log.log import Log
from moorage_daemon.record import Record
from moorage_daemon.store.model import (
    BeginBody,
    Head,
    Kind,
    Life,
    PromptBody,
    VerdictBody,
)
from moorage_daemon.store.port import Store
from moorage_daemon.surroundings import Surroundings
from moorage_daemon.tools.port import Killable
from moorage_daemon.turn.asks import Asks
from moorage_daemon.turn.ground import Ground, Trouble
from moorage_daemon.turn.history import History
from moorage_daemon.turn.stage import TurnStage
from moorage_daemon.turn.standing import StandingAnswers
from moorage_daemon.turn.turn import Turn
from moorage_daemon.turn.verdict import NOBODY, Abandoned, Raised, judge
from moorage_daemon.turn.words import unused_servers, user_chunks
from moorage_protocol.acp import (
    McpServer,
)
from moorage_protocol.config import Confirmation
from moorage_protocol.errors import (
    Busy,
    QueueFull,
    SessionState,
    StorageError,
)
from moorage_protocol.jsonrpc import encode
from moorage_protocol.moorage import (
    CancelOutcome,
    Cause,
    DetachReason,
    OnBusy,
    State,
    ToolCallCounts,
)


logger = logging.getLogger(__name__)


class Killed(msgspec.Struct, frozen=True):
    """What a kill hit."""

    turns: list[Turn]
    processes: int


@dataclass(eq=False)
class Session:
    """A session in memory. At most one turn runs, the others wait in `queue` in their order."""

    record: Record
    around: Surroundings
    asks: Asks = field(default_factory=Asks)
    turn: Turn | None = None
    queue: deque[Turn] = field(default_factory=deque[Turn])
    stage: TurnStage | None = None
    last_active: float = field(default_factory=trio.current_time)
    history: History = field(init=False)
    standing: StandingAnswers = field(init=False)
    ground: Ground = field(init=False)
    ending: Ending | None = None  # the record of a kill
    servers: tuple[McpServer, ...] = ()  # as named by a client; they may hold keys
    owes_word_of_servers: bool = False
    is_leaving: bool = False  # the store removes it: nothing is written any more
    is_doomed: bool = False  # being removed: it is not put away, nobody is to find it again

    def __post_init__(self) -> None:
        self.history = History(self.around.store, self.head.id)
        self.standing = StandingAnswers(self.around.store, self.head.id)
        self.ground = Ground(self.around.law, self)
        self.log.when_in_trouble(self._in_trouble)
        if not self.record.is_killed:
            self.ground.stand()

    # ---- what others ask

    @property
    def id(self) -> str:
        """The session's id."""
        return self.record.head.id

    @property
    def head(self) -> Head:
        """How it is now."""
        return self.record.head

    @property
    def log(self) -> Log:
        """Where all of it is written."""
        return self.record.log

    @property
    def ends(self) -> DetachReason | None:
        """Why no turn is to begin any more, if none is."""
        return self.record.ends

    @property
    def may_start(self) -> bool:
        """Whether anything may still be started for this session."""
        return not self.record.is_killed and not self.log.failed

    @property
    def is_paused(self) -> bool:
        """Whether no turn is to start for now; one that runs goes on to its end."""
        return self.head.life is Life.PAUSED

    @property
    def confirmation(self) -> Confirmation:
        """How a person is asked: as the session says, or as the settings do."""
        usual = Confirmation(timeout_seconds=self.around.rules.ask_limit or None)
        return self.head.config.confirmation or usual

    @property
    def blobs(self) -> Store:
        """Where what is too long for the log is kept."""
        return self.around.store

    @property
    def is_busy(self) -> bool:
        """Whether a turn runs, waits, or has no durable verdict yet."""
        return self.turn is not None or bool(self.queue)

    @property
    def state(self) -> State:
        """The state as it is told."""
        return State.STORAGE_FAILED if self.log.failed else self.log.told.state

    def supervisors(self) -> set[int]:
        """The pids under which this session's tools run."""
        running = self.stage.running if self.stage else set[Killable]()
        return {process.pid for process in running if process.pid is not None}

    # ---- admission

    def admit(self, admission: Admission) -> Turn | Known:
        """Make a prompt a turn, at once.

        Raises `NotFound`, `SessionState`, `StorageError`, `GrantRefused`, `Busy`, `QueueFull`,
        `InvalidParams`; then nothing has changed. A prompt id that is known gives the turn it
        named, and that one is not run again.
        """
        known = self._known(admission)
        if isinstance(known, Turn) and known.origin == admission.origin:
            known.client = admission.client  # it has come back, on a new connection
        if known is not None:
            return known
        self.record.must_be_writable()
        if self.log.writes.low:
            raise StorageError
        self._must_have_ground()
        if self.is_busy or self.is_paused:
            self._make_way(admission)
        turn = self._new_turn(admission)
        self._write_admission(turn, admission)
        if self._has_to_wait:
            self.queue.append(turn)
        else:
            self._set_going(turn)
        return turn

    @property
    def _has_to_wait(self) -> bool:
        return self.turn is not None or self.is_paused

    def _must_have_ground(self) -> None:
        try:
            self.ground.must_take_prompts()
        except Refused as refusal:
            self.around.law.ledger.tell(refusal)
            raise refusal.told from None

    def _known(self, admission: Admission) -> Turn | Known | None:
        if self.record.is_killed:
            return None
        ref = remembered(self.head, admission)
        if ref is None:
            return None
        turn = self.find(ref.generation)
        if turn is not None and turn.prompt.secrets != admission.prompt.secrets:
            raise OtherPrompt
        return turn or Known(ref.generation, ref.seq)

    def _make_way(self, admission: Admission) -> None:
        match admission.on_busy:
            case OnBusy.REFUSE:
                raise SessionState("The session is paused") if self.is_paused else Busy
            case OnBusy.SUPERSEDE:
                self.stop_all(Cause.SUPERSEDED, admission.by)
            case OnBusy.QUEUE:
                if len(self.queue) >= self.around.rules.prompt_queue:
                    raise QueueFull
            case _:
                assert_never(admission.on_busy)

    def _new_turn(self, admission: Admission) -> Turn:
        generation = self.head.generation + 1
        limits = [limit for limit in (admission.limit, self.around.rules.turn_limit) if limit]
        self.record.change(
            generation=generation,
            open_turns=(*self.head.open_turns, generation),
            prompts=remembering(self.head, admission, generation, self.log.seq + 1),
            title=self.head.title or admission.title,
        )
        return Turn(
            generation=generation,
            prompt=admission.prompt,
            by=admission.by,
            origin=admission.origin,
            client=admission.client,
            queued_at=self.log.writes.now(),
            admitted_at=self.log.seq + 1,
            limit=min(limits, default=0.0),
            prompt_id=admission.prompt_id,
        )

    def _write_admission(self, turn: Turn, admission: Admission) -> None:
        waits = self._has_to_wait
        body = PromptBody(
            by=turn.by,
            position=len(self.queue) + 1 if waits else 0,
            text=admission.excerpt,
            prompt_id=turn.prompt_id,
            content=admission.shown.content if waits else None,
            paused=self.is_paused,
            meta=admission.shown.meta or UNSET,
        )
        self.log.append(Kind.PROMPT, body, generation=turn.generation)
        turn.content = admission.shown.content

    def offer(self, servers: tuple[McpServer, ...]) -> None:
        """Keep the MCP servers that a client names, unless it knows some since it is in memory."""
        if servers and not self.servers:
            self.servers = servers
            self.owes_word_of_servers = True

    def _tell_of_servers(self, generation: int) -> None:
        """Say for once that they are not connected: no agent calls tools of theirs."""
        if self.owes_word_of_servers:
            self.owes_word_of_servers = False
            call = unused_servers(self.servers, self.head.agent, generation)
            self.log.append(Kind.TOOL, encode(call), generation=generation)

    def _set_going(self, turn: Turn) -> None:
        """Start a turn where none runs, and one behind the other from then on."""
        self._start(turn)
        self.around.sessions.start_soon(self._conduct)

    def _start(self, turn: Turn) -> None:
        """The turn is the running one from here on; its agent starts when this is durable."""
        self.turn = turn
        turn.started_at = self.log.writes.now()
        turn.overrides, turn.config = self.head.overrides, self.head.config
        generation = turn.generation
        for chunk in user_chunks(turn.content, generation):
            self.log.append(Kind.MESSAGE, chunk, generation=generation, origin=turn.origin)
        turn.content = []
        self._tell_of_servers(generation)
        turn.ready_at = self.log.append(
            Kind.BEGIN, BeginBody(turn.overrides), generation=generation
        )
        self.stage = TurnStage(turn, self)
        self.stage.look()

    # ---- conducting

    async def _conduct(self) -> None:
        """Bring turn after turn to its verdict, until none is to run; one such task at a time."""
        agent = self.around.agent_named(self.head.agent)
        while self.turn is not None and self.stage is not None:
            turn = self.turn
            self._conclude(turn, await self._verdict_on(turn, self.stage, agent))
            try:
                await self.log.until(turn.verdict_seq, patient=True)
            except StorageError:
                logger.exception("a verdict cannot be written", extra={"session": self.id})
            self._next()

    async def _verdict_on(self, turn: Turn, stage: TurnStage, agent: Agent) -> VerdictBody:
        """The verdict, whatever happens: a turn that nobody can judge has failed."""
        try:
            return await self.around.conductor.conduct(turn, stage, agent, self.log)
        except Exception:  # the turn → verdict boundary
            logger.exception("a turn could not be conducted", extra={"session": self.id})
            turn.end(Raised("internal"))
            stage.shut()
            return judge(Raised("internal"), turn.request, turn.tool_calls)

    def _next(self) -> None:
        turn, self.turn, self.stage = self.turn, None, None
        self.last_active = trio.current_time()
        if turn is not None:
            turn.settled.set()
        if self.log.writes.full:
            self._fail_waiting()
        if self.queue and self.may_start and self.ends is None and not self.is_paused:
            self._start(self.queue.popleft())

    def _conclude(self, turn: Turn, verdict: VerdictBody) -> None:
        """Write the one verdict of a turn."""
        self.record.change(
            open_turns=tuple(g for g in self.head.open_turns if g != turn.generation)
        )
        if turn.generation == 1 and self.may_start:  # the first exchange gave it its title
            self.log.append(Kind.UPDATE, encode(self.record.info), generation=1)
        seq = self.log.append(Kind.VERDICT, verdict, generation=turn.generation)
        self.ground.note_refusals()
        turn.conclude(verdict, seq)
        is_last = not self.queue and self.turn in (None, turn)
        if self.ends is not None and is_last:
            self.log.end_readers(seq)

    def _conclude_queued(self, turn: Turn) -> None:
        """A turn that never began goes straight to its verdict."""
        self._conclude(turn, judge(Abandoned(forced=False), turn.request, ToolCallCounts()))
        self.log.when_durable(turn.verdict_seq, turn.is_settled, patient=True)

    def _in_trouble(self) -> None:
        """What waits will not be durable in time, or never will: nobody is to wait for it."""
        turn = self.turn
        if self.log.failed and turn is not None:
            turn.fail("storage", "nothing of it can be recorded")
        self._fail_waiting()

    def _fail_waiting(self) -> None:
        while self.queue:
            turn = self.queue.popleft()
            self._conclude(turn, judge(Raised("storage"), NOBODY, turn.tool_calls))
            self.log.when_durable(turn.verdict_seq, turn.is_settled, patient=True)

    # ---- cancelling

    def find(self, generation: int) -> Turn | None:
        """The running or waiting turn of that number."""
        return next((t for t in self.turns if t.generation == generation), None)

    @property
    def turns(self) -> list[Turn]:
        """The running one and those that wait, in their order."""
        return [*([self.turn] if self.turn else []), *self.queue]

    def stop(self, turn: Turn, cause: Cause, by: str, axis: str | None = None) -> CancelOutcome:
        """Ask one turn to stop; a waiting one has its verdict when this returns.

        What the running one delegated to stops with it; a stopping daemon stops all by itself.
        """
        outcome = turn.request_cancel(cause, by, self.log.writes.now(), axis)
        is_running = turn is self.turn and outcome is CancelOutcome.FIRED
        if is_running and cause is not Cause.SHUTDOWN:
            self.ground.stop_below()
        if turn in self.queue:
            self.queue.remove(turn)
            self._conclude_queued(turn)
        return outcome

    def halt(self, turn: Turn, trouble: Trouble) -> None:
        """Have a turn stop that cannot go on."""
        self.stop(turn, trouble.cause, "daemon", trouble.axis)

    def lose_ground(self, cause: Cause) -> None:
        """What the session stands on has ended, or what that came from has stopped."""
        for turn in reversed(self.turns):
            if turn.cause is None:
                self.stop(turn, cause, "daemon")

    def stop_all(self, cause: Cause, by: str) -> None:
        """Ask every turn to stop, the last one first, so that none of them gets to run."""
        for turn in reversed(self.turns):
            self.stop(turn, cause, by)

    # ---- pausing

    def pause(self, by: str) -> int:
        """Let no turn start from here on; gives the entry behind which that is known.

        A session that is paused already is as it is to be. Raises as `admit` does where nothing
        can be written.
        """
        self.record.must_be_writable()
        return self.log.seq if self.is_paused else self._live_on(Life.PAUSED, by)

    def resume(self, by: str) -> int:
        """Let turns start again, the first that waits at once; the rest is as for `pause`."""
        self.record.must_be_writable()
        if not self.is_paused:
            return self.log.seq
        seq = self._live_on(Life.ACTIVE, by)
        if self.queue and self.turn is None:
            self._set_going(self.queue.popleft())
        return seq

    def _live_on(self, life: Life, by: str) -> int:
        seq = self.record.live_on(life, by)
        self.ground.pause(paused=self.is_paused)
        return seq

    # ---- ending

    def kill(self, by: str, reason: str | None) -> Killed:
        """End the session for ever, in memory first and in this tick.

        No turn, tool, question or output of it is accepted from here on, and what runs for it is
        killed. The record follows: it is durable when the state entry and the verdicts are.
        """
        if self.record.is_killed:
            return Killed([], 0)
        last = self.record.live_on(Life.KILLED, by, reason)
        self.record.ends = DetachReason.KILLED
        hit = [turn for turn in self.turns if turn.verdict is None]
        self.stop_all(Cause.ADMIN_KILL, by)
        processes = self.stage.processes if self.stage else 0
        if self.stage is not None:
            self.stage.shut()
        self.ground.end(Cause.ADMIN_KILL, by)
        if self.turn is None or self.turn.verdict is not None:
            self.log.end_readers(max(last, self.log.seq))
        return Killed(hit, processes)

    def end(self, by: str, reason: DetachReason, cause: Cause) -> None:
        """Stop all turns and let no other start, in this tick; see `ended` for the rest of it."""
        self.record.ends = self.ends or reason
        self.stop_all(cause, by)

    async def ended(self) -> None:
        """Wait until all verdicts are durable, and detach everybody; the session stays."""
        while self.turn is not None:
            await self.turn.settled.wait()
        self.log.end_readers(self.log.seq)
        await self.log.until(self.log.seq, patient=True)

    def touch(self) -> None:
        """Somebody used the session just now."""
        self.last_active = trio.current_time()
