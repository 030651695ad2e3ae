"""A client that comes back: over its own loss of the connection, and over the daemon's end.

What it missed is sent once and in order, a prompt that was not answered is, and nothing that a
plain client does not know goes to one that a relay speaks for.
"""

import pytest
from trio.testing import wait_all_tasks_blocked

from moorage_daemon.agents.port import AgentFailed
from moorage_daemon.connection.prompts import MAX_AGAIN
from moorage_protocol.acp import Meta, StopReason
from moorage_protocol.errors import InvalidParams, Overloaded, TurnFailed
from moorage_protocol.moorage import Cause, LoadedMeta, LoadResult, NewResultMeta
from tests.daemon.harness import Daemon, open_daemon, simulated
from tests.daemon.twin import Client, Json


pytestmark = pytest.mark.trio(run=simulated)

EDITOR: Json = {"relay": True, "instance": "editor-1"}


def hello_of(client: Client, **changes: str | bool) -> Json:
    """What the relay of an editor says on its next connection."""
    return {**EDITOR, "tuiId": client.tui, "tuiSecret": client.secret, **changes}


@pytest.fixture
async def editor(daemon: Daemon) -> Client:
    """A plain editor behind a relay, on its first connection."""
    return await daemon.connect(hello=EDITOR)


# ---- who it is


async def test_relay_is_told_who_it_is_and_its_editor_nothing_of_moorage(
    daemon: Daemon, editor: Client
) -> None:
    session = await editor.new()
    reply = editor.prompt(session)
    (await daemon.puppet.next()).finish()
    await reply.result()
    await editor.kill(session)
    await wait_all_tasks_blocked()

    assert (bool(editor.tui), bool(editor.secret)) == (True, True)
    assert not [m for m in editor.messages if m.get("method", "").startswith("_moorage/")]
    assert reply.message is not None
    assert reply.message["result"] == {"stopReason": "end_turn"}


@pytest.mark.parametrize("instance", ["", "x" * 65])
async def test_name_of_an_instance_has_a_sensible_length(daemon: Daemon, instance: str) -> None:
    with pytest.raises(InvalidParams):
        await daemon.connect(hello={"instance": instance})


async def test_answers_say_where_in_the_log_a_client_stands(
    daemon: Daemon, client: Client, editor: Client
) -> None:
    """Plain clients are told so much and no more."""
    created = await editor.start_new().result()
    session = created.session_id
    editor.prompt(session)
    (await daemon.puppet.next()).finish()
    await wait_all_tasks_blocked()
    head = len(await daemon.log(session))

    answers = [await c.load(session) for c in (editor, client)]
    answers += [await c.resume(session) for c in (editor, client)]

    assert created.meta == Meta(moorage=NewResultMeta(seq=1))
    places = [_place(answer) for answer in answers]
    assert [place.seq for place in places] == [head] * 4
    assert [place.cwd for place in places] == [None, "/work", None, "/work"]


def _place(answer: LoadResult) -> LoadedMeta:
    assert isinstance(answer.meta, Meta)
    assert isinstance(answer.meta.moorage, LoadedMeta)
    return answer.meta.moorage


# ---- own words


async def test_own_words_are_not_echoed_to_an_editor_that_missed_its_turns_begin(
    daemon: Daemon, editor: Client
) -> None:
    session = await editor.new()
    editor.prompt(session, "my words", promptId="p")
    performance = await daemon.puppet.next()
    await performance.say("its words")
    await wait_all_tasks_blocked()
    hello = hello_of(editor)
    editor.leave()

    async with open_daemon(await daemon.image()) as restarted:
        for host in (daemon, restarted):
            again = await host.connect(hello=hello)
            await again.attach(session, afterSeq=1, continues=True)
            await wait_all_tasks_blocked()

            assert again.text(session) == "its words"
            assert "user_message_chunk" not in again.kinds(session)


async def test_words_are_shown_to_whoever_did_not_say_them_on_an_earlier_connection(
    daemon: Daemon, editor: Client
) -> None:
    session = await editor.new()
    editor.prompt(session, "my words")
    await daemon.puppet.next()
    await wait_all_tasks_blocked()
    strangers = [
        (hello_of(editor, instance="editor-2"), True),  # the same TUI, another program
        ({"instance": "editor-1"}, True),  # the same name, another TUI
        (hello_of(editor), False),  # the same editor, which wants all of it
    ]

    for hello, continues in strangers:
        other = await daemon.connect(hello=hello)
        await other.attach(session, afterSeq=1, continues=continues)
        await wait_all_tasks_blocked()

        assert "user_message_chunk" in other.kinds(session)


async def test_own_words_are_not_echoed_to_a_client_that_the_prompt_attaches(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    other = await daemon.connect(plain=True)

    reply = other.prompt(session, "my words")
    performance = await daemon.puppet.next()
    await performance.say("its words")
    performance.finish()
    await reply.result()

    assert other.text(session) == "its words"
    assert "user_message_chunk" not in other.kinds(session)


# ---- the answer to a prompt


async def test_cut_prompt_is_answered_behind_what_was_missed_and_says_why(
    daemon: Daemon, editor: Client
) -> None:
    session = await editor.new()
    editor.prompt(session, promptId="p")
    performance = await daemon.puppet.next()
    await performance.say("one")
    await editor.until(lambda: editor.text(session) == "one")
    seen = editor.seqs(session)[-1]
    editor.stop_reading()
    await performance.say(" two")
    await wait_all_tasks_blocked()

    async with open_daemon(await daemon.image()) as restarted:
        again = await restarted.connect(hello=hello_of(editor))
        await again.attach(session, afterSeq=seen, continues=True)
        reply = again.prompt(session, promptId="p")
        verdict = await reply.verdict()

        assert again.text(session) == " two"
        told = [place for place, m in enumerate(again.messages) if "update" in str(m)]
        assert reply.place > max(told)
        assert (verdict.generation, verdict.cause) == (1, Cause.DAEMON_RESTART)
        assert (await reply.result()).stop_reason is StopReason.CANCELLED
        assert not restarted.puppet.performances


async def test_prompt_that_never_arrived_is_run_once(daemon: Daemon, editor: Client) -> None:
    session = await editor.new()

    async with open_daemon(await daemon.image()) as restarted:
        again = await restarted.connect(hello=hello_of(editor))
        await again.attach(session, afterSeq=1, continues=True)
        reply = again.prompt(session, promptId="p")
        (await restarted.puppet.next()).finish()

        assert (await reply.result()).stop_reason is StopReason.END_TURN
        assert "user_message_chunk" not in again.kinds(session)


@pytest.mark.parametrize("is_over", [False, True])
async def test_prompt_sent_again_brings_all_of_its_turn_to_a_client_that_does_not_follow(
    daemon: Daemon, editor: Client, is_over: bool
) -> None:
    session = await editor.new()
    editor.prompt(session, "before")
    (await daemon.puppet.next()).finish()
    editor.prompt(session, promptId="p")
    performance = await daemon.puppet.next()
    await performance.say("all of it")
    hello = hello_of(editor)
    editor.leave()
    await wait_all_tasks_blocked()
    if is_over:
        performance.finish()
        await wait_all_tasks_blocked()

    again = await daemon.connect(hello=hello)
    reply = again.prompt(session, promptId="p")
    if not is_over:
        performance.finish()

    assert (await reply.result()).stop_reason is StopReason.END_TURN
    assert again.text(session) == "all of it"
    assert "user_message_chunk" not in again.kinds(session)
    assert len(daemon.puppet.performances) == 2


async def test_nothing_that_is_being_read_from_the_store_overtakes_the_answer_to_an_attach(
    daemon: Daemon, client: Client
) -> None:
    """A client that follows from its answer on would miss it."""
    session = await client.new()
    client.prompt(session, promptId="p")
    (await daemon.puppet.next()).finish()
    await client.until(lambda: 1 in client.verdicts(session))

    async with open_daemon(await daemon.image()) as restarted:
        again = await restarted.connect()
        restarted.store.hold_reads()
        again.prompt(session, promptId="p")
        await wait_all_tasks_blocked()
        reply = again.start("_moorage/session/attach", {"sessionId": session, "afterSeq": 4}, Json)
        await wait_all_tasks_blocked()
        restarted.store.release_reads()
        await reply.result()
        await again.until(lambda: 1 in again.verdicts(session))

        assert again.seqs(session) == [*range(2, len(await restarted.log(session)) + 1)]
        first = next(p for p, m in enumerate(again.messages) if "'seq': 2," in str(m))
        assert reply.place < first


async def test_prompt_of_a_turn_that_runs_on_is_answered_at_its_end(
    daemon: Daemon, editor: Client
) -> None:
    session = await editor.new()
    editor.prompt(session, promptId="p")
    performance = await daemon.puppet.next()
    await performance.say("one")
    await editor.until(lambda: editor.text(session) == "one")
    seen, hello = editor.seqs(session)[-1], hello_of(editor)
    editor.leave()
    await performance.say(" two")

    again = await daemon.connect(hello=hello)
    await again.attach(session, afterSeq=seen, continues=True)
    reply = again.prompt(session, promptId="p")
    await performance.say(" three")
    performance.finish()

    assert (await reply.result()).stop_reason is StopReason.END_TURN
    assert again.text(session) == " two three"


async def test_error_of_a_failed_turn_stands_behind_what_was_missed(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    client.prompt(session, promptId="p")
    performance = await daemon.puppet.next()
    await performance.say("so far")
    performance.fail(AgentFailed("provider_rate", "slow down"))
    await client.until(lambda: 1 in client.verdicts(session))

    again = await daemon.connect()
    reply = again.prompt(session, promptId="p")
    with pytest.raises(TurnFailed):
        await reply.result()

    [verdict] = [p for p, m in enumerate(again.messages) if '"verdict"' in str(m).replace("'", '"')]
    assert reply.place == verdict + 1
    assert again.text(session) == "so far"


async def test_answer_of_a_turn_that_has_ended_cannot_be_cancelled(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    client.prompt(session, promptId="p")
    (await daemon.puppet.next()).finish()
    await client.until(lambda: 1 in client.verdicts(session))

    reply = client.prompt(session, promptId="p")
    client.notify("$/cancel_request", {"requestId": reply.id})

    assert (await reply.result()).stop_reason is StopReason.END_TURN


# ---- a prompt sent again and again


async def test_running_prompt_that_is_sent_again_and_again_is_answered_as_often_within_a_bound(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    first = client.prompt(session, promptId="p")
    performance = await daemon.puppet.next()
    again = [client.prompt(session, promptId="p") for _ in range(MAX_AGAIN)]
    await wait_all_tasks_blocked()

    with pytest.raises(Overloaded):
        await client.prompt(session, promptId="p").result()
    client.notify("$/cancel_request", {"requestId": again[-1].id})
    told = [(await reply.verdict()).generation for reply in [first, *again]]

    assert performance.was_cancelled
    assert told == [1] * (MAX_AGAIN + 1)
    assert await is_answered_again(daemon, client, session)


async def is_answered_again(daemon: Daemon, client: Client, session: str) -> bool:
    """Whether there is room for it: what was answered waits no longer."""
    client.prompt(session, promptId="q")
    performance = await daemon.puppet.next()
    reply = client.prompt(session, promptId="q")
    performance.finish()
    return (await reply.verdict()).generation == 2


async def test_turn_keeps_nothing_of_the_connections_that_came_and_went_while_it_ran(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    reply = client.prompt(session, promptId="p")
    performance = await daemon.puppet.next()
    turn = daemon.session(session).turn
    assert turn is not None

    for _ in range(3):
        other = await daemon.connect()
        other.prompt(session, promptId="p")
        other.prompt(session, promptId="p")
        await wait_all_tasks_blocked()
        assert len(turn.watchers) == 2, "of each connection that is there, one"
        other.leave()
        await wait_all_tasks_blocked()

    assert len(turn.watchers) == 1
    performance.finish()
    assert (await reply.verdict()).generation == 1


# ---- cancelling


async def test_bare_cancel_finds_what_an_earlier_connection_prompted(
    daemon: Daemon, client: Client, editor: Client
) -> None:
    """And leaves what somebody else did alone, though that is what runs."""
    session = await editor.new()
    client.prompt(session, "runs")
    theirs = await daemon.puppet.next()
    editor.prompt(session, "waits", promptId="p")
    await wait_all_tasks_blocked()
    hello = hello_of(editor)
    editor.leave()

    again = await daemon.connect(hello=hello)
    reply = again.prompt(session, "waits", promptId="p")
    again.notify("session/cancel", {"sessionId": session})

    assert (await reply.result()).stop_reason is StopReason.CANCELLED
    assert not theirs.is_over


# ---- a load that was cut


async def test_load_goes_on_behind_what_had_come(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    client.prompt(session)
    (await daemon.puppet.next()).finish()
    await wait_all_tasks_blocked()
    head = len(await daemon.log(session))
    again = await daemon.connect()

    params: Json = {"sessionId": session, "cwd": "/", "mcpServers": []}
    await again.call("session/load", params | _after(3), LoadResult)

    assert again.seqs(session) == list(range(4, head + 1))
    with pytest.raises(InvalidParams):
        await again.call("session/load", params | _after(-1), LoadResult)


def _after(seq: int) -> Json:
    return {"_meta": {"moorage": {"afterSeq": seq}}}
