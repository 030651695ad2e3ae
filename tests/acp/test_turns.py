"""Turns: lines 37 to 45 of what the protocol asks of an agent."""

from pathlib import Path
from typing import Any

import pytest
from trio.testing import wait_all_tasks_blocked

from moorage_daemon.agents.port import AgentFailed, Stage
from moorage_daemon.providers.port import Ending, Finished, Said
from moorage_protocol.acp import PlanEntry, StopReason
from moorage_protocol.errors import InvalidParams, RpcError
from moorage_protocol.moorage import PromptResult
from tests.acp.shapes import updates
from tests.daemon.agents.test_native import open_scene
from tests.daemon.harness import Daemon, open_daemon, simulated
from tests.daemon.puppet import Lever, saying
from tests.daemon.twin import Client, Json, PromptReply


simulated_clock = pytest.mark.trio(run=simulated)

TEXT: Json = {"type": "text", "text": "see"}
LINK: Json = {"type": "resource_link", "uri": "file:///a.txt", "name": "a.txt"}
RESOURCE: Json = {"type": "resource", "resource": {"uri": "file:///b", "text": "carried"}}
IMAGE: Json = {"type": "image", "data": "", "mimeType": "image/png"}
AUDIO: Json = {"type": "audio", "data": "", "mimeType": "audio/wav"}


def sent(client: Client, session: str) -> list[Json]:
    """The updates of a session that a client was sent by entries."""
    marked = [m["params"] for m in updates(client) if "_meta" in m["params"]]
    return [params["update"] for params in marked if params["sessionId"] == session]


@pytest.mark.parametrize(
    ("blocks", "text"),
    [
        ([TEXT], "see"),
        ([LINK], "file:///a.txt"),
        ([TEXT, LINK, LINK], "see\nfile:///a.txt\nfile:///a.txt"),
        ([TEXT, RESOURCE], "see\ncarried"),
    ],
    ids=["text", "link", "links", "resource"],
)
@simulated_clock
async def test_line_37_text_and_links_are_taken_and_what_was_advertised(
    daemon: Daemon, client: Client, blocks: list[Json], text: str
) -> None:
    session = await client.new()

    params = {"sessionId": session, "prompt": blocks}
    reply = client.start("session/prompt", params, PromptResult)
    performance = await daemon.puppet.next()
    performance.finish()

    assert (await reply.result()).stop_reason is StopReason.END_TURN
    assert performance.prompt.text == text


@pytest.mark.parametrize("block", [IMAGE, AUDIO], ids=["image", "audio"])
@simulated_clock
async def test_line_37_what_was_not_advertised_is_refused(client: Client, block: Json) -> None:
    session = await client.new()

    params = {"sessionId": session, "prompt": [TEXT, block]}
    with pytest.raises(InvalidParams):
        await client.call("session/prompt", params, PromptResult)


async def _failing(stage: Stage) -> None:
    raise AgentFailed("agent_failed", "it broke")


@simulated_clock
async def test_line_38_every_prompt_has_one_answer_from_the_closed_set(
    daemon: Daemon, client: Client
) -> None:
    """The client of these tests breaks on a second answer to one request."""
    session = await client.new()
    answers: list[str] = []
    for end in (*StopReason, "failed", "cancelled twice"):
        reply = client.prompt(session)
        performance = await daemon.puppet.next()
        if end == "failed":
            performance.begin(_failing)
        elif end in ("cancelled", "cancelled twice"):
            for _ in range(2):
                client.notify("session/cancel", {"sessionId": session})
        else:
            performance.finish(StopReason(end))
        try:
            answers.append((await reply.result()).stop_reason)
        except RpcError as error:
            answers.append(error.kind)
        await wait_all_tasks_blocked()

    assert answers == [
        *("end_turn", "max_tokens", "max_turn_requests", "refusal", "cancelled"),
        *("agent_failed", "cancelled"),
    ]
    assert len([m for m in client.messages if "stopReason" in str(m)]) == len(answers) - 1


@simulated_clock
async def test_line_39_all_updates_of_a_turn_precede_its_answer(
    daemon: Daemon, client: Client
) -> None:
    """Also to a client that reads late, and with the next turn waiting."""
    session = await client.new()
    client.stop_reading()
    replies = [client.prompt(session, words) for words in ("one", "two")]
    for _ in replies:
        performance = await daemon.puppet.next()
        for number in range(200):
            await performance.say(f"{number} ")
        performance.finish()
        await wait_all_tasks_blocked()

    client.read_on()
    for reply in replies:
        await reply.result()

    for generation, reply in enumerate(replies, 1):
        places = [
            i
            for i, message in enumerate(client.messages)
            if message.get("params", {}).get("_meta", {}).get("moorage", {}).get("generation")
            == generation
        ]
        assert max(places) < reply.place


@pytest.mark.parametrize(
    "reason", [StopReason.MAX_TOKENS, StopReason.MAX_TURN_REQUESTS, StopReason.REFUSAL]
)
@simulated_clock
async def test_line_40_an_agents_reason_to_stop_is_the_answer(
    daemon: Daemon, client: Client, reason: StopReason
) -> None:
    session = await client.new()
    reply = client.prompt(session)

    (await daemon.puppet.next()).finish(reason)

    assert (await reply.result()).stop_reason is reason


@pytest.mark.parametrize(
    ("ending", "reason"),
    [(Ending.TOO_LONG, StopReason.MAX_TOKENS), (Ending.REFUSED, StopReason.REFUSAL)],
)
@simulated_clock
async def test_line_40_a_models_reason_to_stop_is_the_agents(
    ending: Ending, reason: StopReason
) -> None:
    async with open_scene() as scene:
        scene.one.plays([Said("Well."), Finished(ending)])
        session = await scene.client.new()

        assert (await scene.client.prompt(session).result()).stop_reason is reason


@simulated_clock
async def test_line_41_a_tool_call_is_reported_then_under_way_then_done(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    calls: list[Json] = []
    for _ in range(2):
        reply = client.prompt(session)
        performance = await daemon.puppet.next()
        await performance.do(Lever().call())
        await performance.do(Lever().call())
        performance.finish()
        await reply.result()
    calls = [update for update in sent(client, session) if "toolCallId" in update]

    ids = list(dict.fromkeys(call["toolCallId"] for call in calls))
    assert len(ids) == 4, "unique in the session"
    for call_id in ids:
        first, second, last = [call for call in calls if call["toolCallId"] == call_id]
        assert (first["sessionUpdate"], first["status"]) == ("tool_call", "pending")
        assert (first["title"], first["kind"]) == ("pull A", "execute")
        change = {"sessionUpdate": "tool_call_update", "toolCallId": call_id}
        assert second == change | {"status": "in_progress"}
        content = [{"type": "content", "content": {"type": "text", "text": "Pulled."}}]
        assert last == change | {"status": "completed", "content": content}


async def test_line_41_a_tool_call_that_fails_says_so(scripted: Daemon, tmp_path: Path) -> None:
    client = await scripted.connect(plain=True)
    session = await client.new(str(tmp_path))

    await client.prompt(session, "/read nothing.txt").result()

    calls = [update for update in sent(client, session) if "toolCallId" in update]
    assert [call["status"] for call in calls] == ["pending", "in_progress", "failed"]
    assert "does not exist" in calls[-1]["content"][0]["content"]["text"]


@simulated_clock
async def test_line_42_a_plan_is_told_whole_each_time(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    reply = client.prompt(session)
    performance = await daemon.puppet.next()
    steps = [PlanEntry(content=f"step {n}", priority="medium", status="pending") for n in range(3)]
    for done in range(3):
        plan = [
            PlanEntry(content=step.content, priority="high", status="completed") if n < done
            else step
            for n, step in enumerate(steps)
        ]  # fmt: skip

        async def show(stage: Stage, plan: list[PlanEntry] = plan) -> None:
            await stage.plan(plan)

        await performance.do(show)
    performance.finish()
    await reply.result()

    plans = [u["entries"] for u in sent(client, session) if u["sessionUpdate"] == "plan"]
    assert [len(entries) for entries in plans] == [3, 3, 3]
    states = [[entry["status"] for entry in entries].count("completed") for entries in plans]
    assert states == [0, 1, 2]


@simulated_clock
async def test_line_43_further_prompts_wait_in_their_order_and_none_is_lost(
    daemon: Daemon, client: Client
) -> None:
    other = await daemon.connect(plain=True)
    session = await client.new()
    await other.resume(session)
    replies: list[PromptReply] = []
    for n in range(6):
        replies.append((client, other)[n % 2].prompt(session, f"{n}"))
        await wait_all_tasks_blocked()

    for n in range(6):
        performance = await daemon.puppet.next()
        await wait_all_tasks_blocked()
        assert len(daemon.puppet.performances) == n + 1, "one at a time"
        assert performance.prompt.text == f"{n}"
        await performance.say(f"({n}a)")
        await performance.say(f"({n}b)")
        performance.finish()
        assert (await replies[n].result()).stop_reason is StopReason.END_TURN

    assert client.text(session) == "".join(f"({n}a)({n}b)" for n in range(6))


async def test_line_44_a_command_that_was_offered_is_played(
    scripted: Daemon, tmp_path: Path
) -> None:
    client = await scripted.connect(plain=True)
    session = await client.new(str(tmp_path))
    await client.until(lambda: updates(client) != [])
    [offered] = [m["params"]["update"] for m in updates(client)]
    names = [command["name"] for command in offered["availableCommands"]]

    await client.prompt(session, "/stream 3").result()
    await client.prompt(session, "stream 3").result()

    assert offered["sessionUpdate"] == "available_commands_update"
    assert "stream" in names
    assert client.text(session) == "chunk 1\nchunk 2\nchunk 3\nstream 3"


@simulated_clock
async def test_line_45_own_words_are_not_said_again_and_those_of_others_are(
    daemon: Daemon, client: Client
) -> None:
    other = await daemon.connect(plain=True)
    session = await client.new()
    await other.resume(session)

    for asker, words in ((client, "mine"), (other, "theirs")):
        reply = asker.prompt(session, words)
        performance = await daemon.puppet.next()
        await performance.do(saying("yes"))
        performance.finish()
        await reply.result()
    await wait_all_tasks_blocked()

    def heard(seer: Client) -> list[Any]:
        said = [u for u in sent(seer, session) if u["sessionUpdate"] == "user_message_chunk"]
        return [update["content"]["text"] for update in said]

    assert heard(client) == ["theirs"]
    assert heard(other) == ["mine"]
    async with open_daemon(await daemon.image()) as restarted:
        later = await restarted.connect(plain=True)
        await later.load(session)
        assert heard(later) == ["mine", "theirs"], "the past is told to everybody"
