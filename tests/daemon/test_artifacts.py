"""Long output: kept whole, shown by its ends, and read back under its address."""

from typing import Any

import pytest
import trio

from moorage_daemon.identity import Principal
from moorage_daemon.log.views import place_of
from moorage_daemon.store.port import StoreBroken
from moorage_daemon.tools.port import Bench, Report
from moorage_protocol.errors import InvalidParams, NotFound
from moorage_protocol.moorage import Role
from moorage_protocol.views import ArtifactResult, ArtifactRow, ArtifactsResult, TracesResult
from tests.daemon.harness import Daemon, open_daemon, simulated
from tests.daemon.puppet import Lever, LeverArguments, Performance
from tests.daemon.twin import Client


pytestmark = pytest.mark.trio(run=simulated)

LONG = "".join(f"line {number}\n" for number in range(50_000))


class Talker(Lever):
    """A tool that reports what it is told to."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report

    async def run(self, arguments: LeverArguments, bench: Bench) -> Report:
        await super().run(arguments, bench)
        return self.report


async def rows(client: Client, session: str, **page: Any) -> list[ArtifactRow]:
    params = {"sessionId": session, **page}
    result = await client.call("_moorage/session/artifacts", params, ArtifactsResult)
    return result.artifacts


async def part(client: Client, uri: str, **page: Any) -> ArtifactResult:
    return await client.call("_moorage/artifact/get", {"uri": uri, **page}, ArtifactResult)


async def content(client: Client, uri: str) -> bytes:
    """All of it, part by part."""
    data = b""
    while True:
        found = await part(client, uri, offset=len(data))
        data += found.data
        if len(data) == found.size:
            return data


async def told(daemon: Daemon, client: Client, session: str, report: Report) -> str:
    """Have a tool report that in a turn; gives what its call shows."""
    reply = client.prompt(session)
    performance: Performance = await daemon.puppet.next()
    await performance.do(Talker(report).call())
    performance.finish()
    await reply.result()
    updates = [p.get("update", {}) for p in client.of_session(session)]
    shown = [u for u in updates if u.get("sessionUpdate") == "tool_call_update" and "content" in u]
    text: str = shown[-1]["content"][0]["content"]["text"]
    return text


async def test_long_output_is_an_artifact_and_its_ends_are_shown(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()

    text = await told(daemon, client, session, Report("line 0 … line 49999", whole=LONG))

    [row] = await rows(client, session)
    assert await content(client, row.uri) == LONG.encode()
    assert text == f"line 0 … line 49999\n[all {len(LONG):,} bytes: {row.uri}]"
    assert (row.size, row.shown) == (len(LONG), len("line 0 … line 49999".encode()))
    assert (row.tool, row.tool_call_id, row.generation) == ("Lever", "call-1-1", 1)
    assert row.media.startswith("text/plain")
    params = {"sessionId": session}
    [trace] = (await client.call("_moorage/session/traces", params, TracesResult)).traces
    assert (trace.artifacts, trace.output_bytes) == ((row.uri,), len(LONG))


async def test_a_text_that_is_too_long_for_a_message_is_one_too(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    text = await told(daemon, client, session, Report("ä" * 200_000))

    [row] = await rows(client, session)
    assert await content(client, row.uri) == ("ä" * 200_000).encode()
    assert "characters left out" in text
    assert text.endswith(f"[all 400,000 bytes: {row.uri}]")


async def test_what_fits_a_message_is_none(daemon: Daemon, client: Client) -> None:
    session = await client.new()

    assert await told(daemon, client, session, Report("x" * 100_000)) == "x" * 100_000
    assert await rows(client, session) == []


async def test_the_agent_learns_where_the_rest_is(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    client.prompt(session)
    performance = await daemon.puppet.next()
    heard: list[Report] = []

    async def act(stage: Any) -> None:
        heard.append(await stage.call(Talker(Report("short", whole=LONG)), LeverArguments()))

    await performance.do(act)

    [row] = await rows(client, session)
    assert heard == [Report(f"short\n[all {len(LONG):,} bytes: {row.uri}]")]


async def test_artifacts_are_there_after_a_restart_and_of_a_killed_session(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    await told(daemon, client, session, Report("short", whole=LONG))
    await client.kill(session)
    [row] = await rows(client, session)
    assert await content(client, row.uri) == LONG.encode()

    async with open_daemon(daemon.store) as restarted:
        other = await restarted.connect()
        assert await rows(other, session) == [row]
        assert await content(other, row.uri) == LONG.encode()


async def test_an_artifact_is_read_in_parts(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    await told(daemon, client, session, Report("short", whole=LONG))
    [row] = await rows(client, session)

    middle = await part(client, row.uri, offset=10, limit=5)

    assert (middle.data, middle.size) == (LONG.encode()[10:15], row.size)
    assert (await part(client, row.uri, offset=row.size)).data == b""
    assert (await part(client, row.uri, offset=10**12)).data == b""
    for bad in ({"offset": -1}, {"limit": -1}, {"limit": 2**19 + 1}):
        with pytest.raises(InvalidParams):
            await part(client, row.uri, **bad)


async def test_an_address_gives_nobody_more_than_its_session(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()
    await told(daemon, client, session, Report("short", whole=LONG))
    [row] = await rows(client, session)
    stranger = await daemon.connect(Principal("other", Role.OWNER))
    observer = await daemon.connect(Principal("local", Role.OBSERVER))

    assert (await part(observer, row.uri)).size == row.size
    with pytest.raises(NotFound):
        await part(stranger, row.uri)
    for uri in (
        f"moorage-artifact://{session}/1",
        f"moorage-artifact://{session}/999",
        f"moorage-artifact://{session}/0{row.seq}",
        f"moorage-artifact://nobody/{row.seq}",
        f"moorage-artifact://sha256/{row.sha256}",
        row.sha256,
        "file:///etc/passwd",
        "",
    ):
        with pytest.raises(NotFound):
            await part(client, uri)


async def test_an_artifact_goes_with_its_session(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    await told(daemon, client, session, Report("short", whole=LONG))
    [row] = await rows(client, session)

    await client.delete(session)

    with pytest.raises(NotFound):
        await part(client, row.uri)
    assert (await daemon.store.collect(0)).blobs == 1


async def test_the_bytes_are_durable_before_the_entry_that_names_them(
    daemon: Daemon, client: Client
) -> None:
    """Every prefix of the commits of a session has the bytes of each artifact that it names."""
    session = await client.new()
    put = daemon.store.put_blob
    commits_at_put: list[int] = []

    async def watched(*args: Any, **kwargs: Any) -> Any:
        blob = await put(*args, **kwargs)
        commits_at_put.append(len(daemon.store.commits))
        return blob

    daemon.store.put_blob = watched  # type: ignore[method-assign]
    await told(daemon, client, session, Report("short", whole=LONG))

    named = [
        number
        for number, commit in enumerate(daemon.store.commits)
        for change in commit
        for entry in change.entries
        if entry.kind == "artifact"
    ]
    assert len(named) == len(commits_at_put) == 1
    assert commits_at_put[0] <= named[0]


async def test_where_nothing_can_be_kept_the_ends_are_shown(
    daemon: Daemon, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    session = await client.new()

    async def broken(*_: Any, **__: Any) -> Any:
        await trio.lowlevel.checkpoint()
        raise StoreBroken("broken by the test")

    daemon.store.put_blob = broken  # type: ignore[method-assign]
    text = await told(daemon, client, session, Report("both ends", whole=LONG))

    assert text == "both ends"
    assert await rows(client, session) == []
    assert "cannot be kept" in caplog.text


async def test_a_kill_while_it_is_kept_names_nothing(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    client.prompt(session)
    performance = await daemon.puppet.next()
    put, gate = daemon.store.put_blob, trio.Event()

    async def slow(*args: Any, **kwargs: Any) -> Any:
        with trio.CancelScope(shield=True):
            await gate.wait()
            return await put(*args, **kwargs)

    daemon.store.put_blob = slow  # type: ignore[method-assign]
    performance.begin(Talker(Report("short", whole=LONG)).call())
    await trio.testing.wait_all_tasks_blocked()
    killed = client.start_kill(session)
    await trio.testing.wait_all_tasks_blocked()
    gate.set()
    assert (await killed.result()).killed

    assert await rows(client, session) == []
    results = [e for e in await client.entries(session) if e["kind"] == "result"]
    assert [result["status"] for result in results] == ["cancelled"]


async def test_an_address_is_taken_apart_or_it_is_none() -> None:
    assert place_of("moorage-artifact://abc/17") == ("abc", 17)
    for text in ("moorage-artifact://abc/", "moorage-artifact://a/b/1", "abc/1", "\n"):
        assert place_of(text) is None
