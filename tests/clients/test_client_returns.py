"""A client that comes back by itself: nothing is missed or comes twice, and no wait is endless."""

import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from moorage_clients.attachment import Attachment
from moorage_clients.client import Client
from moorage_clients.conversation import ATTEMPT, LONGEST_PAUSE, PATIENCE, STEADY
from moorage_clients.errors import ConnectionLost, KeepsNoSecrets
from moorage_clients.messages import LogEntry, Message
from moorage_clients.submissions import Outcome as Answer
from moorage_protocol.acp import Meta, PermissionParams, StopReason
from moorage_protocol.errors import NotFound, RpcError
from moorage_protocol.moorage import (
    Access,
    Cause,
    Outcome,
    PromptResult,
    PromptVerdict,
    SecretText,
    Snapshot,
)
from tests.clients.memory_core import Core, open_memory_client
from tests.daemon.harness import Daemon, open_daemon, simulated
from tests.daemon.puppet import Cut, Lever


pytestmark = pytest.mark.trio(run=simulated)


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    async with open_daemon() as running:
        yield running


@pytest.fixture
async def core(daemon: Daemon) -> Core:
    return Core(daemon)


@pytest.fixture
async def client(core: Core) -> AsyncIterator[Client]:
    async with open_memory_client(core) as connected:
        yield connected


@asynccontextmanager
async def restarted(core: Core) -> AsyncGenerator[Daemon]:
    """The next daemon, on what is on the disk at this moment."""
    ended, core.daemon = core.daemon, None
    core.cut()
    assert ended is not None
    image = await ended.image()
    async with open_daemon(image) as running:
        core.daemon = running
        try:
            yield running
        finally:
            core.daemon = None


async def new(client: Client) -> str:
    return (await client.new_session("/work")).session_id


async def collect(source: AsyncIterator[Message], into: list[Message]) -> None:
    async for message in source:
        into.append(message)  # noqa: PERF401 - what came before an error is what counts


def seqs(messages: list[Message]) -> list[int]:
    """The numbers; the state of something, told at an attach, has none."""
    return [message.seq for message in messages if message.seq is not None]


def verdict(result: PromptResult) -> PromptVerdict:
    assert isinstance(result.meta, Meta)
    assert isinstance(result.meta.moorage, PromptVerdict)
    return result.meta.moorage


async def whole_log(daemon: Daemon, session: str) -> list[int]:
    return list(range(1, len(await daemon.log(session)) + 1))


# ---- attachments


async def test_attachment_goes_on_behind_what_was_handed_out(
    daemon: Daemon, core: Core, client: Client
) -> None:
    session, got = await new(client), list[Message]()
    async with client.attach(session, 0) as attachment, trio.open_nursery() as nursery:
        nursery.start_soon(collect, attachment, got)
        for text in ("one", "two", "three"):
            await client.submit(session, text, lambda _: None)
            performance = await daemon.puppet.next()
            await performance.say(text)
            core.cut()
            performance.finish()
            await trio.sleep(1)

        assert seqs(got) == await whole_log(daemon, session)
        assert attachment.returns == 3
        assert core.told == ["lost", "back"] * 3
        nursery.cancel_scope.cancel()


async def test_attachment_goes_on_with_the_next_daemon(core: Core, client: Client) -> None:
    session, got = await new(client), list[Message]()
    async with client.attach(session, 0) as attachment, trio.open_nursery() as nursery:
        nursery.start_soon(collect, attachment, got)
        await client.submit(session, "hello", lambda _: None)
        assert core.daemon is not None
        await (await core.daemon.puppet.next()).say("one")
        await wait_all_tasks_blocked()
        async with restarted(core) as second:
            await trio.sleep(1)

            assert seqs(got) == await whole_log(second, session)
            assert attachment.snapshot.seq == seqs(got)[-1]
            nursery.cancel_scope.cancel()


async def test_attachment_outlasts_a_daemon_that_is_stopped(
    daemon: Daemon, core: Core, client: Client
) -> None:
    session, got = await new(client), list[Message]()
    async with client.attach(session, 0) as attachment, trio.open_nursery() as nursery:
        nursery.start_soon(collect, attachment, got)
        await daemon.sessions.drain()
        await trio.sleep(1)
        assert attachment.returns == 0  # it is not the stopping daemon's again
        async with restarted(core) as second:
            await trio.sleep(1)
            await client.submit(session, "hello", lambda _: None)
            (await second.puppet.next()).finish()
            await wait_all_tasks_blocked()

            assert seqs(got) == await whole_log(second, session)
            nursery.cancel_scope.cancel()


async def test_session_that_was_killed_meanwhile_is_not_found(
    daemon: Daemon, core: Core, client: Client
) -> None:
    session = await new(client)
    async with client.attach(session) as attachment:
        core.cut()
        await (await daemon.connect()).kill(session)

        with pytest.raises(NotFound):
            await collect(attachment, [])


async def test_own_words_come_as_entries_after_a_return_as_well(
    daemon: Daemon, core: Core, client: Client
) -> None:
    session, got = await new(client), list[Message]()
    async with client.attach(session) as attachment, trio.open_nursery() as nursery:
        await client.submit(session, "my words", lambda _: None)
        await daemon.puppet.next()
        await wait_all_tasks_blocked()
        core.cut()
        nursery.start_soon(collect, attachment, got)
        await trio.sleep(1)

        kinds = [message.kind for message in got if isinstance(message, LogEntry)]
        assert kinds == ["prompt", "message", "begin"]
        nursery.cancel_scope.cancel()


# ---- turns


async def test_turn_that_a_restart_cuts_is_cancelled_behind_all_it_said(
    daemon: Daemon, core: Core, client: Client
) -> None:
    session, got = await new(client), list[Message]()
    async with client.prompt(session, "hello") as turn, trio.open_nursery() as nursery:
        nursery.start_soon(collect, turn, got)
        performance = await daemon.puppet.next()
        await performance.say("one ")
        await wait_all_tasks_blocked()
        await performance.say("two")
        await wait_all_tasks_blocked()
        async with restarted(core) as second:
            await trio.sleep(1)

            found = verdict(turn.result)
            log = await whole_log(second, session)
            assert (found.outcome, found.cause) == (Outcome.CANCELLED, Cause.DAEMON_RESTART)
            assert seqs(got) == log[1:]  # the first is the session's own
            assert not second.puppet.performances


async def test_turn_goes_on_when_only_the_connection_went(
    daemon: Daemon, core: Core, client: Client
) -> None:
    session, got = await new(client), list[Message]()
    async with client.prompt(session, "hello") as turn, trio.open_nursery() as nursery:
        nursery.start_soon(collect, turn, got)
        performance = await daemon.puppet.next()
        for text in ("one ", "two ", "three"):
            await performance.say(text)
            core.cut()
            await trio.sleep(1)
        performance.finish()
        await trio.sleep(1)

        assert turn.result.stop_reason is StopReason.END_TURN
        numbers = seqs(got)
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert len(daemon.puppet.performances) == 1


async def test_prompt_that_never_arrived_runs_once(
    daemon: Daemon, core: Core, client: Client
) -> None:
    session = await new(client)
    daemon.store.hold()
    async with client.prompt(session, "hello") as turn:
        await wait_all_tasks_blocked()
        async with restarted(core) as second, trio.open_nursery() as nursery:
            nursery.start_soon(turn.finish)
            (await second.puppet.next()).finish()
            await trio.sleep(1)

            assert turn.result.stop_reason is StopReason.END_TURN
            assert turn.generation == 1
            assert len(second.puppet.performances) == 1


async def test_prompt_that_a_stopping_daemon_refuses_is_the_next_ones(
    daemon: Daemon, core: Core, client: Client
) -> None:
    session = await new(client)
    await daemon.sessions.drain()
    async with client.prompt(session, "hello") as turn, trio.open_nursery() as nursery:
        nursery.start_soon(turn.finish)
        await wait_all_tasks_blocked()
        async with restarted(core) as second:
            (await second.puppet.next()).finish()
            await trio.sleep(1)

            assert turn.result.stop_reason is StopReason.END_TURN


# ---- prompts that nobody waits for


async def test_submitted_prompts_keep_their_order_and_are_answered_once(
    daemon: Daemon, core: Core, client: Client
) -> None:
    session, answers = await new(client), list[tuple[str, Answer]]()
    daemon.store.hold()

    async def submit(text: str) -> None:
        await client.submit(session, text, lambda found: answers.append((text, found)))

    for text in ("a", "b", "c"):
        await submit(text)
    await wait_all_tasks_blocked()
    async with restarted(core) as second:
        for text in ("d", "e"):
            await submit(text)
        for text in ("a", "b", "c", "d", "e"):
            performance = await second.puppet.next()
            assert performance.prompt.text == text
            performance.finish()
        await wait_all_tasks_blocked()

    assert [text for text, _ in answers] == ["a", "b", "c", "d", "e"]
    assert all(isinstance(answer, PromptResult) for _, answer in answers)


async def test_submitted_prompt_is_told_when_no_daemon_comes(core: Core, client: Client) -> None:
    session, answers = await new(client), list[Answer]()
    await client.submit(session, "hello", answers.append)
    core.daemon = None
    core.cut()
    await trio.sleep(PATIENCE - 1)
    assert answers == []

    await trio.sleep(2)

    [answer] = answers
    assert isinstance(answer, ConnectionLost)


async def test_submitted_prompt_of_a_client_that_ends_is_told_so(core: Core) -> None:
    answers = list[Answer]()
    async with open_memory_client(core) as client:
        await client.submit(await new(client), "hello", answers.append)
        await wait_all_tasks_blocked()

    [answer] = answers
    assert isinstance(answer, ConnectionLost)


# ---- requests


async def test_request_that_was_not_answered_is_asked_again(core: Core, client: Client) -> None:
    session = await new(client)
    core.cut()

    assert [row.session_id for row in await client.sessions()] == [session]


async def test_request_that_may_be_done_once_is_lost_with_its_connection(
    daemon: Daemon, core: Core, client: Client
) -> None:
    daemon.store.hold()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_expect_loss, client)
        await wait_all_tasks_blocked()
        core.cut()
    daemon.store.release()

    assert await new(client)  # and the next one is not


async def _expect_loss(client: Client) -> None:
    with pytest.raises(ConnectionLost):
        await new(client)


async def test_question_is_put_again(daemon: Daemon, core: Core) -> None:
    asked: list[str] = []

    async def decide(params: PermissionParams) -> str | None:
        asked.append(params.tool_call.tool_call_id)
        if len(asked) == 1:
            await trio.sleep_forever()
        return "allow"

    lever = Lever(asks=True)
    async with open_memory_client(core, on_permission=decide) as client:
        session = await new(client)
        async with client.prompt(session, "hello") as turn, trio.open_nursery() as nursery:
            nursery.start_soon(turn.finish)
            performance = await daemon.puppet.next()
            performance.begin(lever.call())
            await wait_all_tasks_blocked()
            core.cut()
            await trio.sleep(1)
            performance.finish()

    assert len(asked) == 2
    assert lever.pulled


# ---- how long


async def test_daemon_is_looked_for_thirty_seconds_and_whoever_waits_is_told_then(
    core: Core, client: Client
) -> None:
    session, ends = await new(client), list[float]()
    await trio.sleep(STEADY)
    core.daemon, lost_at = None, trio.current_time()
    core.tries.clear()
    core.cut()

    async def wait() -> None:
        with pytest.raises(ConnectionLost, match="no daemon is there"):
            await client.turns(session)
        ends.append(trio.current_time() - lost_at)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(wait)

    assert PATIENCE == 30
    assert [round(end) for end in ends] == [30] * 5
    assert core.tries[0] - lost_at < 0.05
    assert 30 <= len(core.tries) <= 36
    gaps = [b - a for a, b in zip(core.tries, core.tries[1:], strict=False)]
    assert max(gaps) <= LONGEST_PAUSE + 0.01


async def test_whoever_comes_later_makes_one_more_attempt(
    daemon: Daemon, core: Core, client: Client
) -> None:
    session = await new(client)
    core.daemon = None
    core.cut()
    await trio.sleep(PATIENCE + 60)
    core.tries.clear()

    with pytest.raises(ConnectionLost):
        await client.turns(session)
    core.daemon = daemon
    found = await client.turns(session)

    assert found.turns == []
    assert len(core.tries) == 2


async def test_daemon_that_takes_a_connection_and_says_nothing_is_no_daemon(
    core: Core, client: Client
) -> None:
    core.is_deaf = True
    core.cut()
    began = trio.current_time()

    with pytest.raises(ConnectionLost, match="does not answer"):
        await client.sessions()
    first = trio.current_time()
    with pytest.raises(ConnectionLost, match="does not answer"):
        await client.sessions()

    assert round(first - began) == PATIENCE
    assert trio.current_time() - first <= ATTEMPT + LONGEST_PAUSE


async def test_connection_that_comes_and_goes_is_not_made_again_in_a_hurry(
    core: Core, client: Client
) -> None:
    core.tries.clear()
    with trio.move_on_after(20):
        while True:
            core.cut()
            await wait_all_tasks_blocked()
            with suppress(ConnectionLost, RpcError):
                await client.conversation.wait_connected()

    assert 15 <= len(core.tries) <= 30


async def test_client_that_does_not_return_leaves_a_loss_to_its_caller(
    daemon: Daemon, core: Core
) -> None:
    async with open_memory_client(core, returns=False) as client:
        session = await new(client)
        answers = list[Answer]()
        async with client.attach(session) as attachment, client.prompt(session, "x") as turn:
            await client.submit(session, "y", answers.append)
            core.cut()
            await wait_all_tasks_blocked()

            got = list[Message]()
            with pytest.raises(ConnectionLost):
                await collect(attachment, got)
            for waits in (turn.finish, client.sessions):
                with pytest.raises(ConnectionLost):
                    await waits()
            assert isinstance(answers[0], ConnectionLost)
            assert core.told == ["lost"]
            await attachment.reattach()
            with trio.move_on_after(1):
                await collect(attachment, got)
            assert seqs(got) == (await whole_log(daemon, session))[1:]


# ---- any order of events


@dataclass(eq=False)
class Chance:
    """A life of one client with two attachments, in an order of events that a seed gives."""

    random: random.Random
    client: Client
    core: Core
    lives: AsyncExitStack
    session: str
    sent: int = 0
    answers: list[int] = field(default_factory=list[int])

    @property
    def daemon(self) -> Daemon:
        assert self.core.daemon is not None
        return self.core.daemon

    async def live(self, steps: int) -> None:
        acts = [self.submit, self.submit, self.say, self.say, self.finish, self.cut, self.crash]
        for _ in range(steps):
            await self.random.choice(acts)()
            if self.random.random() < 0.5:
                await trio.sleep(self.random.choice([0.01, 1.0]))
        for _ in range(steps):
            await trio.sleep(1)
            await self.finish()

    async def submit(self) -> None:
        self.sent += 1
        number = self.sent
        await self.client.submit(
            self.session, f"number {number}", lambda _: self.answers.append(number)
        )

    async def say(self) -> None:
        for performance in self.daemon.puppet.performances:
            if not performance.is_over:
                with suppress(Cut):
                    performance.begin(lambda stage: stage.say(f"{self.random.random()} "))

    async def finish(self) -> None:
        for performance in self.daemon.puppet.performances:
            if not performance.is_over:
                performance.finish()

    async def cut(self) -> None:
        self.core.cut()

    async def crash(self) -> None:
        await self.lives.enter_async_context(restarted(self.core))


class Forgetful(Attachment):
    """Follows its session again, and does not ask for what was missed."""

    async def reattach(self) -> Snapshot:
        if self.returns or self.seq:
            self.seq = None
        return await super().reattach()


async def live(seed: int, kind: type[Attachment] = Attachment) -> list[str]:
    """One life; gives what was lost or came twice in it."""
    async with AsyncExitStack() as lives:
        core = Core(await lives.enter_async_context(open_daemon()))
        client = await lives.enter_async_context(open_memory_client(core))
        session = await new(client)
        got: list[list[Message]] = [[], []]
        nursery = await lives.enter_async_context(trio.open_nursery())
        for into in got:
            attachment = kind(client.conversation, session, Access.CONTROLLER, 0)
            await attachment.reattach()
            nursery.start_soon(collect, attachment, into)
        chance = Chance(random.Random(seed), client, core, lives, session)
        await chance.live(25)
        log = await whole_log(chance.daemon, session)
        core.daemon = None
        nursery.cancel_scope.cancel()
    wrong = [f"got {seqs(messages)} of {log}" for messages in got if seqs(messages) != log]
    if sorted(chance.answers) != list(range(1, chance.sent + 1)):
        wrong.append(f"{chance.sent} prompts, answers to {chance.answers}")
    return wrong


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_is_cut_when_each_entry_comes_once_and_each_prompt_is_answered(
    seed: int,
) -> None:
    assert await live(seed) == []


async def test_lives_of_a_client_that_forgets_its_place_are_noticed() -> None:
    """The same with attachments that follow from now on: else the lives would show nothing."""
    noticed = [bool(await live(seed, Forgetful)) for seed in range(5)]

    assert any(noticed)


# ---- prompts with a secret


SECRET = "a secret of this turn"


@pytest.mark.parametrize("how", ["followed", "submitted"])
async def test_prompt_with_a_secret_is_sent_again_and_runs_once(
    daemon: Daemon, core: Core, client: Client, how: str
) -> None:
    session = await new(client)
    answers: list[Answer] = []

    async def follow() -> None:
        async with client.prompt(session, [SecretText(text=SECRET)]) as turn:
            answers.append(await turn.finish())

    async with trio.open_nursery() as nursery:
        if how == "followed":
            nursery.start_soon(follow)
        else:
            await client.submit(session, [SecretText(text=SECRET)], answers.append)
        performance = await daemon.puppet.next()
        core.cut()
        await wait_all_tasks_blocked()
        await trio.sleep(1)
        performance.finish()
        await trio.sleep(1)

    assert performance.prompt.secrets == (SECRET,)
    assert len(daemon.puppet.performances) == 1
    [answer] = answers
    assert isinstance(answer, PromptResult)


async def test_secret_is_sent_again_to_no_daemon_that_would_keep_it(
    core: Core, client: Client
) -> None:
    """It was exchanged for an older one meanwhile."""
    session = await new(client)
    answers: list[Answer] = []
    core.is_old = True
    core.cut()
    await wait_all_tasks_blocked()

    with pytest.raises(KeepsNoSecrets):
        await client.submit(session, [SecretText(text=SECRET)], answers.append)
    with pytest.raises(KeepsNoSecrets):
        async with client.prompt(session, [SecretText(text=SECRET)]):
            pass
    with pytest.raises(KeepsNoSecrets):
        await client.send_prompt(session, [SecretText(text=SECRET)])

    assert answers == []
