"""What was said, from the end of the log: as much as is wanted, read as seldom as can be."""

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from moorage_daemon.agents.port import Exchange, Past
from moorage_daemon.log.log import MAX_PIECE
from moorage_daemon.store.memory import MemoryStore
from moorage_daemon.store.model import Entry, Kind
from moorage_daemon.store.port import Change, Page, StoreBroken
from moorage_daemon.turn.history import LEFT_OUT, WINDOW, History
from moorage_protocol.errors import StorageError
from tests.daemon.store.samples import a_head


PLENTY = 1_000_000  # characters


class CountingStore(MemoryStore):
    """Counts the entries it gives away."""

    given = 0
    is_broken = False

    async def entries(self, *args: Any, **wish: Any) -> Page:
        if self.is_broken:
            raise StoreBroken("the medium failed")
        page = await super().entries(*args, **wish)
        self.given += len(page.entries)
        return page


@dataclass
class Log:
    """A session's log in the making."""

    written: list[Entry] = field(default_factory=list[Entry])

    @property
    def seq(self) -> int:
        return len(self.written)

    def add(self, generation: int | None, body: object, kind: Kind = Kind.MESSAGE) -> None:
        entry = Entry(self.seq + 1, 0.0, kind, msgspec.json.encode(body), generation)
        self.written.append(entry)

    def user(self, generation: int, text: str) -> None:
        self.say("user_message_chunk", generation, text, f"{generation}-user")

    def agent(self, generation: int, text: str, message: str = "0-m") -> None:
        self.say("agent_message_chunk", generation, text, f"{generation}-{message}")

    def say(self, update: str, generation: int, text: str, message: str) -> None:
        content = {"type": "text", "text": text}
        body = {"sessionUpdate": update, "content": content, "messageId": message}
        self.add(generation, body)

    def tools(self, generation: int, count: int) -> None:
        for _ in range(count):
            self.add(generation, {"sessionUpdate": "tool_call_update"}, Kind.TOOL)

    async def store(self) -> tuple[CountingStore, str]:
        store, head = CountingStore(), a_head("s1")
        await store.commit([Change(head.id, tuple(self.written), head, create=True)])
        return store, head.id

    async def past(self, generation: int, characters: int = PLENTY, compacted: int = 0) -> Past:
        store, session = await self.store()
        return await History(store, session).before(generation, self.seq, characters, compacted)

    async def before(self, generation: int, characters: int = PLENTY) -> list[Exchange]:
        return [*(await self.past(generation, characters)).exchanges]

    def compact(self, generation: int, upto: int, summary: str | None) -> int:
        self.add(generation, {"upto": upto, "summary": summary}, Kind.COMPACTION)
        return self.seq


def talk(turns: int) -> Log:
    log = Log()
    for generation in range(1, turns + 1):
        log.user(generation, f"question {generation}")
        log.agent(generation, f"answer {generation}")
    return log


def exchange(number: int) -> Exchange:
    return Exchange(f"question {number}", f"answer {number}", number)


async def test_first_turn_has_no_history_and_reads_none() -> None:
    store, session = await talk(1).store()

    assert await History(store, session).before(1, 2, PLENTY) == Past()
    assert store.given == 0


async def test_turns_before_this_one_are_told_in_order() -> None:
    assert await talk(4).before(4) == [exchange(1), exchange(2), exchange(3)]


async def test_what_follows_the_turns_own_beginning_is_not_read() -> None:
    store, session = await talk(5).store()

    past = await History(store, session).before(9, 4, PLENTY)
    assert past == Past([exchange(1), exchange(2)])


async def test_reasoning_tools_and_unknown_things_are_not_said() -> None:
    log = Log()
    log.add(None, {"state": "active", "by": "x"}, Kind.STATE)
    log.user(1, "question 1")
    log.say("agent_thought_chunk", 1, "hm", "1-0-t")
    log.tools(1, 3)
    log.add(1, {"sessionUpdate": "agent_message_chunk", "content": {"type": "hologram"}})
    log.add(1, {"sessionUpdate": "user_feeling", "content": {"type": "text", "text": "x"}})
    log.agent(1, "answer 1")

    assert await log.before(2) == [exchange(1)]


async def test_pieces_of_one_message_are_one_text_and_messages_stand_apart() -> None:
    log = Log()
    log.user(1, "a")
    for text, message in (("one ", "0-m"), ("two", "0-m"), ("three", "1-m")):
        log.agent(1, text, message)

    assert await log.before(2) == [Exchange("a", "one two\n\nthree", 1)]


async def test_blocks_of_a_prompt_are_lines_and_cut_ones_are_whole_again() -> None:
    log = Log()
    for text in ("first", "x" * MAX_PIECE, "y" * 5, "last"):
        log.user(1, text)

    (found,) = await log.before(2)

    assert found.prompt == f"first\n{'x' * MAX_PIECE}yyyyy\nlast"


async def test_prompt_without_an_answer_and_answer_to_nothing_are_kept() -> None:
    log = Log()
    log.user(1, "asked in vain")
    log.agent(2, "said unasked")

    assert await log.before(3) == [
        Exchange("asked in vain", "", 1),
        Exchange("", "said unasked", 2),
    ]


@pytest.mark.parametrize(
    ("characters", "numbers"), [(54, [1, 2, 3]), (53, [2, 3]), (36, [2, 3]), (18, [3])]
)
async def test_newest_that_fit_are_told(characters: int, numbers: list[int]) -> None:
    assert await talk(3).before(4, characters) == [exchange(number) for number in numbers]


@pytest.mark.parametrize("characters", [0, -5])
async def test_no_room_is_no_history(characters: int) -> None:
    assert await talk(3).before(4, characters) == []


async def test_turn_that_is_too_long_alone_is_told_by_its_end() -> None:
    log = Log()
    log.user(1, "q" * 99 + "?")
    log.agent(1, "a" * 39 + "!")

    (found,) = await log.before(2, 50)

    assert found == Exchange(LEFT_OUT + "q" * 21 + "?", LEFT_OUT + "a" * 24 + "!", 1)


async def test_answer_that_is_too_long_alone_is_told_by_its_end() -> None:
    log = Log()
    log.user(1, "question")
    for _ in range(10):
        log.agent(1, "a" * 10)

    assert await log.before(2, 50) == [Exchange(LEFT_OUT, LEFT_OUT + "a" * 50, 1)]


@pytest.mark.parametrize("turns", [WINDOW // 2, WINDOW // 2 + 1, WINDOW, 3 * WINDOW + 7])
async def test_windows_meet_without_gap_or_overlap(turns: int) -> None:
    assert await talk(turns).before(turns) == [exchange(n) for n in range(1, turns)]


async def test_only_so_much_of_a_long_log_is_read() -> None:
    log = talk(2000)
    store, session = await log.store()

    found = await History(store, session).before(2001, log.seq, 100)

    assert found == Past([exchange(n) for n in range(1997, 2001)], is_whole=False)
    assert store.given <= 2 * WINDOW


async def test_what_was_said_before_much_work_is_found() -> None:
    log = talk(2)
    log.user(3, "question 3")
    log.tools(3, 20 * WINDOW)
    log.agent(3, "answer 3")

    assert await log.before(4) == [exchange(1), exchange(2), exchange(3)]


async def test_memory_is_bounded_by_what_is_wanted() -> None:
    log = Log()
    for generation in range(1, WINDOW):
        log.user(generation, "x" * 10_000)
    store, session = await log.store()

    found = await History(store, session).before(WINDOW, log.seq, 20_000)

    assert [len(e.prompt) for e in found.exchanges] == [10_000, 10_000]


async def test_store_that_fails_fails_the_turn_as_storage() -> None:
    log = talk(2)
    store, session = await log.store()
    store.is_broken = True

    with pytest.raises(StorageError):
        await History(store, session).before(3, log.seq, PLENTY)


# ---- where a summary stands for the first turns


async def test_summary_is_told_instead_of_its_turns_and_before_the_others() -> None:
    log = talk(3)
    compacted = log.compact(4, 2, "so far")
    log.user(4, "question 4")

    past = await log.past(5, compacted=compacted)

    assert past == Past([exchange(3), Exchange("question 4", "", 4)], "so far", 2)


async def test_summary_counts_for_what_fits_and_is_never_left_out_for_turns() -> None:
    log = talk(4)
    compacted = log.compact(5, 2, "x" * 30)

    assert await log.past(5, 30 + 18, compacted) == Past([exchange(4)], "x" * 30, 2, is_whole=False)
    assert await log.past(5, 30, compacted) == Past((), "x" * 30, 2, is_whole=False)
    short = await log.past(5, 20, compacted)
    assert short == Past((), LEFT_OUT + "x" * 20, 2, is_whole=False)


@pytest.mark.parametrize("gone", ["trimmed", "of a newer version"])
async def test_without_its_summary_the_turns_are_told_that_are_left(gone: str) -> None:
    log = talk(2)
    compacted = log.compact(3, 1, "so far")
    if gone != "trimmed":
        log.written[-1] = msgspec.structs.replace(log.written[-1], body=b'{"upto":{}}')
    else:
        log.written[-1] = msgspec.structs.replace(log.written[-1], kind="other")

    assert await log.past(3, compacted=compacted) == Past([exchange(1), exchange(2)])


@pytest.mark.parametrize(
    ("upto", "is_cut"), [(0, True), (1, True), (2, False), (3, False)], ids=lambda v: str(v)
)
async def test_turns_that_are_gone_and_that_nothing_stands_for_are_told_of(
    upto: int, is_cut: bool
) -> None:
    log = Log()
    for turn in range(1, 6):
        log.add(turn, {"by": "x", "position": 0, "text": ""}, Kind.PROMPT)
        log.user(turn, f"question {turn}")
    compacted = log.compact(5, upto, "so far") if upto else 0
    store, session = await log.store()
    await store.trim(session, 5)

    past = await History(store, session).before(6, log.seq, PLENTY, compacted)

    left = [Exchange(f"question {turn}", "", turn) for turn in range(max(3, upto + 1), 6)]
    assert past == Past(left, "so far" if upto else "", upto, is_cut=is_cut)


async def test_a_first_turn_that_said_nothing_is_not_gone() -> None:
    log = Log()
    for turn in range(1, 4):
        log.add(turn, {"by": "x", "position": 0, "text": ""}, Kind.PROMPT)
    log.user(3, "question 3")

    assert await log.past(4) == Past([Exchange("question 3", "", 3)])


async def test_turns_that_a_summary_stands_for_are_not_read() -> None:
    log = talk(4000)
    log.tools(4000, 3)
    compacted = log.compact(4001, 3999, "so far")
    store, session = await log.store()

    past = await History(store, session).before(4001, log.seq, PLENTY, compacted)

    assert past == Past([exchange(4000)], "so far", 3999)
    assert store.given <= WINDOW + 1
