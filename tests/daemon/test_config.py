"""The configuration of a session: shown whole, changed as a whole or not at all, kept for ever."""

from typing import Any

import pytest
from msgspec import Raw
from trio.testing import wait_all_tasks_blocked

from moorage_daemon.identity import Principal
from moorage_protocol.config import ConfigResult, OnTimeout, PermissionDefault, PlanningMode
from moorage_protocol.errors import InvalidParams, NotFound, NotPermitted, StorageError
from moorage_protocol.moorage import Role
from tests.daemon.harness import Daemon, open_daemon, simulated
from tests.daemon.twin import Client, Json


pytestmark = pytest.mark.trio(run=simulated)

WHOLE: Json = {
    "name": "Night shift",
    "systemPrompt": "You are helpful.",
    "maxContextLength": 100_000,
    "autoCompact": True,
    "autoCompactThreshold": 0.5,
    "lanes": {"query": 8},
    "confirmation": {"timeoutSeconds": 30.5, "onTimeout": "approve"},
    "permissions": {"allow": ["Bash(cargo:*)"], "deny": ["Fetch"], "default": "deny"},
    "planningMode": "disabled",
    "goalTracking": True,
    "thinking": {"budgetTokens": 4096},
    "tools": ["bash", "read"],
    "labels": {"tenant": "one"},
    "security": {"taint": [1, {"deep": None}]},
}
DEFAULTS: Json = {
    "name": "",
    "workspace": "/work",
    "storage": "memory",
    "systemPrompt": None,
    "maxContextLength": None,
    "autoCompact": False,
    "autoCompactThreshold": 0.8,
    "lanes": None,
    "confirmation": None,
    "permissions": None,
    "planningMode": "auto",
    "goalTracking": False,
    "thinking": None,
    "tools": None,
    "parent": None,
    "labels": {},
}


async def get(client: Client, session: str) -> Json:
    params = {"sessionId": session}
    found = await client.call("_moorage/session/config/get", params, dict[str, Any])
    config: Json = found["config"]
    return config


async def change(client: Client, session: str, **config: Any) -> Json:
    params = {"sessionId": session, "config": config}
    found = await client.call("_moorage/session/config/set", params, dict[str, Any])
    after: Json = found["config"]
    return after


async def test_a_new_session_has_the_defaults(client: Client) -> None:
    session = await client.new()

    assert await get(client, session) == DEFAULTS


async def test_every_field_is_set_shown_and_there_after_a_restart(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new()

    after = await change(client, session, **WHOLE)

    assert after == DEFAULTS | WHOLE
    assert await get(client, session) == after
    async with open_daemon(await daemon.image()) as restarted:
        assert await get(await restarted.connect(), session) == after


async def test_a_session_may_be_set_up_when_it_is_made(client: Client) -> None:
    first = await client.new()

    session = await client.new(config=WHOLE | {"parent": first}, labels={"tenant": "two", "a": "b"})

    assert await get(client, session) == DEFAULTS | WHOLE | {"parent": first}


async def test_absent_keeps_null_goes_back_and_an_object_is_replaced_whole(client: Client) -> None:
    session = await client.new(config=WHOLE)

    after = await change(
        client, session, name=None, security=None, tools=None, permissions={"ask": ["Run"]}
    )

    expected = WHOLE | {"name": "", "tools": None, "permissions": {"ask": ["Run"]}}
    del expected["security"]
    assert after == DEFAULTS | expected


async def test_what_is_shown_has_a_shape_for_clients(client: Client) -> None:
    session = await client.new(config=WHOLE)
    params = {"sessionId": session}

    config = (await client.call("_moorage/session/config/get", params, ConfigResult)).config

    assert config.lanes is not None
    assert (config.lanes.control, config.lanes.query) == (2, 8)
    assert config.confirmation is not None
    assert config.confirmation.on_timeout is OnTimeout.APPROVE
    assert config.permissions is not None
    assert config.permissions.default is PermissionDefault.DENY
    assert config.planning_mode is PlanningMode.DISABLED


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"name": 7}, "config.name"),
        ({"name": "n" * 201}, "config.name"),
        ({"systemPrompt": "x" * 16385}, "config.systemPrompt"),
        ({"maxContextLength": 0}, "config.maxContextLength"),
        ({"autoCompact": "yes"}, "config.autoCompact"),
        ({"autoCompactThreshold": 0}, "config.autoCompactThreshold"),
        ({"autoCompactThreshold": 1.1}, "config.autoCompactThreshold"),
        ({"lanes": {"query": 65}}, "config.lanes.query"),
        ({"confirmation": {"timeoutSeconds": 0}}, "config.confirmation.timeoutSeconds"),
        ({"confirmation": {"onTimeout": "maybe"}}, "config.confirmation.onTimeout"),
        ({"permissions": {"allow": [""]}}, "config.permissions.allow"),
        ({"permissions": {"default": "perhaps"}}, "config.permissions.default"),
        ({"planningMode": "never"}, "config.planningMode"),
        ({"thinking": {"budgetTokens": 0}}, "config.thinking.budgetTokens"),
        ({"tools": [""]}, "config.tools"),
        ({"labels": {"": "x"}}, "config.labels"),
        ({"labels": {"x": 1}}, "config.labels"),
        ({"security": "s" * 32769}, "config takes more than 32768 bytes"),
        ({"parent": "nobody"}, "config.parent"),
        ({"systemprompt": "x"}, "systemprompt"),
        ({"apiKey": "x"}, "apiKey"),
    ],
)
async def test_a_bad_value_is_named_and_nothing_is_changed(
    daemon: Daemon, client: Client, bad: Json, named: str
) -> None:
    session = await client.new(config={"name": "before"})
    head, log = daemon.session(session).head, await daemon.log(session)

    with pytest.raises(InvalidParams) as caught:
        await change(client, session, **({"goalTracking": True} | bad))

    assert named in caught.value.message
    assert daemon.session(session).head == head
    assert await daemon.log(session) == log
    with pytest.raises(InvalidParams):
        await client.new(config=bad)


async def test_a_change_is_in_the_log_as_it_was_asked_for(client: Client) -> None:
    session = await client.new()
    await change(client, session, goalTracking=True, systemPrompt=None)

    [entry] = await client.entries(session, kinds=["config"])
    assert entry["changes"] == {"goalTracking": True, "systemPrompt": None}
    assert entry["by"] == client.tui


async def test_a_name_is_the_title_and_all_clients_learn_of_it(
    daemon: Daemon, client: Client
) -> None:
    plain = await daemon.connect(plain=True)
    session = await client.new()
    await plain.load(session)

    await change(client, session, name="  The night\n shift ")
    client.prompt(session, "hello")
    (await daemon.puppet.next()).finish()
    await wait_all_tasks_blocked()

    assert (await get(client, session))["name"] == "The night shift"
    [row] = (await client.live()).sessions
    assert row.title == "The night shift", "a prompt names only what has no name"
    updates = [p["update"] for p in plain.of_session(session)]
    infos = [u for u in updates if u["sessionUpdate"] == "session_info_update"]
    assert {info["title"] for info in infos} == {"The night shift"}


async def test_a_session_without_a_name_gets_one_from_its_prompt_again(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new(config={"name": "First"})
    await change(client, session, name="")

    client.prompt(session, "a question")
    (await daemon.puppet.next()).finish()
    await wait_all_tasks_blocked()

    assert (await get(client, session))["name"] == "a question"


async def test_a_parent_is_another_session_of_the_same_principal_and_no_descendant(
    daemon: Daemon, client: Client
) -> None:
    stranger = await daemon.connect(Principal("other", Role.OWNER))
    foreign = await stranger.new()
    first = await client.new()
    second = await client.new(config={"parent": first})
    third = await client.new(config={"parent": second})

    for session, parent in ((first, foreign), (first, first), (first, third), (first, second)):
        with pytest.raises(InvalidParams):
            await change(client, session, parent=parent)
    with pytest.raises(InvalidParams):
        await stranger.new(config={"parent": first})

    assert (await change(client, third, parent=first))["parent"] == first
    assert (await change(client, second, parent=None))["parent"] is None
    assert (await change(client, first, parent=second))["parent"] == second


async def test_who_may_not_act_may_not_change_and_a_stranger_sees_nothing(
    daemon: Daemon, client: Client
) -> None:
    session = await client.new(config=WHOLE)
    observer = await daemon.connect(Principal("local", Role.OBSERVER))
    stranger = await daemon.connect(Principal("other", Role.OWNER))

    assert (await get(observer, session))["name"] == "Night shift"
    with pytest.raises(NotPermitted):
        await change(observer, session, name="mine")
    with pytest.raises(NotFound):
        await get(stranger, session)
    with pytest.raises(NotFound):
        await change(stranger, session, name="mine")


async def test_a_killed_session_shows_its_configuration_and_takes_no_other(client: Client) -> None:
    session = await client.new(config=WHOLE)
    await client.kill(session)

    assert (await get(client, session))["systemPrompt"] == "You are helpful."
    with pytest.raises(NotFound):
        await change(client, session, name="late")


async def test_on_a_full_disk_nothing_is_changed(daemon: Daemon, client: Client) -> None:
    session = await client.new(config={"name": "before"})
    daemon.store.fill()
    client.prompt(session)
    await wait_all_tasks_blocked()

    with pytest.raises(StorageError):
        await change(client, session, name="after")

    assert (await get(client, session))["name"] == "before"


async def test_the_sessions_own_patience_beats_the_settings() -> None:
    async with open_daemon(permission_timeout_seconds=3) as daemon:
        client = await daemon.connect()
        plain = await client.new()
        own = await client.new(config={"confirmation": {"timeoutSeconds": 60}})
        forever = await client.new(config={"confirmation": {}})

        sessions = [daemon.session(session) for session in (plain, own, forever)]
        assert [each.confirmation.timeout_seconds for each in sessions] == [3, 60, None]


async def test_security_settings_come_back_byte_for_byte(daemon: Daemon, client: Client) -> None:
    session = await client.new()
    odd = b'{"b":1.0,"a":[1e3,"\\u00e9"],"b":2}'
    params = {"sessionId": session, "config": {"security": "HERE"}}
    frame, reply = client.frame("_moorage/session/config/set", params, dict[str, Any])
    client.post(frame.replace(b'"HERE"', odd))
    await reply.result()

    stored = await daemon.store.inner.load(session)
    assert stored is not None
    assert isinstance(stored.head.config.security, Raw)
    assert bytes(stored.head.config.security) == odd
