"""Before the context is full, a summary stands for the first turns in what the model is told."""

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings, strategies as st

from moorage_daemon.agents.asking import wish_of
from moorage_daemon.agents.compaction import GONE, HEADING, KEPT, NOTHING, PAUSE, TOO_LONG
from moorage_daemon.agents.native import NativeAgent
from moorage_daemon.provider_settings import Price
from moorage_daemon.providers.failures import Unavailable
from moorage_daemon.providers.port import Ending, Finished, Request, Said, Usage
from moorage_daemon.retention import Retention
from moorage_daemon.store.memory import MemoryStore
from moorage_daemon.store.model import Kind
from moorage_protocol.moorage import Cause, Outcome, TokenUsage
from moorage_protocol.upkeep import StoreGcResult
from moorage_protocol.views import UsageResult
from tests.daemon.agents.test_native import open_scene
from tests.daemon.harness import Daemon, open_daemon, simulated
from tests.daemon.providers.memory import SETTINGS, Act, MemoryProvider
from tests.daemon.store.faulty import FaultyStore
from tests.daemon.transfer.files import changed, exported, imported
from tests.daemon.twin import Client, Json, prompt_params


simulated_clock = pytest.mark.trio(run=simulated)

WINDOW = 1000  # tokens: 2,000 characters are asked at most
COMPACTING = {"autoCompact": True, "maxContextLength": WINDOW}


@dataclass(eq=False)
class Talker(MemoryProvider):
    """Answers each prompt, and gives the summaries that are asked for, unless it is told not to.

    The next answer says that so many tokens were `used`.
    """

    settings: Any = SETTINGS
    used: int = 100
    summary: Sequence[Act] | None = None
    tries: int = 0
    answers: int = 0
    conversations: list[list[tuple[str, str]]] = field(default_factory=list[list[tuple[str, str]]])
    summarised: list[str] = field(default_factory=list[str])

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncGenerator[Any]:
        first, *_, last = request.messages[0], request.messages[-1]
        if first.text.startswith("Summarise the conversation"):
            self.tries += 1
            self.summarised.append(last.text)
            usual: Sequence[Act] = [
                Said(f"Summary {self.tries}."),
                Finished(Ending.DONE, Usage(70, 7)),
            ]
            self.plays(usual if self.summary is None else self.summary)
        else:
            self.answers += 1
            self.conversations.append([(m.role.value, m.text) for m in request.messages])
            answer = f"answer {self.answers}"
            self.plays([Said(answer), Finished(Ending.DONE, Usage(self.used, 0))])
        async with super().stream(request) as pieces:
            yield pieces


async def turns(client: Client, session: str, *prompts: str) -> None:
    for prompt in prompts:
        await client.prompt(session, prompt).result()


async def compactions(client: Client, session: str) -> list[Json]:
    wanted = ("upto", "summary", "code")
    found = await client.entries(session, kinds=["compaction"])
    return [{key: entry[key] for key in wanted if key in entry} for entry in found]


def numbered(first: int, last: int) -> list[str]:
    return [f"question {number}" for number in range(first, last + 1)]


def told(first: int, last: int) -> list[tuple[str, str]]:
    """Those questions with their answers, as a model is told them."""
    pairs = [
        (("user", f"question {n}"), ("assistant", f"answer {n}")) for n in range(first, last + 1)
    ]
    return [message for pair in pairs for message in pair]


# ---- when


@simulated_clock
async def test_first_turns_are_summarised_once_the_context_is_as_full_as_is_said() -> None:
    talker = Talker()
    async with open_scene(one=talker) as scene:
        session = await scene.client.new(config=COMPACTING)
        await turns(scene.client, session, *numbered(1, 12))
        assert talker.tries == 0
        talker.used = 799
        await turns(scene.client, session, "question 13", "question 14")
        assert talker.tries == 0
        talker.used = 800
        await turns(scene.client, session, "question 15")
        talker.used = 100

        await turns(scene.client, session, "question 16", "question 17")

        assert await compactions(scene.client, session) == [{"upto": 5, "summary": "Summary 1."}]
        summary = ("user", f"{HEADING}\nSummary 1.\n\nquestion 6")
        assert talker.conversations[-1] == [summary, *told(6, 16)[1:], ("user", "question 17")]
        assert talker.summarised[0].startswith("User:\nquestion 1\n\nAssistant:\nanswer 1\n\n")
        assert "question 6" not in talker.summarised[0]


@simulated_clock
@pytest.mark.parametrize(
    "config",
    [
        {"maxContextLength": WINDOW},
        {"maxContextLength": WINDOW, "autoCompact": False},
        {**COMPACTING, "autoCompactThreshold": 0.96},
    ],
)
async def test_nothing_is_summarised_where_nobody_wants_it_or_it_is_early(config: Json) -> None:
    talker = Talker(used=950)
    async with open_scene(one=talker) as scene:
        session = await scene.client.new(config=config)

        await turns(scene.client, session, *numbered(1, 15))

        assert talker.tries == 0
        assert await compactions(scene.client, session) == []


@simulated_clock
async def test_what_would_not_fit_is_summarised_and_not_left_out() -> None:
    """Where words take few tokens, what is told is bounded by its characters."""
    talker = Talker(used=10)
    async with open_scene(one=talker) as scene:
        session = await scene.client.new(config=COMPACTING)
        prompts = [f"{number} " + "x" * 400 for number in range(8)]

        await turns(scene.client, session, *prompts)

        assert talker.tries > 0
        for asked, number in zip(talker.conversations, range(8), strict=True):
            everything = "".join(text for _, text in asked)
            assert len(everything) <= 2 * WINDOW
            [first] = re.findall(r"(\d) x", everything)[:1] or ["0"]
            assert [f"{n} " in everything for n in range(int(first), number + 1)]
            assert first == "0" or everything.startswith(HEADING)


@simulated_clock
async def test_newest_messages_stay_as_they_were_as_far_as_they_fit() -> None:
    talker = Talker(used=900)
    async with open_scene(one=talker) as scene:
        session = await scene.client.new(config=COMPACTING)
        await turns(scene.client, session, "short", "y" * 900)
        await turns(scene.client, session, "next")

        [first] = await compactions(scene.client, session)
        assert first["upto"] == 2, "what is too long for the target does not stay"
        await turns(scene.client, session, *numbered(4, 15))
        tail = talker.conversations[-1]
        assert len(tail) <= KEPT + 3


@simulated_clock
async def test_summary_of_a_summary_says_what_the_first_one_said() -> None:
    talker = Talker(used=900)
    async with open_scene(one=talker) as scene:
        session = await scene.client.new(config=COMPACTING)
        await turns(scene.client, session, *numbered(1, 14))

        found = await compactions(scene.client, session)

        assert [entry["upto"] for entry in found] == [1, 2, 3]
        assert talker.summarised[1] == (
            f"{HEADING}\nSummary 1.\n\nUser:\nquestion 2\n\nAssistant:\nanswer 2"
        )


# ---- what it takes, and who sees it


@simulated_clock
async def test_what_a_summary_took_is_charged_and_says_nothing_of_the_conversation() -> None:
    talker = Talker(replace(SETTINGS, prices={"small": Price(input=2.0, output=10.0)}), used=900)
    async with open_scene(one=talker) as scene:
        grant = {"tools": None, "budget": {"tokens": 10**6}}
        session = await scene.client.new(config=COMPACTING, grant=grant)
        await turns(scene.client, session, *numbered(1, 11))
        talker.used = 50
        await turns(scene.client, session, "question 12")

        params = {"sessionId": session}
        usage = await scene.client.call("_moorage/session/usage", params, UsageResult)
        asides = [row for row in usage.records if row.purpose is not None]
        assert [(r.purpose, r.tokens, r.micros) for r in asides] == [
            ("compaction", TokenUsage(input_tokens=70, output_tokens=7), 70 * 2 + 7 * 10)
        ]
        assert usage.tokens.input_tokens == 11 * 900 + 50 + 70
        updates = [p.get("update", {}) for p in scene.client.of_session(session)]
        shown = [u["used"] for u in updates if u.get("sessionUpdate") == "usage_update"]
        assert shown == [*[900] * 12, 50]
        [holding] = scene.daemon.app.desk.ledger.holdings.values()
        assert holding.account.spend.tokens == 11 * 900 + 50 + 77
        head = scene.session(session).head
        assert head.totals.used == 50


@simulated_clock
async def test_summary_that_a_grant_has_nothing_left_for_is_not_asked_for() -> None:
    talker = Talker(used=900)
    async with open_scene(one=talker) as scene:
        grant = {"tools": None, "budget": {"tokens": 11 * 900 + 77}}
        session = await scene.client.new(config=COMPACTING, grant=grant)
        await turns(scene.client, session, *numbered(1, 11))

        verdict = await scene.client.prompt(session, "question 12").verdict()

        assert (verdict.outcome, verdict.cause) == (Outcome.CANCELLED, Cause.BUDGET)
        assert (talker.answers, talker.tries) == (11, 0)
        assert await compactions(scene.client, session) == []


@simulated_clock
@pytest.mark.parametrize("end", ["cut off", "not counted"])
async def test_summary_of_which_nobody_tells_counts_with_what_was_asked_and_heard(end: str) -> None:
    said = "x" * 400
    script: Sequence[Act] = [Said(said), Finished(Ending.DONE, None)]
    if end == "cut off":
        script = [Said(said), Unavailable("the connection was cut off")]
    talker = Talker(used=900, summary=script)
    async with open_scene(one=talker) as scene:
        grant = {"tools": None, "budget": {"tokens": 10**6}}
        session = await scene.client.new(config=COMPACTING, grant=grant)
        await turns(scene.client, session, *numbered(1, 11))
        talker.used = 50
        await turns(scene.client, session, "question 12")

        [holding] = scene.daemon.app.desk.ledger.holdings.values()
        [asked] = [wish_of(r, SETTINGS).asked for r in talker.requests if is_for_summary(r)]
        assert holding.account.spend.tokens == 11 * 900 + 50 + asked + len(said) // 4


def is_for_summary(request: Request) -> bool:
    return request.messages[0].text.startswith("Summarise the conversation")


@simulated_clock
async def test_clients_of_moorage_see_the_entry_and_plain_ones_nothing() -> None:
    talker = Talker(used=900)
    async with open_scene(one=talker) as scene:
        session = await scene.client.new(config=COMPACTING)
        plain = await scene.daemon.connect(plain=True)
        await plain.load(session)
        await turns(scene.client, session, *numbered(1, 12))
        late = await scene.daemon.connect(plain=True)
        await late.load(session)
        await plain.until(lambda: plain.text(session) == late.text(session))

        seen = [p for p in scene.client.of_session(session) if p.get("kind") == "compaction"]
        assert [p["summary"] for p in seen] == ["Summary 1."]
        for client in (plain, late):
            shown = str(client.of_session(session))
            assert "Summary" not in shown
            assert "compaction" not in shown
            assert "question 1'" in shown
            assert client.kinds(session) == late.kinds(session)


@simulated_clock
async def test_secret_of_a_prompt_is_in_no_summary() -> None:
    said: Sequence[Act] = [Said("The key is sk-0123456789."), Finished(Ending.DONE, Usage(70, 7))]
    talker = Talker(used=900, summary=said)
    async with open_scene(one=talker) as scene:
        session = await scene.client.new(config=COMPACTING)
        await turns(scene.client, session, *numbered(1, 11))
        params = prompt_params(session, "sk-0123456789")
        params["prompt"][0]["_meta"] = {"moorage": {"secret": True}}
        await scene.client.call("session/prompt", params, dict[str, Any])

        [found] = await compactions(scene.client, session)
        assert found["summary"].startswith("The key is ")
        assert not any(b"0123456789" in e.body for e in await scene.daemon.log(session))


# ---- in vain

VAIN: dict[str, tuple[Sequence[Act], str]] = {
    "fails": ([Unavailable("it answered 503", may_pass=True)], "provider_unavailable"),
    "breaks off": ([Said("Half a"), Unavailable("gone")], "provider_unavailable"),
    "says nothing": ([Said(" "), Finished(Ending.DONE, Usage(70, 7))], NOTHING),
    "is cut": ([Said("Half a"), Finished(Ending.TOO_LONG, Usage(70, 7))], NOTHING),
    "refuses": ([Said("No."), Finished(Ending.REFUSED)], NOTHING),
    "talks on": ([Said("x" * 200), Said("x" * 200), Finished(Ending.DONE)], TOO_LONG),
}


@simulated_clock
@pytest.mark.parametrize("how", VAIN)
async def test_without_a_summary_all_is_as_before_and_the_turn_runs(how: str) -> None:
    script, code = VAIN[how]
    talker = Talker(used=900, summary=script)
    async with open_scene(one=talker) as scene:
        session = await scene.client.new(config=COMPACTING)

        await turns(scene.client, session, *numbered(1, 12))

        found = await compactions(scene.client, session)
        assert found == [{"upto": 1, "code": code}]
        assert talker.conversations[-1] == [*told(1, 11), ("user", "question 12")]
        assert scene.session(session).head.compacted == 0
        assert talker.open == 0
        params = {"sessionId": session}
        usage = await scene.client.call("_moorage/session/usage", params, UsageResult)
        paid = [row for row in usage.records if row.purpose == "compaction"]
        counted = [a for a in script if isinstance(a, Finished) and a.usage is not None]
        assert len(paid) == len(counted), "what it took is charged all the same"


@simulated_clock
async def test_after_a_try_in_vain_the_next_one_is_some_turns_later() -> None:
    talker = Talker(used=900, summary=[Unavailable("it answered 503", may_pass=True)])
    async with open_scene(one=talker) as scene:
        session = await scene.client.new(config=COMPACTING)

        await turns(scene.client, session, *numbered(1, 12 + 2 * PAUSE))

        tried = await scene.client.entries(session, kinds=["compaction"])
        assert [entry["generation"] for entry in tried] == [12, 12 + PAUSE, 12 + 2 * PAUSE]
        talker.summary = None
        await turns(scene.client, session, *numbered(13 + 2 * PAUSE, 13 + 3 * PAUSE))
        found = await compactions(scene.client, session)
        assert [bool(entry.get("summary")) for entry in found] == [False] * 3 + [True, True]


@simulated_clock
async def test_after_a_try_in_vain_the_next_one_is_when_the_context_has_grown_by_a_tenth() -> None:
    talker = Talker(used=810, summary=[Unavailable("it answered 503", may_pass=True)])
    async with open_scene(one=talker) as scene:
        session = await scene.client.new(config=COMPACTING)
        await turns(scene.client, session, *numbered(1, 12))
        assert talker.tries == 1
        talker.used = 890
        await turns(scene.client, session, "question 13", "question 14")
        assert talker.tries == 1
        talker.used = 892

        await turns(scene.client, session, "question 15", "question 16")

        assert talker.tries == 2


@simulated_clock
async def test_turn_that_is_cancelled_meanwhile_leaves_all_as_it_was() -> None:
    talker = Talker(used=900, summary=[Said("Half a"), trio.Event()])
    async with open_scene(one=talker) as scene:
        session = await scene.client.new(config=COMPACTING)
        await turns(scene.client, session, *numbered(1, 11))
        reply = scene.client.prompt(session, "question 12")
        await scene.client.until(lambda: talker.tries == 1)
        await trio.testing.wait_all_tasks_blocked()

        await scene.client.cancel(session)

        assert (await reply.verdict()).outcome is Outcome.CANCELLED
        assert await compactions(scene.client, session) == []
        assert talker.open == 0


@simulated_clock
async def test_on_a_full_disk_nobody_is_told_a_summary_that_is_not_kept() -> None:
    talker = Talker(used=900)
    async with open_scene(one=talker) as scene:
        session = await scene.client.new(config=COMPACTING)
        await turns(scene.client, session, *numbered(1, 11))
        event = trio.Event()
        talker.summary = [event, Said("S."), Finished(Ending.DONE, Usage(70, 7))]
        scene.client.prompt(session, "question 12")
        await scene.client.until(lambda: talker.tries == 1)
        scene.daemon.store.hold()
        event.set()
        await trio.testing.wait_all_tasks_blocked()

        assert talker.answers == 11
        scene.daemon.store.release()
        await scene.client.until(lambda: 12 in scene.client.verdicts(session))
        assert talker.answers == 12


# ---- where old turns are removed


@simulated_clock
@pytest.mark.parametrize("is_parked", [False, True])
async def test_summary_outlasts_the_turns_that_retention_removes(is_parked: bool) -> None:
    talker = Talker(used=900)
    async with open_scene(one=talker, retention=Retention(max_entries=40)) as scene:
        session = await scene.client.new(config=COMPACTING)
        await turns(scene.client, session, *numbered(1, 11))
        talker.used = 100
        await turns(scene.client, session, *numbered(12, 20))
        head = scene.session(session).head
        await (scene.client.close if is_parked else scene.client.detach)(session)

        cleaned = await scene.client.call("_moorage/store/gc", {}, StoreGcResult)

        assert cleaned.trimmed_entries > 0
        first = (await scene.daemon.store.entries(session)).entries[0].seq
        assert 0 < head.compacted < first
        await scene.client.load(session)
        assert scene.session(session).head.updated_at == head.updated_at
        await turns(scene.client, session, "question 21")
        [summary, *asked] = talker.conversations[-1]
        assert summary[1].startswith(f"{HEADING}\nSummary 1.")
        assert GONE in summary[1], "the turns after the summary are gone as well"
        assert asked[-1] == ("user", "question 21")
        copy = (await imported(scene.client, await exported(scene.client, session))).session_id
        await turns(scene.client, copy, "question 22")
        assert talker.conversations[-1][0][1].startswith(f"{HEADING}\nSummary 1.")


@simulated_clock
async def test_model_is_told_that_turns_are_gone_where_there_is_no_summary() -> None:
    talker = Talker()
    async with open_scene(one=talker, retention=Retention(max_entries=20)) as scene:
        session = await scene.client.new()
        await turns(scene.client, session, *numbered(1, 12))
        assert not any(GONE in text for asked in talker.conversations for _, text in asked)
        await scene.client.detach(session)
        await scene.client.call("_moorage/store/gc", {}, StoreGcResult)

        await scene.client.load(session)
        await turns(scene.client, session, "question 13")

        assert talker.conversations[-1][0][1].startswith(f"{GONE}\n\nquestion ")
        assert talker.conversations[-1][-1] == ("user", "question 13")


# ---- out of files


@simulated_clock
async def test_file_cannot_hide_turns_to_come_behind_its_summary() -> None:
    talker = Talker(used=900)
    async with open_scene(one=talker) as scene:
        session = await scene.client.new(config=COMPACTING)
        await turns(scene.client, session, *numbered(1, 11))
        await turns(scene.client, session, "question 12")
        file = await exported(scene.client, session)

        for upto in (0, 12, 10**9):

            def forge(lines: list[Json], upto: int = upto) -> None:
                [entry] = [
                    line["entry"]
                    for line in lines
                    if line.get("entry", {}).get("kind") == Kind.COMPACTION
                ]
                entry["body"]["upto"] = upto

            with pytest.raises(Exception, match=r"upto is no turn before"):
                await imported(scene.client, changed(file, forge))


# ---- whatever happens

Step = tuple[str, int]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("turn"), st.integers(0, 900)),
        st.tuples(st.just("turn"), st.integers(850, 900)),
        st.tuples(st.just("vain"), st.integers(850, 900)),
        st.tuples(st.sampled_from(["restart", "park", "move", "trim"]), st.just(0)),
    ),
    max_size=40,
)


@dataclass(eq=False)
class Life:
    """One session through restarts, parks and files; `said` are its turns, by number."""

    stack: AsyncExitStack
    talker: Talker
    session: str = ""
    said: dict[int, tuple[str, str]] = field(default_factory=dict[int, tuple[str, str]])
    first: int = 1
    daemon: Daemon = field(init=False)
    client: Client = field(init=False)

    async def open(self, store: FaultyStore | None = None) -> None:
        agent = NativeAgent({"one": self.talker}, "one")
        self.daemon = await self.stack.enter_async_context(
            open_daemon(
                store,
                agents=(agent,),
                default_agent="native",
                providers={"one": self.talker.settings},
                default_provider="one",
            )
        )
        self.client = await self.daemon.connect()

    async def step(self, what: str, used: int) -> None:
        match what:
            case "turn" | "vain":
                await self.turn(used, in_vain=what == "vain")
            case "restart":
                await self.open(await self.daemon.image())
                await self.client.load(self.session)
            case "park":
                await self.client.close(self.session)
                await self.client.load(self.session)
            case _:
                file = await exported(self.client, self.session)
                if what == "trim":
                    file = changed(file, self.trim)
                await self.open(FaultyStore(MemoryStore()))
                self.session = (await imported(self.client, file)).session_id

    def trim(self, lines: list[Json]) -> None:
        """Take the first turn out of a file, unless it is the only one."""
        begins = [
            (at, line["entry"]["generation"])
            for at, line in enumerate(lines)
            if line.get("entry", {}).get("kind") == "prompt"
        ]
        if len(begins) > 1:
            at, self.first = begins[1]
            del lines[1:at]

    async def turn(self, used: int, *, in_vain: bool) -> None:
        self.talker.used = used
        self.talker.summary = [Unavailable("gone")] if in_vain else None
        prompt = f"question {self.talker.answers + 1} " + "x" * (used % 7 * 20)
        await self.client.prompt(self.session, prompt).result()
        head = self.daemon.session(self.session).head
        await self.check(head.generation, prompt)
        self.said[head.generation] = (prompt, f"answer {self.talker.answers}")

    async def check(self, generation: int, prompt: str) -> None:
        """What the model was told is the last summary and all turns after it."""
        made = [e for e in await compactions(self.client, self.session) if "summary" in e]
        summary, upto = (made[-1]["summary"], made[-1]["upto"]) if made else ("", 0)
        expected = "".join(
            [
                f"{HEADING}{summary}" if summary else "",
                GONE if self.first > upto + 1 else "",
                *("".join(self.said[g]) for g in sorted(self.said) if g > upto and g >= self.first),
                prompt,
            ]
        )
        told = "".join(text for _, text in self.talker.conversations[-1])
        assert re.sub(r"\s", "", told) == re.sub(r"\s", "", expected)
        assert upto < generation
        if summary:
            text = self.talker.summarised[int(summary.split()[1][:-1]) - 1]
            assert self.said[upto][0] in text, "it stands for the turns that it was made of"
            assert self.said[upto + 1][0] not in text


async def live(steps: list[Step]) -> int:
    talker = Talker()
    async with AsyncExitStack() as stack:
        life = Life(stack, talker)
        await life.open()
        life.session = await life.client.new(config=COMPACTING)
        for what, used in steps:
            await life.step(what, used)
        return len(await compactions(life.client, life.session))


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(STEPS)
def test_whatever_happens_a_model_is_told_the_summary_and_all_that_came_after(
    steps: list[Step],
) -> None:
    simulated(partial(live, [("turn", 100)] * 11 + steps))


def test_such_lives_do_have_compactions() -> None:
    assert simulated(partial(live, [("turn", 900)] * 14 + [("move", 0), ("turn", 900)])) > 2
