"""However much a client says, what is answered fits one message; the twin checks each of them."""

import pytest

from moorage_protocol.errors import InvalidParams
from moorage_protocol.moorage import ListResult, NewResult, TuisResult
from tests.daemon.harness import Daemon, simulated
from tests.daemon.twin import Client, Json


pytestmark = pytest.mark.trio(run=simulated)

LONG = "a" * 2**21


@pytest.mark.parametrize(
    "wish",
    [
        {"labels": {"key": LONG}},
        {"labels": {LONG: "value"}},
        {"labels": {f"key {number}": "value" for number in range(1000)}},
    ],
    ids=["long value", "long name", "many"],
)
async def test_labels_beyond_their_limits_are_refused(client: Client, wish: Json) -> None:
    with pytest.raises(InvalidParams, match="labels"):
        await client.new(**wish)


async def test_a_directory_that_no_system_call_takes_is_refused(client: Client) -> None:
    params: Json = {"cwd": f"/{LONG}", "mcpServers": []}

    with pytest.raises(InvalidParams, match="cwd is longer than 4096 bytes"):
        await client.call("session/new", params, NewResult)


async def test_sessions_with_long_directories_are_listed_in_more_pages(client: Client) -> None:
    cwd = "/" + "\x01" * 4000  # each is six characters of JSON
    params: Json = {"cwd": cwd, "mcpServers": []}
    created = [(await client.call("session/new", params, NewResult)).session_id for _ in range(40)]

    listed: list[str] = []
    cursor: Json = {}
    while True:
        page = await client.call("session/list", cursor, ListResult)
        listed += [row.session_id for row in page.sessions]
        if not isinstance(page.next_cursor, str):
            break
        cursor = {"cursor": page.next_cursor}

    assert sorted(listed) == sorted(created)
    assert 0 < len((await client.live()).sessions) < 40


async def test_of_a_long_reason_the_beginning_is_kept_and_the_kill_holds(client: Client) -> None:
    session = await client.new()

    assert (await client.kill(session, LONG)).durable

    [*_, last] = await client.entries(session)
    assert last["reason"] == LONG[:1000]


async def test_of_a_long_name_the_beginning_is_shown(daemon: Daemon) -> None:
    client = await daemon.connect(hello={"name": LONG})

    [row] = (await client.call("_moorage/tui/list", {}, TuisResult)).tuis

    assert row.name == LONG[:100]


async def test_a_number_beyond_every_log_is_its_end(client: Client) -> None:
    session = await client.new()

    assert await client.entries(session, 2**100) == []


async def test_more_kinds_than_there_can_be_are_refused(client: Client) -> None:
    session = await client.new()

    with pytest.raises(InvalidParams, match="kinds: at most 64"):
        await client.entries(session, kinds=["message"] * 40_000)
