"""The fold: what may be told of a session, made from its durable entries and nothing else.

`Told.apply` is the only code that changes this state. It runs when an entry's commit has
returned, and over stored entries in recovery; snapshots, lists and status read it. What is
decided (admission, cancel, kill) is decided on the live objects, which are ahead of it.
"""

import logging
from dataclasses import dataclass, field

import msgspec

from moorage_daemon.store.model import (
    AnswerBody,
    AskBody,
    Entry,
    Head,
    IntentBody,
    Kind,
    Life,
    OverrideBody,
    PostureBody,
    PromptBody,
    ResultBody,
    StateBody,
    UnreadableBody,
    read_body,
)
from moorage_protocol.moorage import Overrides, Posture, QueuedTurn, RunningTurn, State


logger = logging.getLogger(__name__)


class OpenAsk(msgspec.Struct, frozen=True):
    """A permission question that has no answer yet."""

    seq: int
    generation: int
    body: AskBody


class OpenIntent(msgspec.Struct, frozen=True):
    """A tool that was started and has no result yet."""

    generation: int
    body: IntentBody


@dataclass
class Told:
    """A session as of entry `seq`."""

    seq: int
    life: Life
    overrides: Overrides
    posture: Posture = Posture.ASK
    turn: RunningTurn | None = None
    queue: dict[int, QueuedTurn] = field(default_factory=dict[int, QueuedTurn])
    asks: dict[str, OpenAsk] = field(default_factory=dict[str, OpenAsk])
    intents: dict[str, OpenIntent] = field(default_factory=dict[str, OpenIntent])

    @classmethod
    def at_rest(cls, head: Head, seq: int) -> "Told":
        """A stored session on which no turn is open."""
        return cls(seq, head.life, head.overrides, head.posture)

    @property
    def state(self) -> State:
        """The state as clients see it.

        A paused session is called that while its last turn runs, too: whoever wonders why nothing
        starts finds the turn and its questions beside it, but nothing else would say the reason.
        """
        match self.life:
            case Life.KILLED:
                return State.KILLED
            case Life.PAUSED:
                return State.PAUSED
            case Life.ACTIVE:
                if self.asks:
                    return State.REQUIRES_ACTION
                return State.IDLE if self.turn is None else State.RUNNING

    def apply(self, entry: Entry) -> None:
        """Move on by one entry; one that says nothing to this version only moves `seq`."""
        self.seq = entry.seq
        try:
            self._take_in(entry)
        except UnreadableBody:
            logger.exception("an entry cannot be read: what it changed is not told")

    def _take_in(self, entry: Entry) -> None:
        match entry.kind:
            case Kind.PROMPT:
                self._admit(entry)
            case Kind.BEGIN:
                self.queue.pop(_generation(entry), None)
                self.turn = RunningTurn(generation=_generation(entry), started_at=entry.at)
            case Kind.VERDICT:
                self._end(_generation(entry))
            case Kind.ASK:
                body = read_body(entry, AskBody)
                self.asks[body.tool_call_id] = OpenAsk(entry.seq, _generation(entry), body)
            case Kind.ANSWER:
                self.asks.pop(read_body(entry, AnswerBody).tool_call_id, None)
            case Kind.INTENT:
                intent = read_body(entry, IntentBody)
                self.intents[intent.tool_call_id] = OpenIntent(_generation(entry), intent)
            case Kind.RESULT:
                self.intents.pop(read_body(entry, ResultBody).tool_call_id, None)
            case Kind.OVERRIDE:
                self.overrides = read_body(entry, OverrideBody).overrides
            case Kind.POSTURE:
                self.posture = read_body(entry, PostureBody).posture
            case Kind.STATE:
                self.life = read_body(entry, StateBody).state
            case _:
                pass

    def _admit(self, entry: Entry) -> None:
        body = read_body(entry, PromptBody)
        generation = _generation(entry)
        self.queue[generation] = QueuedTurn(
            generation=generation, position=body.position, prompt_id=body.prompt_id
        )

    def _end(self, generation: int) -> None:
        self.queue.pop(generation, None)
        if self.turn is not None and self.turn.generation == generation:
            self.turn = None
        for open_things in (self.asks, self.intents):
            for key in [k for k, v in open_things.items() if v.generation == generation]:
                del open_things[key]


def _generation(entry: Entry) -> int:
    if entry.generation is None:
        raise UnreadableBody(f"entry {entry.seq}, {entry.kind}: it names no turn")
    return entry.generation
