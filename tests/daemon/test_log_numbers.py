"""Any order of writing and committing gives numbers without gaps, and loses no text."""

from dataclasses import dataclass, field

import msgspec
from hypothesis import given, settings, strategies as st

from moorage_daemon.log.log import Log, Urgency
from moorage_daemon.store.model import Entry, Kind, Life, StateBody
from moorage_daemon.store.port import Change, Page, Stored
from tests.daemon.store.samples import a_head


STATE = StateBody(Life.ACTIVE, "tui")


class Sink:
    """Takes what a log submits, and never commits."""

    full = False
    low = False
    exhausted = False

    def submit(self, log: Log, size: int, urgency: Urgency) -> None: ...

    def has_room(self) -> bool:
        return True

    async def progress(self) -> None: ...

    async def read(self, session: str, after: int, max_bytes: int) -> Page:
        return Page([])

    def now(self) -> float:
        return 0.0


@dataclass
class Model:
    """What a log was given, and what it committed."""

    log: Log = field(default_factory=lambda: Log(Stored(a_head("s"), 0), Sink()))
    given: dict[tuple[str, int, str], str] = field(default_factory=dict[tuple[str, int, str], str])
    committed: list[Entry] = field(default_factory=list[Entry])
    in_flight: list[Change] = field(default_factory=list[Change])


STEP = st.one_of(
    st.tuples(
        st.just("text"),
        st.sampled_from(["agent_message_chunk", "agent_thought_chunk"]),
        st.sampled_from(["m1", "m2"]),
        st.integers(1, 2),
        st.text(max_size=40) | st.integers(1, 40_000).map(lambda size: "x" * size),
    ),
    st.just(("entry",)),
    st.just(("take",)),
    st.just(("commit",)),
)


@settings(deadline=None, max_examples=200)
@given(st.lists(STEP, max_size=60))
def test_numbers_have_no_gaps_and_no_text_is_lost(steps: list[tuple[object, ...]]) -> None:
    model = Model()
    for step in [*steps, ("commit",), ("take",), ("commit",)]:
        match step:
            case ("text", str(kind), str(message), int(generation), str(text)):
                model.log.append_text(kind, text, message, generation)
                key = (kind, generation, message)
                model.given[key] = model.given.get(key, "") + text
            case ("entry",):
                model.log.append(Kind.STATE, STATE)
            case ("take",) if not model.in_flight:
                model.in_flight.append(model.log.take())
            case ("commit",) if model.in_flight:
                change = model.in_flight.pop()
                model.log.committed(change, 0)
                model.committed += change.entries
            case _:
                pass

    assert [entry.seq for entry in model.committed] == list(range(1, model.log.seq + 1))
    assert model.log.durable == model.log.seq
    said: dict[tuple[str, int, str], str] = {}
    for entry in model.committed:
        if entry.kind == Kind.MESSAGE:
            body = msgspec.json.decode(entry.body)
            key = (body["sessionUpdate"], entry.generation or 0, body["messageId"])
            said[key] = said.get(key, "") + body["content"]["text"]
    assert said == {key: text for key, text in model.given.items() if text or key in said}
