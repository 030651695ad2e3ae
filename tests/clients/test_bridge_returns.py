"""The bridge and the daemon's core together: cut anywhere, an editor sees no more than a
cancelled turn."""

import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from trio.testing import wait_all_tasks_blocked

from moorage_clients.bridge.places import Places
from tests.clients.behind_bridge import Editor, begun
from tests.clients.forgetful import FORGETFUL
from tests.daemon.harness import Daemon, open_daemon, simulated
from tests.daemon.puppet import Cut, Lever


pytestmark = pytest.mark.trio(run=simulated)


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    async with open_daemon() as running:
        yield running


@pytest.fixture
async def editor(daemon: Daemon) -> Editor:
    return await begun(daemon)


@asynccontextmanager
async def crashed(daemon: Daemon, editor: Editor) -> AsyncGenerator[Daemon]:
    """The next daemon, on what is on the disk at this moment, with the editor connected again."""
    editor.lose()
    async with open_daemon(await daemon.image()) as restarted:
        editor.connect(restarted)
        await wait_all_tasks_blocked()
        yield restarted


CUT = {"generation": 1, "outcome": "cancelled", "cause": "daemon_restart"}


async def test_prompt_that_was_cut_before_its_admission_runs_once(
    daemon: Daemon, editor: Editor
) -> None:
    session = await editor.new()
    daemon.store.hold()
    prompt = editor.prompts(session)
    await wait_all_tasks_blocked()

    async with crashed(daemon, editor) as restarted:
        performance = await restarted.puppet.next()
        await performance.say("an answer")
        performance.finish()

        assert (await editor.answer(prompt))["result"] == {"stopReason": "end_turn"}
        assert len(restarted.puppet.performances) == 1
        assert await editor.problems(restarted, [session]) == []


async def test_prompt_that_was_cut_behind_its_admission_is_answered_from_its_verdict(
    daemon: Daemon, editor: Editor
) -> None:
    session = await editor.new()
    prompt = editor.prompts(session)
    performance = await daemon.puppet.next()
    await performance.say("seen, ")
    await wait_all_tasks_blocked()
    editor.stop_reading()
    await performance.say("missed")
    await wait_all_tasks_blocked()

    async with crashed(daemon, editor) as restarted:
        answer = await editor.answer(prompt)

        assert answer["result"] == {"stopReason": "cancelled", "_meta": {"moorage": CUT}}
        assert editor.text(session) == "seen, missed"
        last = editor.heard.index({"jsonrpc": "2.0", "method": "session/update",
                                   "params": editor.updates(session)[-1]})  # fmt: skip
        assert last < editor.heard.index(answer)
        assert not restarted.puppet.performances
        assert await editor.problems(restarted, [session]) == []


async def test_prompt_whose_answer_was_sent_and_not_read_is_answered_the_same_once(
    daemon: Daemon, editor: Editor
) -> None:
    session = await editor.new()
    prompt = editor.prompts(session)
    performance = await daemon.puppet.next()
    await wait_all_tasks_blocked()
    editor.stop_reading()
    await performance.say("missed")
    performance.finish()
    await wait_all_tasks_blocked()

    async with crashed(daemon, editor) as restarted:
        answer = await editor.answer(prompt)

        verdict = {"generation": 1, "outcome": "completed"}
        assert answer["result"] == {"stopReason": "end_turn", "_meta": {"moorage": verdict}}
        assert editor.text(session) == "missed"
        assert not restarted.puppet.performances
        assert await editor.problems(restarted, [session]) == []


async def test_queued_prompts_are_answered_too_each_once(daemon: Daemon, editor: Editor) -> None:
    session = await editor.new()
    prompts = [editor.prompts(session, f"number {number}") for number in range(5)]
    await daemon.puppet.next()
    await wait_all_tasks_blocked()

    async with crashed(daemon, editor) as restarted:
        answers = [await editor.answer(prompt) for prompt in prompts]

        assert {answer["result"]["stopReason"] for answer in answers} == {"cancelled"}
        assert await editor.problems(restarted, [session]) == []


async def test_all_prompts_that_can_be_queued_are_answered_however_many(
    daemon: Daemon, editor: Editor
) -> None:
    sessions = [await editor.new() for _ in range(3)]
    prompts = [editor.prompts(session) for session in sessions for _ in range(1 + 32)]
    await wait_all_tasks_blocked()

    async with crashed(daemon, editor) as restarted:
        answers = [await editor.answer(prompt) for prompt in prompts]

        assert [answer for answer in answers if "error" in answer] == []
        assert await editor.problems(restarted, sessions) == []


async def test_turn_runs_on_when_only_the_connection_went(daemon: Daemon, editor: Editor) -> None:
    session = await editor.new()
    prompt = editor.prompts(session)
    performance = await daemon.puppet.next()
    await performance.say("one ")
    await wait_all_tasks_blocked()
    editor.lose()
    await performance.say("two ")

    editor.connect(daemon)
    await wait_all_tasks_blocked()
    await performance.say("three")
    performance.finish()

    assert (await editor.answer(prompt))["result"] == {"stopReason": "end_turn"}
    assert editor.text(session) == "one two three"
    assert await editor.problems(daemon, [session]) == []


async def test_question_of_a_lost_connection_is_withdrawn_and_put_again(
    daemon: Daemon, editor: Editor
) -> None:
    session = await editor.new()
    prompt = editor.prompts(session)
    performance = await daemon.puppet.next()
    lever = Lever(asks=True)
    performance.begin(lever.call())
    await wait_all_tasks_blocked()
    [first] = questions(editor)
    editor.lose()
    editor.connect(daemon)
    await wait_all_tasks_blocked()
    [_, second] = questions(editor)

    chosen = {"outcome": {"outcome": "selected", "optionId": "allow"}}
    editor.says(id=first, result={"outcome": {"outcome": "cancelled"}})
    editor.says(id=second, result=chosen)
    await wait_all_tasks_blocked()
    performance.finish()

    assert [m["params"]["requestId"] for m in editor.heard if "requestId" in str(m)] == [first]
    assert (await editor.answer(prompt))["result"] == {"stopReason": "end_turn"}
    assert lever.pulled
    assert await editor.problems(daemon, [session]) == []


def questions(editor: Editor) -> list[Any]:
    asked = [m for m in editor.heard if m.get("method") == "session/request_permission"]
    return [message["id"] for message in asked]


async def test_cancel_that_was_lost_with_its_prompt_still_cancels_it(
    daemon: Daemon, editor: Editor
) -> None:
    session = await editor.new()
    daemon.store.hold()
    prompt = editor.prompts(session)
    editor.says(method="session/cancel", params={"sessionId": session})
    await wait_all_tasks_blocked()

    async with crashed(daemon, editor) as restarted:
        assert (await editor.answer(prompt))["result"] == {"stopReason": "cancelled"}
        [turn] = await (await restarted.connect()).turns(session)
        assert turn.verdict is not None
        assert turn.verdict.cause == "client_rpc"


async def test_load_that_was_cut_tells_the_history_once(daemon: Daemon, editor: Editor) -> None:
    session = await editor.new()
    for number in range(30):
        editor.prompts(session)
        performance = await daemon.puppet.next()
        await performance.say(f"{number} " * 4000)
        performance.finish()
        await wait_all_tasks_blocked()
    other = await begun(daemon)
    load = other.asks("session/load", sessionId=session, cwd="/work", mcpServers=[])
    other.stop_reading()
    while not other.updates(session):
        await read_a_little(other)

    async with crashed(daemon, other) as restarted:
        answer = await other.answer(load)

        assert "result" in answer
        assert other.text(session) == editor.text(session)
        seqs = [params["_meta"]["moorage"]["seq"] for params in other.updates(session)]
        assert seqs == sorted({*seqs})
        assert restarted is not daemon


async def read_a_little(editor: Editor) -> None:
    """Let the editor take what can be taken at once, and not what follows on that."""
    editor.read_on()
    await wait_all_tasks_blocked()
    editor.stop_reading()


async def test_daemon_that_is_stopped_and_started_costs_a_turn_and_no_error(
    daemon: Daemon, editor: Editor
) -> None:
    session = await editor.new()
    first = editor.prompts(session)
    performance = await daemon.puppet.next()
    performance.dig_in()
    await wait_all_tasks_blocked()
    daemon.clients.start_soon(daemon.sessions.drain)
    await wait_all_tasks_blocked()
    second = editor.prompts(session, "while it stops")
    await wait_all_tasks_blocked()
    performance.released.set()
    await wait_all_tasks_blocked()

    async with crashed(daemon, editor) as restarted:
        (await restarted.puppet.next()).finish()

        assert (await editor.answer(first))["result"] == {"stopReason": "cancelled"}
        assert (await editor.answer(second))["result"] == {"stopReason": "end_turn"}
        assert await editor.problems(restarted, [session]) == []


# ---- any order of events


@dataclass(eq=False)
class Chance:
    """A life of one editor: prompts, agents at work, and cuts, in an order that a seed gives."""

    random: random.Random
    editor: Editor
    daemon: Daemon
    lives: AsyncExitStack
    sessions: list[str] = field(default_factory=list[str])
    cuts: int = 0

    async def live(self, steps: int) -> None:
        acts = [self.prompt, self.prompt, self.say, self.say, self.say, self.finish, self.look_away,
                self.lose, self.crash, self.cancel, self.pause]  # fmt: skip
        self.sessions = [await self.editor.new() for _ in range(2)]
        for _ in range(steps):
            await self.random.choice(acts)()
            if self.random.random() < 0.5:
                await wait_all_tasks_blocked()
        await self.end()

    async def end(self) -> None:
        """All agents end, and the editor reads all there is."""
        self.editor.read_on()
        for _ in range(50):
            await wait_all_tasks_blocked()
            await self.finish()
        await wait_all_tasks_blocked()

    async def prompt(self) -> None:
        self.editor.prompts(self.random.choice(self.sessions))

    async def cancel(self) -> None:
        session = self.random.choice(self.sessions)
        self.editor.says(method="session/cancel", params={"sessionId": session})

    async def say(self) -> None:
        for performance in self.daemon.puppet.performances:
            if not performance.is_over:
                try:
                    performance.begin(lambda stage: stage.say(f"{self.random.random()} "))
                except Cut:
                    continue

    async def finish(self) -> None:
        for performance in self.daemon.puppet.performances:
            if not performance.is_over:
                performance.finish()

    async def look_away(self) -> None:
        self.editor.stop_reading()

    async def pause(self) -> None:
        self.editor.read_on()
        await wait_all_tasks_blocked()

    async def lose(self) -> None:
        self.cuts += 1
        self.editor.lose()
        if self.random.random() < 0.5:
            await self.prompt()
        self.editor.connect(self.daemon)

    async def crash(self) -> None:
        self.cuts += 1
        self.editor.lose()
        image = await self.daemon.image()
        if self.random.random() < 0.5:
            await self.prompt()
        self.daemon = await self.lives.enter_async_context(open_daemon(image))
        self.editor.connect(self.daemon)


async def live(seed: int, places: Places | None = None, steps: int = 40) -> tuple[int, list[str]]:
    """One life; gives how often it was cut, and what the editor noticed of it."""
    async with AsyncExitStack() as lives:
        daemon = await lives.enter_async_context(open_daemon())
        editor = await begun(daemon, places)
        chance = Chance(random.Random(seed), editor, daemon, lives)
        await chance.live(steps)
        return chance.cuts, await editor.problems(chance.daemon, chance.sessions)


@pytest.mark.parametrize("seed", range(30))
async def test_whatever_is_cut_when_the_editor_notices_nothing(seed: int) -> None:
    cuts, problems = await live(seed)

    assert problems == []
    assert cuts > 0


@pytest.mark.parametrize("broken", FORGETFUL.values(), ids=FORGETFUL)
async def test_an_editor_notices_a_bridge_that_forgets_its_places(broken: type[Places]) -> None:
    """The same lives behind broken bridges: if these went unnoticed, nothing would be shown."""
    noticed = [bool((await live(seed, broken()))[1]) for seed in range(10)]

    assert sum(noticed) >= 3
