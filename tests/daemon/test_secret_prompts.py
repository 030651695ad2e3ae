"""A secret in a prompt is for its agent, during its turn, and is written and told nowhere."""

import base64
import logging
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings, strategies as st
from trio.testing import wait_all_tasks_blocked

from moorage_daemon.agents.port import AgentFailed, Compaction, Exchange, Past
from moorage_daemon.grants.calls import Call, Words
from moorage_daemon.log_lines import LOG_FORMAT, LogLines
from moorage_daemon.tools.port import Bench, NotBegun, Report, ToolFailed
from moorage_daemon.turn.shown import MARK
from moorage_protocol.acp import Diff, PlanEntry, ToolCallContent
from moorage_protocol.errors import InvalidParams, TurnFailed
from moorage_protocol.views import Check, Verification
from tests.daemon.harness import Daemon, open_daemon, simulated
from tests.daemon.puppet import Act, Lever, LeverArguments, Performance
from tests.daemon.store.samples import all_entries
from tests.daemon.twin import Client, Json, PromptReply


pytestmark = pytest.mark.trio(run=simulated)

SECRET = "pg://me:s3cr3t/+\"'\\x@host"
MARKED: Json = {"_meta": {"moorage": {"secret": True}}}
KEY = "-----BEGIN KEY-----\nabcdefghijkl\nmnopqrstuvwx\n-----END KEY-----"


def secret(text: str = SECRET, mark: object = True, kind: str = "text") -> Json:
    """A block that is marked."""
    return {"type": kind, "text": text, "_meta": {"moorage": {"secret": mark}}}


def text(said: str) -> Json:
    return {"type": "text", "text": said}


def send(client: Client, session: str, *blocks: Json, **meta: Any) -> PromptReply:
    """Prompt with these blocks; `meta` is all of `_meta`."""
    params: Json = {"sessionId": session, "prompt": list(blocks)}
    frame, reply = client.prompt_frame(session)
    sent = msgspec.json.decode(frame)
    sent["params"] = params | ({"_meta": meta} if meta else {})
    client.post(msgspec.json.encode(sent))
    return reply


async def begin(daemon: Daemon, client: Client, *blocks: Json) -> tuple[str, Performance]:
    """A session, and its turn with that prompt."""
    session = await client.new()
    send(client, session, *blocks)
    return session, await daemon.puppet.next()


async def finish(client: Client, session: str, performance: Performance) -> None:
    performance.finish()
    await client.until(lambda: len(client.verdicts(session)) == 1)


FORMS = [
    SECRET.encode(),
    msgspec.json.encode(SECRET)[1:-1],
    base64.b64encode(SECRET.encode())[:-4],
    SECRET.encode().hex().encode(),
]


async def everything(daemon: Daemon, *clients: Client) -> bytes:
    """All that is stored, and all that these clients were sent."""
    store = daemon.store.inner
    found = [msgspec.json.encode([client.messages for client in clients])]
    for stored in await store.list():
        found.append(msgspec.json.encode(stored.head))
        found += [entry.body for entry in await all_entries(store, stored.head.id)]
    return b"\n".join(found)


def tells(said: bytes) -> bool:
    return any(form in said for form in FORMS)


# ---- the prompt itself


async def test_agent_is_given_the_secret_and_everybody_else_a_mark(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    watcher = await daemon.connect()
    await watcher.attach(session)

    reply = send(client, session, text("use this:"), secret())
    performance = await daemon.puppet.next()
    performance.finish()
    await reply.result()
    later = await daemon.connect()
    await later.load(session)

    assert performance.prompt.text == f"use this:\n{SECRET}"
    for other in (watcher, later):
        await other.until(lambda other=other: 1 in other.verdicts(session))  # type: ignore[misc]
        [block] = [
            params["update"]["content"]
            for params in other.of_session(session)
            if params.get("update", {}).get("messageId") == "1-user"
            and "_meta" in params["update"]["content"]
        ]
        assert block == secret(MARK)
    [record] = await client.turns(session)
    assert record.prompt == f"use this:\n{MARK}"
    assert not tells(await everything(daemon, client, watcher, later))


async def test_unmarked_prompt_is_told_and_found(daemon: Daemon, client: Client) -> None:
    session, performance = await begin(daemon, client, text(SECRET))
    await finish(client, session, performance)

    assert tells(await everything(daemon, client))


async def test_title_and_excerpt_are_cut_behind_the_mark(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    reply = send(client, session, text("x" * 70), secret())
    (await daemon.puppet.next()).finish()
    await reply.result()

    assert daemon.session(session).head.title == f"{'x' * 70} {MARK}"
    assert not tells(await everything(daemon, client))


async def test_secret_stands_in_nothing_else_of_its_prompt(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    blocks: list[Json] = [
        secret(),
        text(f"that is, {SECRET}."),
        {"type": "resource_link", "uri": f"file:///{SECRET}", "name": SECRET, "title": SECRET},
        {"type": "resource", "resource": {"uri": "a", "text": SECRET, "_meta": {SECRET: SECRET}}},
        {"type": "text", "text": "plain", "annotations": {"audience": [SECRET]}},
        {"type": "text", "text": "as it came", "annotations": {"priority": 1}},
    ]
    reply = send(client, session, *blocks, trace={"is": SECRET})
    performance = await daemon.puppet.next()
    performance.finish()
    await reply.result()

    assert performance.prompt.text.count(SECRET) == 4
    assert performance.prompt.meta == msgspec.Raw(msgspec.json.encode({"trace": {"is": SECRET}}))
    told = [entry["update"] for entry in await client.entries(session, kinds=["message"])]
    assert told[-1]["content"] == blocks[-1]
    assert told[1]["content"] == text(f"that is, {MARK}.")
    assert not tells(await everything(daemon, client))


async def test_waiting_prompt_is_kept_without_its_secret(daemon: Daemon, client: Client) -> None:
    session, first = await begin(daemon, client, text("first"))
    reply = send(client, session, text("second"), secret())
    await wait_all_tasks_blocked()
    waiting = await everything(daemon, client)
    snapshot = await (await daemon.connect()).attach(session)
    first.finish()
    second = await daemon.puppet.next()
    second.finish()
    await reply.result()

    assert len(snapshot.queue) == 1
    assert MARK.encode() in waiting
    assert not tells(waiting)
    assert second.prompt.text == f"second\n{SECRET}"
    assert not tells(await everything(daemon, client))


async def test_later_turn_hears_the_mark(daemon: Daemon, client: Client) -> None:
    session, performance = await begin(daemon, client, text("use"), secret())
    await performance.say(f"I used {SECRET}.")
    await finish(client, session, performance)
    send(client, session, text("and now?"))
    later = await daemon.puppet.next()
    heard: list[Past] = []

    async def listen(stage: Any) -> None:
        heard.append(await stage.history(1000))

    await later.do(listen)

    [past] = heard
    assert list(past.exchanges) == [Exchange(f"use\n{MARK}", f"I used {MARK}.", generation=1)]


async def test_daemon_that_was_killed_knows_it_no_longer(daemon: Daemon, client: Client) -> None:
    session, _ = await begin(daemon, client, text("use"), secret())
    send(client, session, text("queued"), secret())
    await wait_all_tasks_blocked()

    async with open_daemon(await daemon.image()) as next_daemon:
        other = await next_daemon.connect()
        await other.load(session)

        causes = [verdict["cause"] for verdict in other.verdicts(session).values()]
        assert causes == ["daemon_restart", "daemon_restart"]
        assert not tells(await everything(next_daemon, other))


# ---- sent again


async def test_prompt_that_is_sent_again_runs_once_also_after_its_end(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    ours = {"promptId": "one"}
    first = send(client, session, secret(), moorage=ours)
    again = send(client, session, secret(), moorage=ours)
    other = send(client, session, secret("another secret"), moorage=ours)
    (await daemon.puppet.next()).finish()
    await first.result()
    await again.result()
    late = send(client, session, secret(), moorage=ours)
    await late.result()

    with pytest.raises(InvalidParams):
        await other.result()
    assert len(daemon.puppet.performances) == 1


async def test_what_is_kept_of_a_prompt_does_not_depend_on_its_secret(
    daemon: Daemon, client: Client
) -> None:
    digests: set[str] = set()
    for said in (SECRET, "another secret"):
        session = await client.new()
        send(client, session, text("use"), secret(said), moorage={"promptId": "one"})
        (await daemon.puppet.next()).finish()
        await client.until(lambda s=session: bool(client.verdicts(s)))  # type: ignore[misc]
        [known] = daemon.session(session).head.prompts
        digests.add(known.digest)

    assert len(digests) == 1


# ---- what is refused


@pytest.mark.parametrize(
    "blocks",
    [
        [secret("1234567")],
        [secret("  1234567  \n")],
        [secret(mark="yes")],
        [secret(mark=None)],
        [{**text("a long secret"), "_meta": {"moorage": "secret"}}],
        [secret(MARK)],
        [secret("x" * 20_000)],
        [secret("a line\n" * 200)],
        [secret(), text("x" * 600_000)],
        [{"type": "resource_link", "uri": "a", "name": "b", **MARKED}],
        [{"type": "resource", "resource": {"uri": "a", "text": "a long text"}, **MARKED}],
        [{"type": "resource", "resource": {"uri": "a", "text": "a long text", **MARKED}}],
    ],
)
async def test_mark_that_cannot_be_heeded_admits_nothing(
    daemon: Daemon, client: Client, blocks: list[Json]
) -> None:
    session = await client.new()

    with pytest.raises(InvalidParams) as refused:
        await send(client, session, *blocks).result()

    assert "1234567" not in refused.value.message
    assert await client.turns(session) == []
    assert daemon.puppet.performances == []


@pytest.mark.parametrize("ours", [{"secret": True}, {"promptId": f"prompt of {SECRET}"}])
async def test_secret_in_the_wrong_place_admits_nothing(
    daemon: Daemon, client: Client, ours: Json
) -> None:
    session = await client.new()

    with pytest.raises(InvalidParams):
        await send(client, session, secret(), moorage=ours).result()

    assert not tells(await everything(daemon))


@pytest.mark.parametrize("meta", [None, {}, {"moorage": {}}, {"moorage": {"secret": False}}])
async def test_block_without_a_mark_is_kept_as_it_came(
    daemon: Daemon, client: Client, meta: Json | None
) -> None:
    block = {**text("no secret"), "_meta": meta}
    session, performance = await begin(daemon, client, block)
    await finish(client, session, performance)

    [entry] = await client.entries(session, kinds=["message"])
    assert entry["update"]["content"] == block


# ---- what the turn makes of it


def thinking(text: str) -> Act:
    return lambda stage: stage.think(text)


async def test_agent_that_repeats_it_in_pieces_is_heard_without_it(
    daemon: Daemon, client: Client
) -> None:
    session, performance = await begin(daemon, client, secret())
    for letter in f"It is {SECRET}, I think.":
        await performance.say(letter)
        await performance.do(thinking(letter))
    await finish(client, session, performance)

    assert client.text(session) == f"It is {MARK}, I think."
    assert not tells(await everything(daemon, client))


@settings(max_examples=12)
@given(
    said=st.text('ab\n"\\é', min_size=8, max_size=20).filter(lambda s: len(s.strip()) >= 8),
    cuts=st.lists(st.integers(0, 60), max_size=8).map(sorted),
    others=st.lists(st.booleans(), min_size=9, max_size=9),
)
async def test_no_entry_holds_a_secret_however_it_is_said(
    said: str, cuts: list[int], others: list[bool]
) -> None:
    """Nor do they together: pieces with other things between them are one text to a reader."""
    whole = f"a{said}b {said}{said}"
    ends = [0, *[min(cut, len(whole)) for cut in cuts], len(whole)]
    async with open_daemon() as daemon:
        client = await daemon.connect()
        session, performance = await begin(daemon, client, secret(said))
        for (start, end), other in zip(pairwise(ends), others, strict=False):
            await performance.say(whole[start:end])
            if other:
                await performance.do(Lever().call())
        await finish(client, session, performance)

        assert said not in client.text(session)
        written = msgspec.json.encode(said)[1:-1]
        assert not any(written in entry.body for entry in await daemon.log(session))


class Reckless(Lever):
    """A lever that tells all it knows, and shows it before."""

    def __init__(self, report: Report | ToolFailed, **settings: Any) -> None:
        super().__init__(**settings)
        self.report = report
        self.benches: list[Bench] = []

    def title(self, arguments: LeverArguments) -> str:
        return f"pull {arguments.label}"

    def about(self, arguments: LeverArguments, cwd: str) -> Call:
        return Call(self.name, Words(arguments.label))

    async def preview(self, arguments: LeverArguments, bench: Bench) -> Sequence[ToolCallContent]:
        return (Diff(path="/a", new_text=arguments.label),)

    async def run(self, arguments: LeverArguments, bench: Bench) -> Report:
        self.pulled.append(arguments.label)
        self.benches.append(bench)
        bench.progress(f"at work on {SECRET} and {SECRET[:12]}")
        if isinstance(self.report, ToolFailed):
            raise self.report
        return self.report


@pytest.mark.parametrize(
    "report",
    [
        Report(f"I know: {SECRET}"),
        Report(base64.b64encode(f"user:{SECRET}".encode()).decode()),
        Report(f"{'long ' * 100_000}{SECRET}"),
        Report(SECRET[:10], whole=f"the whole {SECRET}"),
        ToolFailed(f"no such host: {SECRET}"),
        NotBegun(f"no such program: {SECRET}"),
    ],
)
async def test_call_with_a_secret_runs_with_it_and_is_shown_without(
    daemon: Daemon, client: Client, report: Report | ToolFailed
) -> None:
    session, performance = await begin(daemon, client, secret())
    lever = Reckless(report, asks=True, paths=(f"/work/{SECRET}",))
    heard: list[Report] = []

    async def call(stage: Any) -> None:
        heard.append(await stage.call(lever, LeverArguments(f"with {SECRET}")))

    done = performance.begin(call)
    question = await client.question()
    asked = await client.request("session/request_permission")
    client.choose(question)
    await done.wait()
    await finish(client, session, performance)

    assert lever.pulled == [f"with {SECRET}"]
    assert lever.benches[0].is_secret
    assert asked["params"]["toolCall"]["title"] == f"pull with {MARK}"
    assert asked["params"]["toolCall"]["rawInput"] == {"label": f"with {MARK}"}
    assert "content" not in asked["params"]["toolCall"]
    assert not any([tells(blob) async for blob in stored_blobs(daemon)])
    assert not tells(await everything(daemon, client))


async def stored_blobs(daemon: Daemon) -> AsyncIterator[bytes]:
    """What is kept of long outputs."""
    store = daemon.store.inner
    for stored in await store.list():
        for entry in await all_entries(store, stored.head.id):
            if entry.kind == "artifact":
                sha256 = msgspec.json.decode(entry.body)["sha256"]
                part = await store.get_blob(sha256, 0, 2**24)
                assert part is not None
                yield part.data


async def test_agent_reads_its_own_secret_in_what_a_tool_says(
    daemon: Daemon, client: Client
) -> None:
    """It may have to write the same file again."""
    _, performance = await begin(daemon, client, secret())
    heard: list[Report] = []

    async def call(stage: Any) -> None:
        heard.append(await stage.call(Reckless(Report(f"key={SECRET}")), LeverArguments()))

    await performance.do(call)

    assert heard[0].text == f"key={SECRET}"


async def test_always_allowed_is_no_call_with_a_secret(daemon: Daemon, client: Client) -> None:
    """What is behind the mark is another secret each time."""
    _, performance = await begin(daemon, client, secret())
    lever = Lever(asks=True)
    for number, label in enumerate((SECRET, SECRET, MARK), start=1):
        done = performance.begin(lever.call(label))
        client.choose(await client.question(number), "always")
        await done.wait()

    assert lever.pulled == [SECRET, SECRET, MARK]


async def test_plans_questions_reports_and_summaries_are_told_without_it(
    daemon: Daemon, client: Client
) -> None:
    session, performance = await begin(daemon, client, secret())
    check = Check(id=SECRET, kind=SECRET, description=SECRET, evidence=(SECRET,), risk=SECRET)
    report = Verification(subject=SECRET, checks=(check,), risks=(SECRET,))
    step = PlanEntry(content=f"use {SECRET}", priority="high", status="pending")
    await performance.do(lambda stage: stage.plan([step]))
    await performance.do(lambda stage: stage.report(report))
    await performance.do(lambda stage: stage.compact(Compaction(0, f"used {SECRET}"), None))
    done = performance.begin(lambda stage: stage.ask(f"may I use {SECRET}?"))
    client.choose(await client.question())
    await done.wait()
    await finish(client, session, performance)

    assert f"may I use {MARK}?" in str(client.messages)
    assert not tells(await everything(daemon, client))


async def test_word_that_entries_are_made_of_spoils_none(daemon: Daemon, client: Client) -> None:
    """Only what is free text is looked through."""
    words = ("completed", "toolCallId", "agent_message_chunk", "resource_link", "sessionUpdate")
    session, performance = await begin(daemon, client, *map(secret, words))
    await performance.do(Lever().call())
    await performance.say("completed.")
    await finish(client, session, performance)

    kinds = client.kinds(session)
    assert kinds.count("result") == kinds.count("verdict") == 1
    [result] = client.of_kind("result")
    assert result["status"] == "completed"
    assert client.text(session) == f"{MARK}."


@pytest.mark.parametrize(
    "problem", [ValueError(f"cannot use {SECRET}"), AgentFailed("agent_failed", SECRET)]
)
async def test_failure_that_quotes_it_is_logged_without(
    daemon: Daemon, client: Client, problem: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.setFormatter(LogLines(LOG_FORMAT))
    caplog.set_level(logging.DEBUG)
    session = await client.new()
    reply = send(client, session, secret())
    (await daemon.puppet.next()).fail(problem)

    with pytest.raises(TurnFailed):
        await reply.result()
    assert not tells(caplog.text.encode() + await everything(daemon, client))


async def test_kill_in_the_middle_tells_no_beginning_of_it(daemon: Daemon, client: Client) -> None:
    session, performance = await begin(daemon, client, secret(KEY))
    await performance.say(f"It is {KEY[:-8]}")
    await client.kill(session)

    assert b"abcdefghijkl" not in await everything(daemon, client)
